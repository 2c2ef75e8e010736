"""What may be asked of a model: one object per kind of task, and the metrics that are functions of its totals.

Importing this package registers every task and metric in it.
"""

from prunus.core.code.registry import import_all
from prunus.tasks.classification import Classification
from prunus.tasks.counts import Tally, class_parts
from prunus.tasks.metric import (
    Metric,
    check_metrics,
    columns_read,
    default_metrics,
    measured,
    metric,
    metrics,
    metrics_of,
    metrics_table,
)
from prunus.tasks.regression import Moments, Regression, like_targets
from prunus.tasks.task import Imagined, Observed, Task, make_task, rows_of, task, tasks

__all__ = [
    "Classification",
    "Imagined",
    "Metric",
    "Moments",
    "Observed",
    "Regression",
    "Tally",
    "Task",
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
    "rows_of",
    "task",
    "tasks",
]

import_all(__name__, __path__)
