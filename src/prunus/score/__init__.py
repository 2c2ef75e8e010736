"""What is each unit worth? Evidence goes in, one saliency per unit comes out, and higher always means *keep*.

Importing this package registers the criteria of every file in it.
"""

from prunus.core.registry import import_all
from prunus.score.catalogue import NEEDS, criteria_table
from prunus.score.criteria import EVERY_UNIT, WIDTHS, Compensation, Criterion, check_criterion, criteria, criterion
from prunus.score.embeddings import embed
from prunus.score.evidence import Evidence, check_calibration, gather
from prunus.score.examples import ExampleCriterion, ExampleRecorder, example_criteria, example_strata
from prunus.score.features import FeatureImportance, judge_feature_importance
from prunus.score.movement import MovementRecorder
from prunus.score.neighbours import nearest_neighbours, suggest_labels
from prunus.score.parameters import norm_scales, prunable_weights
from prunus.score.units import block_paths, score_groups, score_weights
from prunus.score.without_labels import probe_loss

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
    "nearest_neighbours",
    "norm_scales",
    "probe_loss",
    "prunable_weights",
    "score_groups",
    "score_weights",
    "suggest_labels",
]

import_all(__name__, __path__)
