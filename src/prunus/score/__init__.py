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
from prunus.score.evidence.without_labels import probe_loss
from prunus.score.examples.embeddings import embed
from prunus.score.examples.neighbours import nearest_neighbours, suggest_labels
from prunus.score.examples.recorded import ExampleCriterion, ExampleRecorder, example_criteria, example_strata
from prunus.score.feature_importance import FeatureImportance, judge_feature_importance
from prunus.score.parameters import norm_scales, prunable_weights
from prunus.score.readers import Read, layers_reading
from prunus.score.unit_saliency import block_paths, score_groups, score_weights

__all__ = [
    "EVERY_UNIT",
    "NEEDS",
    "WIDTHS",
    "Compensation",
    "Criterion",
    "Evidence",
    "ExampleCriterion",
    "ExampleRecorder",
    "FeatureImportance",
    "MovementRecorder",
    "Read",
    "block_paths",
    "check_calibration",
    "check_criterion",
    "criteria",
    "criteria_table",
    "criterion",
    "embed",
    "example_criteria",
    "example_strata",
    "gather",
    "judge_feature_importance",
    "layers_reading",
    "nearest_neighbours",
    "norm_scales",
    "probe_loss",
    "prunable_weights",
    "score_groups",
    "score_weights",
    "suggest_labels",
]
