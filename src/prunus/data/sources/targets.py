"""Which task do the targets ask for, and which class number does each label get?

Class numbers follow the sorted labels: text by alphabet, numbers by size. A number column is a regression target when it has
values between the whole numbers, or when it has many different ones that hardly repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.data.sources.exact_floats import rounding_matters
from prunus.data.sources.source import Task

__all__ = ["Targets", "read_targets"]

READ = ("classification", "regression")
"""What is read off targets; every other task gets them as they are."""
MANY_VALUES, FEW_REPEATS = 20, 5
"""Whole numbers are a regression target when more than 20 differ and each comes up fewer than 5 times on average."""

_LARGEST_CLASS = 2**53  # beyond it a float can't tell whole numbers apart


@dataclass(frozen=True)
class Targets:
    """Targets in the form that training needs: int64 class numbers with their names, or float32 values."""

    values: Tensor
    task: Task
    class_names: tuple[str, ...]


def read_targets(
    raw: np.ndarray[Any, Any],
    *,
    task: str,
    name: str,
    column: str = "target",
    class_names: Sequence[str] = (),
) -> Targets:
    """Return the targets that ``raw`` holds.

    ``class_names`` names the class numbers 0, 1, ... where the source knows them.

    Raises:
        DataError: not one target per example, NaN, a negative or unknown class number, one class only, or targets that the
            task can't have.

    >>> read_targets(np.array(["b", "a", "b"]), task="auto", name="t").values
    tensor([1, 0, 1])
    >>> read_targets(np.array([0, 7, 7]), task="auto", name="t").class_names
    ('0', '7')
    """
    where = f"{name}: {column!r}"
    if task not in ("auto", *READ):
        raise DataError(
            f"{where}: classes or numbers are read here, got data.task {task}: give a function as source (module:function) that "
            f"returns data with such targets, or set data.task to {' or '.join(READ)}"
        )
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.ndim != 1:
        raise DataError(f"{where}: expected one target per example, got an array of shape {raw.shape}")
    if len(raw) == 0:
        raise DataError(f"{name}: expected at least one example, got an empty set")
    if raw.dtype.kind not in "biufU":
        raise DataError(f"{where}: expected numbers or text as targets, got {raw.dtype}; convert them")
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        row = int(np.flatnonzero(~np.isfinite(raw))[0])
        raise DataError(
            f"{where}, row {row} (the first is 0): expected a label, got {raw[row]}; remove rows without one"
        )
    chosen = _guess(raw, class_names) if task == "auto" else task
    if chosen == "regression":
        return _regression(raw, where)
    return _classification(raw, where, tuple(class_names))


def _guess(raw: np.ndarray[Any, Any], class_names: Sequence[str]) -> Task:
    if raw.dtype.kind in "bU" or class_names:
        return "classification"
    if raw.dtype.kind == "f" and (raw != np.round(raw)).any():
        return "regression"
    n_values = len(np.unique(raw))
    return "regression" if n_values > MANY_VALUES and len(raw) < FEW_REPEATS * n_values else "classification"


def _regression(raw: np.ndarray[Any, Any], where: str) -> Targets:
    if raw.dtype.kind in "bU":
        raise DataError(f"{where}: regression needs numbers, got {raw[0].item()!r}; set data.task to classification")
    values = torch.from_numpy(raw.astype(np.float32))
    if not values.isfinite().all():
        row = int((~values.isfinite()).int().argmax())
        raise DataError(f"{where}, row {row} (the first is 0): {raw[row]} is too large for float32; scale the target")
    if (raw == raw[0]).all():
        raise DataError(f"{where}: every row has the same value {raw[0].item()!r}; there is nothing to learn")
    if rounding_matters(raw.astype(np.float64)[:, None]):
        raise DataError(
            f"{where}: the values lie too close together for float32: got {raw.min().item()!r} to {raw.max().item()!r}; "
            "subtract what they have in common"
        )
    return Targets(values, "regression", ())


def _classification(raw: np.ndarray[Any, Any], where: str, class_names: tuple[str, ...]) -> Targets:
    if raw.dtype.kind == "U":
        if (raw == "").any():
            row = int(np.flatnonzero(raw == "")[0])
            raise DataError(f"{where}, row {row} (the first is 0): expected a label, got an empty text")
        names, numbers = np.unique(raw, return_inverse=True)
        return _at_least_two(numbers, tuple(map(str, names)), where)
    if raw.dtype.kind == "b":
        names, numbers = np.unique(raw, return_inverse=True)
        return _at_least_two(numbers, tuple(str(bool(value)) for value in names), where)
    fractional = np.flatnonzero(raw != np.round(raw))
    if len(fractional):
        row = int(fractional[0])
        raise DataError(
            f"{where}, row {row} (the first is 0): expected a class number, got {raw[row].item()!r}; set data.task to "
            "regression if it is a value to predict"
        )
    limit = len(class_names) - 1 if class_names else _LARGEST_CLASS
    outside = np.flatnonzero((raw < 0) | (raw > limit))
    if len(outside):
        row = int(outside[0])
        bound = f"0..{limit}" if class_names else "0 or more"
        raise DataError(
            f"{where}, row {row} (the first is 0): label out of range: expected a class number {bound}, got {raw[row].item()!r}; "
            "set data.task to regression if it is a value to predict, write the classes as text, or remove rows without a label"
        )
    whole = raw.astype(np.int64)
    if class_names:
        present = np.bincount(whole, minlength=len(class_names))
        if (present == 0).any():
            absent = class_names[int(np.flatnonzero(present == 0)[0])]
            raise DataError(
                f"{where}: the class {absent!r} has no example; drop it from the class names or add examples"
            )
        return _at_least_two(whole, class_names, where)
    names, numbers = np.unique(whole, return_inverse=True)
    return _at_least_two(numbers, tuple(map(str, names)), where)


def _at_least_two(numbers: np.ndarray[Any, Any], names: tuple[str, ...], where: str) -> Targets:
    if len(names) < 2:
        raise DataError(f"{where}: expected two classes or more, got only {names[0]!r}; is this the right column?")
    return Targets(torch.from_numpy(numbers.astype(np.int64)), "classification", names)
