"""How are kept rows read by their index, from files that are mapped into memory?

What can't be mapped as it lies (Parquet, CSV, compressed files) is converted once into a folder of plain arrays, in one step, and
the folder says of which files it is. All rows are converted, so that another choice of rows reads the same arrays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from prunus.core.errors import DataError, OutputError
from prunus.core.files.plain_files import atomic_folder, write_json
from prunus.core.types import Ints
from prunus.data.readers.rows_of_npy import mapped
from prunus.data.rows.kept_bits import Kept
from prunus.data.rows.row_set import RowSet
from prunus.data.rows.to_tensors import Form
from prunus.data.rows.walk import READ_ROWS, walk
from prunus.data.sources.row_files import explained

__all__ = ["MappedArray", "MappedRows", "convert_rows"]

MANIFEST = "rows.json"
_INPUTS, _TARGETS = "inputs.npy", "targets.npy"


class MappedArray:
    """Arrays of ``.npy`` files, one after the other, mapped into memory; it goes to another process as their paths.

    Raises:
        DataError: one is damaged, or they don't go together.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._parts = [self._mapped(path) for path in self.paths]
        first = self._parts[0]
        for path, part in zip(self.paths, self._parts, strict=True):
            if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
                raise DataError(
                    f"{path}: expected {first.dtype} of shape {first.shape[1:]} as in {self.paths[0]}, got {part.dtype} of "
                    f"{part.shape[1:]}"
                )
        self._ends = np.cumsum([len(part) for part in self._parts])

    @staticmethod
    def _mapped(path: Path) -> np.ndarray[Any, Any]:
        with explained(path):
            return np.asarray(mapped(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedArray, (self.paths,)

    def __len__(self) -> int:
        """Return how many rows there are."""
        return int(self._ends[-1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """What they hold."""
        found: np.dtype[Any] = self._parts[0].dtype
        return found

    def take(self, index: Ints) -> np.ndarray[Any, Any]:
        """Return some rows, copied."""
        if len(self._parts) == 1:
            return np.ascontiguousarray(self._parts[0][index])
        found = np.empty((len(index), *self._parts[0].shape[1:]), self.dtype)
        files = np.searchsorted(self._ends, index, side="right")
        for number in np.unique(files).tolist():
            here = files == number
            start = int(self._ends[number - 1]) if number else 0
            found[here] = self._parts[number][index[here] - start]
        return found


class MappedRows(Dataset[tuple[Any, ...]]):
    """The rows that stay, by their index: ``rows[i]`` is a tuple of a row's number, its input and, if there are labels, its target.

    A list, a slice or a tensor of indices gives such a tuple of many at once, which is faster by far::

        sampler = BatchSampler(RandomSampler(rows), batch_size=256, drop_last=False)
        loader = DataLoader(rows, sampler=sampler, batch_size=None)

    Args:
        inputs: of all rows.
        targets: of all rows; None: there are none.
        kept: which of them stay.
    """

    def __init__(self, inputs: MappedArray, targets: MappedArray | None, kept: Kept, form: Form) -> None:
        self._inputs, self._targets = inputs, targets
        self._index = np.flatnonzero(kept.mask(0, kept.n_rows)).astype(np.uint32 if kept.n_rows < 2**32 else np.int64)
        self._relabelled = kept.relabelled
        self._new = np.array([form.class_of(label) for label in kept.new_labels], np.int64)

    def __len__(self) -> int:
        """Return how many rows stay."""
        return len(self._index)

    def __getitem__(self, which: int | slice | Sequence[int] | Tensor) -> tuple[Any, ...]:
        """Return a row, or many.

        Raises:
            IndexError: there is no such row.
        """
        if isinstance(which, (int, np.integer)):
            return tuple(part[0] for part in self._rows(np.array([which])))
        if isinstance(which, slice):
            return self._rows(np.arange(len(self))[which])
        return self._rows(np.asarray(which, np.int64))

    def __getitems__(self, which: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return many rows, each by itself, as a ``DataLoader`` asks for those of a batch."""
        return list(zip(*self._rows(np.asarray(which, np.int64)), strict=True))

    def _rows(self, which: Ints) -> tuple[Any, ...]:
        index = self._index[which].astype(np.int64)
        inputs = torch.from_numpy(self._inputs.take(index))
        numbers = torch.from_numpy(index)
        if self._targets is None:
            return numbers, inputs
        targets = as_target(self._targets.take(index))
        if len(self._relabelled):
            at = np.minimum(np.searchsorted(self._relabelled, index), len(self._relabelled) - 1)
            hit = self._relabelled[at] == index
            targets[torch.from_numpy(hit)] = torch.from_numpy(self._new[at[hit]]).to(targets.dtype)
        return numbers, inputs, targets


def as_target(values: np.ndarray[Any, Any]) -> Tensor:
    """Return labels as a loss takes them: class numbers as int64, values in single precision."""
    return torch.from_numpy(values.astype(np.int64 if values.dtype.kind in "iub" else np.float32))


def convert_rows(rows: RowSet, form: Form, folder: Path) -> tuple[MappedArray, MappedArray | None]:
    """Return inputs and targets of all rows, mapped from ``folder``, which is made where it isn't there.

    Raises:
        DataError: a row can't be converted.
        OutputError: the folder is of other files, or the disk is full; nothing half-written is kept.
    """
    told = {
        "files": rows.fingerprint,
        "features": list(form.features),
        "target": form.target,
        "class_names": list(form.class_names),
        "rows": rows.n_rows,
    }
    if not folder.exists():
        with atomic_folder(folder) as new:
            _write(rows, form, new)
            write_json(new / MANIFEST, told)
    try:
        held = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder} is no folder of converted rows: choose another, or remove it") from error
    for key, value in told.items():
        if not isinstance(held, dict) or held.get(key) != value:
            raise OutputError(
                f"{folder} holds rows that were converted from other data, or otherwise ({key}): choose another folder, or "
                "remove it"
            )
    found = [MappedArray((folder / name,)) for name in (_INPUTS, _TARGETS)[: 1 if form.target is None else 2]]
    for array in found:
        if len(array) != rows.n_rows:
            raise DataError(
                f"{array.paths[0]}: expected {rows.n_rows} rows, got {len(array)}: remove its folder, and it is made anew"
            )
    return found[0], found[1] if form.target is not None else None


def _write(rows: RowSet, form: Form, folder: Path) -> None:
    with ExitStack() as stack:
        files: list[_ArrayFile] = []
        for place, batch in walk(rows, form.columns, READ_ROWS):
            index = np.arange(place, place + batch.num_rows)
            parts = [form.inputs(batch, index), *([] if form.target is None else [form.targets(batch, index)])]
            if not isinstance(parts[0], Tensor):
                kind = type(parts[0]).__name__
                raise DataError(f"rows that are read by index must be one tensor: convert returned {kind}")
            if not files:
                names = (_INPUTS, _TARGETS)[: len(parts)]
                opened = [stack.enter_context((folder / name).open("wb")) for name in names]
                pairs = zip(opened, parts, strict=True)
                files = [_ArrayFile(file, part.numpy(), rows.n_rows) for file, part in pairs]
            for file, part in zip(files, parts, strict=True):
                file.append(part.numpy(), place)


class _ArrayFile:
    """A ``.npy`` file that is written from its beginning: a full disk raises here, and would kill where it is mapped."""

    def __init__(self, file: BinaryIO, first: np.ndarray[Any, Any], n_rows: int) -> None:
        self._file, self._dtype, self._shape = file, first.dtype, first.shape[1:]
        shape = (n_rows, *self._shape)
        header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)

    def append(self, values: np.ndarray[Any, Any], place: int) -> None:
        """Write the next rows, of which ``place`` is the first."""
        if values.shape[1:] != self._shape or values.dtype != self._dtype:
            raise DataError(
                f"row {place} and those after it: expected {self._dtype} of shape {self._shape} as before, got {values.dtype} of "
                f"{values.shape[1:]}"
            )
        self._file.write(np.ascontiguousarray(values).data)
