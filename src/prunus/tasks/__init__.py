"""What may be asked of a model: one object per kind of task, and the metrics that are functions of its totals.

Importing this package registers every task and metric in it.
"""

from prunus.core.code.registry import import_all
from prunus.tasks.agreement import Agreement
from prunus.tasks.boxes.own_losses import own_losses
from prunus.tasks.classification import Classification
from prunus.tasks.counts import Tally, class_parts
from prunus.tasks.detection import Detection, average_precisions
from prunus.tasks.metric import (
    Metric,
    Pooling,
    check_metrics,
    columns_read,
    default_metrics,
    measured,
    metric,
    metrics,
    metrics_of,
    metrics_table,
    pooling,
    value_of,
)
from prunus.tasks.multilabel import MultiLabel
from prunus.tasks.own import as_task, own_task
from prunus.tasks.regression import Moments, Regression, like_targets
from prunus.tasks.retrieval import Retrieval
from prunus.tasks.segmentation import Segmentation
from prunus.tasks.task import Choices, Imagined, Observed, Task, make_task, n_observed, rows_of, task, tasks
from prunus.tasks.task_options import options_of, task_of_options, unscaled
from prunus.tasks.text import Language, SequenceToSequence, TokenClassification

__all__ = [
    "Agreement",
    "Choices",
    "Classification",
    "Detection",
    "Imagined",
    "Language",
    "Metric",
    "Moments",
    "MultiLabel",
    "Observed",
    "Pooling",
    "Regression",
    "Retrieval",
    "Segmentation",
    "SequenceToSequence",
    "Tally",
    "Task",
    "TokenClassification",
    "as_task",
    "average_precisions",
    "check_metrics",
    "class_parts",
    "columns_read",
    "default_metrics",
    "like_targets",
    "make_task",
    "measured",
    "metric",
    "metrics",
    "metrics_of",
    "metrics_table",
    "n_observed",
    "options_of",
    "own_losses",
    "own_task",
    "pooling",
    "rows_of",
    "task",
    "task_of_options",
    "tasks",
    "unscaled",
    "value_of",
]

import_all(__name__, __path__)
