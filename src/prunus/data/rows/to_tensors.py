"""How do rows of columns become what a model takes?

Numbers stand side by side, ``(rows, features)`` in single precision; one column of arrays stays as it is; anything else is for a
function of the user's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from prunus.core.errors import DataError, near
from prunus.core.text import shown
from prunus.core.types import Ints

__all__ = ["Form", "is_number", "is_rows", "joined", "taken", "tensor_of_arrays"]


@dataclass(frozen=True)
class Form:
    """What is read of each row.

    Args:
        features: the columns of the inputs, in this order.
        target: the label's column; None: there is none.
        class_names: what class numbers stand for, where labels are texts.
        convert: what makes inputs of a batch of these columns, instead of numbers side by side; it must be possible to pickle it.
    """

    features: tuple[str, ...]
    target: str | None = None
    class_names: tuple[str, ...] = ()
    convert: Callable[[pa.RecordBatch], Any] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """All that is read."""
        return tuple(dict.fromkeys((*self.features, *(() if self.target is None else (self.target,)))))

    def inputs(self, batch: pa.RecordBatch, index: Ints) -> Any:
        """Return the inputs of some rows, whose numbers are ``index``.

        Raises:
            DataError: a value is missing or not finite, or what ``convert`` returns isn't one input per row.
        """
        chosen = batch.select(list(self.features))
        if self.convert is not None:
            return _checked(self.convert(chosen), len(index))
        if len(self.features) == 1 and is_rows(chosen.schema.field(0).type):
            return tensor_of_arrays(chosen.column(0), self.features[0])
        found = np.empty((len(index), len(self.features)), np.float32)
        for place, (name, column) in enumerate(zip(self.features, chosen.columns, strict=True)):
            if column.null_count:
                row = index[pc.index(column.is_null(), True).as_py()]
                raise DataError(
                    f"column {name!r}, row {row}: expected a number, got none; drop such rows, or give convert"
                )
            with np.errstate(over="ignore"):  # what is too large is told below
                found[:, place] = _numbers(column)
        with np.errstate(over="ignore", invalid="ignore"):
            total = found.sum()
        if not np.isfinite(total) and not np.isfinite(found).all():
            row, place = np.argwhere(~np.isfinite(found))[0].tolist()
            raise DataError(
                f"column {self.features[place]!r}, row {index[row]}: expected a finite number that float32 can hold, got "
                f"{chosen.column(place)[row].as_py()}; drop such rows, or give convert"
            )
        return torch.from_numpy(found)

    def targets(self, batch: pa.RecordBatch, index: Ints) -> Tensor:
        """Return the class numbers or values of some rows.

        Raises:
            DataError: one is missing, or no class.
        """
        assert self.target is not None
        column = batch.column(self.target)
        if column.null_count:
            row = index[pc.index(column.is_null(), True).as_py()]
            raise DataError(f"the label {self.target!r} of row {row} is missing; drop such rows")
        if self.class_names:
            words = column.cast(pa.string()) if not pa.types.is_dictionary(column.type) else column.dictionary_decode()
            found = pc.index_in(words.cast(pa.string()), value_set=pa.array(self.class_names))
            if found.null_count:
                word = words[pc.index(found.is_null(), True).as_py()].as_py()
                raise DataError(f"unknown label {shown(word)}: {near(str(word), self.class_names)}")
            return torch.from_numpy(found.to_numpy().astype(np.int64))
        numbers = _numbers(column)
        if numbers.dtype.kind in "iub":
            return torch.from_numpy(numbers.astype(np.int64))
        if not np.isfinite(numbers).all():
            row = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise DataError(f"the label {self.target!r} of row {index[row]} isn't finite; drop such rows")
        return torch.from_numpy(numbers.astype(np.float32))

    def class_of(self, label: str) -> int:
        """Return the class number that a new label means.

        Raises:
            DataError: it is no class.
        """
        if self.class_names:
            if label not in self.class_names:
                raise DataError(f"the new label {shown(label)} is no class: {near(label, self.class_names)}")
            return self.class_names.index(label)
        if not label.isdecimal() or not label.isascii():
            raise DataError(f"the new label {shown(label)}: expected a class number, as the labels of the data are")
        return int(label)


def is_number(kind: pa.DataType) -> bool:
    """Return whether a column holds one number per row."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def is_rows(kind: pa.DataType) -> bool:
    """Return whether a column holds an array of numbers per row, all of one shape."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    return bool(pa.types.is_fixed_size_list(kind)) and is_number(kind.value_type)


def tensor_of_arrays(column: pa.Array, name: str) -> Tensor:
    """Return a column of arrays, ``(rows, *shape)``, in its own type; double precision becomes single.

    Raises:
        DataError: a row has none, or a number in it is missing.
    """
    if column.null_count:
        raise DataError(f"column {name!r}: expected an array in every row, got none in {column.null_count}")
    if isinstance(column.type, pa.FixedShapeTensorType):
        array = column.to_numpy_ndarray()
    else:
        flat = column.flatten()
        if flat.null_count:
            raise DataError(f"column {name!r}: expected numbers, got {flat.null_count} missing ones")
        array = _numbers(flat).reshape(len(column), column.type.list_size)
    return torch.from_numpy(np.array(array, np.float32 if array.dtype == np.float64 else array.dtype))


def _numbers(column: pa.Array) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = column.to_numpy(zero_copy_only=False)
    return found


def _checked(made: Any, n: int) -> Any:
    for part in made.values() if isinstance(made, Mapping) else made if isinstance(made, tuple) else (made,):
        if not hasattr(part, "__len__") or len(part) != n:
            got = f"{len(part)}" if hasattr(part, "__len__") else type(part).__name__
            raise DataError(f"convert must return one input per row, {n}: got {got}")
    return made


def joined(parts: Sequence[Any]) -> Any:
    """Return structures of rows, one after the other."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    if isinstance(first, tuple):
        return tuple(joined(column) for column in zip(*parts, strict=True))
    return [item for part in parts for item in part]


def taken(tree: Any, rows: Tensor) -> Any:
    """Return some rows of a structure; none of them shares memory with it."""
    if isinstance(tree, Tensor):
        return tree.index_select(0, rows)
    if isinstance(tree, np.ndarray):
        return tree[rows.numpy()]
    if isinstance(tree, Mapping):
        return {key: taken(value, rows) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(taken(value, rows) for value in tree)
    return [tree[row] for row in rows.tolist()]
