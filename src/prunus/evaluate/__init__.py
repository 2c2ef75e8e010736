"""How good, how large and how fast is a model, and what changed between two? Every number comes with its interval."""

from prunus.evaluate.arms import ARMS, Judged, judge_arms
from prunus.evaluate.by_group import GroupChange, at_once, group_changes
from prunus.evaluate.compare import Comparison, class_changes, compare
from prunus.evaluate.cost import Cost, measure_cost
from prunus.evaluate.grid import GridCell, JudgedGrid, judge_grid
from prunus.evaluate.noninferiority import (
    ClassLoss,
    NonInferiority,
    WorstClass,
    WorstGroup,
    examples_needed,
    noninferiority,
    parts_of,
    promises,
)
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.predict import answers_to, observe, predict_outputs
from prunus.evaluate.quality import ClassQuality, Quality, gap, measure_quality
from prunus.evaluate.rank_correlation import rank_correlation
from prunus.evaluate.timing.latency import Latency, measure_latency
from prunus.evaluate.timing.latency_table import LatencyTable
from prunus.evaluate.timing.runtimes import fastest_runtime, in_runtime

__all__ = [
    "ARMS",
    "ClassLoss",
    "ClassQuality",
    "Comparison",
    "Cost",
    "GridCell",
    "GroupChange",
    "Judged",
    "JudgedGrid",
    "Latency",
    "LatencyTable",
    "NonInferiority",
    "Pairs",
    "Quality",
    "WorstClass",
    "WorstGroup",
    "answers_to",
    "at_once",
    "class_changes",
    "compare",
    "examples_needed",
    "fastest_runtime",
    "gap",
    "group_changes",
    "in_runtime",
    "judge_arms",
    "judge_grid",
    "measure_cost",
    "measure_latency",
    "measure_quality",
    "noninferiority",
    "observe",
    "parts_of",
    "predict_outputs",
    "promises",
    "rank_correlation",
]
