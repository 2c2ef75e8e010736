"""What is each unit worth? Evidence goes in, one saliency per unit comes out, and higher always means *keep*.

Importing this package registers the criteria of every file in ``criteria``.
"""

from prunus.score.catalogue import NEEDS, criteria_table
from prunus.score.criteria.criterion import (
    EVERY_UNIT,
    WIDTHS,
    Compensation,
    Criterion,
    check_criterion,
    criteria,
    criterion,
)
from prunus.score.evidence.gather import Evidence, check_calibration, gather
from prunus.score.evidence.movement import MovementRecorder
from prunus.score.evidence.pieces import Sums
from prunus.score.evidence.without_labels import probe_loss
from prunus.score.examples import by_embedding  # noqa: F401 - registers
from prunus.score.examples.confident import ConfidentLabels, confident_labels
from prunus.score.examples.cover import orders  # noqa: F401 - registers
from prunus.score.examples.cover.facility_location import FacilityLocation, facility_location
from prunus.score.examples.cover.herding import herding
from prunus.score.examples.cover.k_means import KMeans, k_means, nearest_centre
from prunus.score.examples.duplicates.keepers import Duplicates
from prunus.score.examples.duplicates.near_duplicate_texts import (
    near_duplicate_sequences,
    near_duplicate_texts,
    sequence_similarities,
    sequence_width,
)
from prunus.score.examples.duplicates.near_duplicates import near_duplicates
from prunus.score.examples.duplicates.token_rows import FILLED, check_tokens, token_rows
from prunus.score.examples.embeddings import embed, principal_plane
from prunus.score.examples.example_criteria import ExampleCriterion, example_criteria
from prunus.score.examples.example_strata import example_strata
from prunus.score.examples.farthest_first import FarthestFirst, farthest_first
from prunus.score.examples.flat_inputs import check_flat, flat_inputs
from prunus.score.examples.neighbours import nearest_neighbours, suggest_labels
from prunus.score.examples.precision import Precision, WrongLabels, wrong_labels
from prunus.score.examples.recorded import ExampleRecorder
from prunus.score.examples.recording.example_scores import SCORES, ExampleScores, scores_of
from prunus.score.examples.recording.judged import judge, judge_classes, recorded_names
from prunus.score.examples.recording.recording import Recording
from prunus.score.examples.recording.standard_errors import error_of_deviation, error_of_mean
from prunus.score.examples.recording.training_callbacks import RecordingCallback, RecordingLightningCallback
from prunus.score.feature_importance import FeatureImportance, judge_feature_importance
from prunus.score.influence import (
    GRADIENT_NEEDS,
    INFLUENCE_NEEDS,
    CheckpointScores,
    Extrapolated,
    Influence,
    extrapolate,
    gradient_evidence,
    gradient_norms,
    influence,
    influence_evidence,
)
from prunus.score.labels.label_verdicts import FLAGGED, SPARED, LabelVerdicts, judge_labels
from prunus.score.labels.outlying_targets import judge_targets
from prunus.score.labels.part_verdicts import Parts, judge_parts
from prunus.score.parameters import norm_scales, prunable_weights
from prunus.score.readers import Read, layers_reading
from prunus.score.unit_saliency import block_paths, score_groups, score_weights

__all__ = [
    "EVERY_UNIT",
    "FILLED",
    "FLAGGED",
    "GRADIENT_NEEDS",
    "INFLUENCE_NEEDS",
    "NEEDS",
    "SCORES",
    "SPARED",
    "WIDTHS",
    "CheckpointScores",
    "Compensation",
    "ConfidentLabels",
    "Criterion",
    "Duplicates",
    "Evidence",
    "ExampleCriterion",
    "ExampleRecorder",
    "ExampleScores",
    "Extrapolated",
    "FacilityLocation",
    "FarthestFirst",
    "FeatureImportance",
    "Influence",
    "KMeans",
    "LabelVerdicts",
    "MovementRecorder",
    "Parts",
    "Precision",
    "Read",
    "Recording",
    "RecordingCallback",
    "RecordingLightningCallback",
    "Sums",
    "WrongLabels",
    "block_paths",
    "check_calibration",
    "check_criterion",
    "check_flat",
    "check_tokens",
    "confident_labels",
    "criteria",
    "criteria_table",
    "criterion",
    "embed",
    "error_of_deviation",
    "error_of_mean",
    "example_criteria",
    "example_strata",
    "extrapolate",
    "facility_location",
    "farthest_first",
    "flat_inputs",
    "gather",
    "gradient_evidence",
    "gradient_norms",
    "herding",
    "influence",
    "influence_evidence",
    "judge",
    "judge_classes",
    "judge_feature_importance",
    "judge_labels",
    "judge_parts",
    "judge_targets",
    "k_means",
    "layers_reading",
    "near_duplicate_sequences",
    "near_duplicate_texts",
    "near_duplicates",
    "nearest_centre",
    "nearest_neighbours",
    "norm_scales",
    "principal_plane",
    "probe_loss",
    "prunable_weights",
    "recorded_names",
    "score_groups",
    "score_weights",
    "scores_of",
    "sequence_similarities",
    "sequence_width",
    "suggest_labels",
    "token_rows",
    "wrong_labels",
]
