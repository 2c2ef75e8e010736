"""What does an answer decide about each example, do two models decide alike, and who is right?

Classes are compared by the highest score, a single logit by its sign, several labels by all of their signs. Anything else is alike
within a relative distance, as in the task ``agreement``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.core.text import shown
from prunus.serve.refusal import Refusal
from prunus.serve.running.batcher import Answer
from prunus.serve.wire.tensor_data import Array
from prunus.serve.wire.tensor_specs import ModelSpec

__all__ = ["TOLERANCE", "alike", "read_labels", "worse_by_labels"]

TOLERANCE = 0.05
"""A relative distance below which two answers count as the same: the default of the task ``agreement``."""


def alike(spec: ModelSpec, one: Answer, other: Answer) -> list[bool]:
    """Return whether two models decide alike, for each example."""
    if spec.task in ("classification", "multilabel"):
        same = _decided(spec, one[0]) == _decided(spec, other[0])
        return [bool(row) for row in same.reshape(len(same), -1).all(axis=1)]
    flat = [[values.reshape(len(values), -1).astype(np.float64) for values in answer] for answer in (one, other)]
    ours, theirs = (np.concatenate(parts, axis=1) for parts in flat)
    if ours.shape != theirs.shape:
        return [False] * len(ours)
    distance = np.linalg.norm(ours - theirs, axis=1) / np.maximum(np.linalg.norm(ours, axis=1), 1e-12)
    return [bool(row) for row in distance <= TOLERANCE]


def _decided(spec: ModelSpec, scores: Array) -> Array:
    if spec.task == "multilabel" or scores.ndim < 2 or scores.shape[1] == 1:
        return np.asarray(scores > 0)
    return np.asarray(scores.argmax(axis=1))


def read_labels(spec: ModelSpec, given: Any, n_examples: int) -> list[Any]:
    """Return the labels that feedback names: numbers of classes, truth values for several labels, or values.

    Raises:
        Refusal: they aren't labels of this model, or not one for each example.
    """
    labels = given if isinstance(given, list) else [given]
    if len(labels) != n_examples:
        raise Refusal(400, f"labels: expected {n_examples}, one for each example, got {len(labels)}", field="labels")
    return [_label(spec, label, f"labels[{place}]") for place, label in enumerate(labels)]


def _label(spec: ModelSpec, label: Any, field: str) -> Any:
    if spec.task == "classification":
        n_classes = max(len(spec.class_names), 2)
        if isinstance(label, str) and label in spec.class_names:
            return spec.class_names.index(label)
        if type(label) is int and 0 <= label < n_classes:
            return label
        words = f"one of {', '.join(spec.class_names[:20])}" if spec.class_names else f"0 to {n_classes - 1}"
        raise Refusal(400, f"{field}: expected {words}, got {shown(label)}", field=field)
    if spec.task == "regression":
        if isinstance(label, bool) or not isinstance(label, (int, float)) or not np.isfinite(label):
            raise Refusal(400, f"{field}: expected a finite number, got {shown(label)}", field=field)
        return float(label)
    if spec.task == "multilabel":
        if (
            not isinstance(label, list)
            or len(label) != len(spec.class_names)
            or not all(one in (0, 1) for one in label)
        ):
            n = len(spec.class_names)
            raise Refusal(400, f"{field}: expected a list of {n} truth values, got {shown(label)}", field=field)
        return [bool(one) for one in label]
    raise Refusal(409, f"labels can't be compared with the answers of the task {spec.task}", field="labels")


def worse_by_labels(spec: ModelSpec, dense: Answer, pruned: Answer, labels: Sequence[Any]) -> list[int]:
    """Return 1 where only the dense model is right, -1 where only the pruned one is, else 0, for each example.

    Of values, the one is right whose error is smaller by more than a twentieth.
    """
    ours, theirs = dense[0], pruned[0]
    if spec.task == "regression":
        wanted = np.asarray(labels, np.float64)
        errors = [np.abs(values.reshape(len(values), -1)[:, 0] - wanted) for values in (ours, theirs)]
        return [int(b > a * (1 + TOLERANCE)) - int(a > b * (1 + TOLERANCE)) for a, b in zip(*errors, strict=True)]
    decided = [_decided(spec, values).reshape(len(values), -1) for values in (ours, theirs)]
    right = [(values == np.asarray(labels).reshape(len(values), -1)).all(axis=1) for values in decided]
    return [int(a) - int(b) for a, b in zip(*right, strict=True)]
