"""Measure plain outputs against plain targets, as tests write them down: what a task observes of them is what is measured."""

from __future__ import annotations

from typing import Any

import torch

from prunus import evaluate
from prunus.core.batch import Batch
from prunus.tasks import Classification, Regression, Task


def task_of(task: str, outputs: torch.Tensor, class_names: Any = ()) -> Task:
    return Regression() if task == "regression" else Classification(tuple(class_names), n_classes=outputs.shape[1])


def seen(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> Any:
    return task.observe(outputs, Batch(torch.arange(len(targets)), None, targets))


def measure_quality(outputs, targets, *, task, class_names=(), **options):
    asked = task_of(task, outputs, class_names)
    return evaluate.measure_quality(seen(asked, outputs, targets), asked, **options)


def pairs(dense, pruned, targets, asked, **options):
    return evaluate.Pairs(*([seen(asked, one, targets) for one in many] for many in (dense, pruned)), asked, **options)


def compare(dense, pruned, targets, *, task, metrics, class_names=(), **options):
    asked = task_of(task, (dense or pruned)[0], class_names)
    return evaluate.compare(pairs(dense, pruned, targets, asked, **options), metrics)


def class_changes(dense, pruned, targets, *, class_names=(), **options):
    asked = task_of("classification", dense[0], class_names)
    return evaluate.class_changes(pairs(dense, pruned, targets, asked, **options))


def noninferiority(dense, pruned, targets, *, task, class_names=(), **options):
    asked = task_of(task, dense, class_names)
    return evaluate.noninferiority(*(seen(asked, one, targets) for one in (dense, pruned)), asked, **options)
