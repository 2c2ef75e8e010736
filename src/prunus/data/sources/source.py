"""What is a data set to prunus: which examples, called what, with which targets?

A source hands out raw inputs by row number; everything else about it is small and held in memory. Row numbers are
positions in ``ids``; scaling, splitting and repairing happen outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.core.types import Digests
from prunus.data.columns.cells import BadCell
from prunus.data.columns.fit import TableFacts

__all__ = [
    "CHUNK_ROWS",
    "LABEL_KINDS",
    "MEMORY_BUDGET_BYTES",
    "ArraySource",
    "Rows",
    "Source",
    "Task",
    "beside_of",
    "check_ids",
    "check_inputs",
    "chunks",
    "class_counts",
    "holds_ids",
    "row_chunks",
]

Task = Literal["classification", "regression"]

LABEL_KINDS: dict[str, Callable[[str], Any]] = {"i": int, "u": int, "f": float, "b": lambda name: name == "True"}
"""How a class name becomes the label that went in, by NumPy's letter; text stays text."""

CHUNK_ROWS = 1024
"""How many examples are read at a time when all of them pass by."""

MEMORY_BUDGET_BYTES = 1 << 30
"""Decoded or scaled examples are kept in memory when they fit into this; else they are read again when needed."""


class Source(Protocol):
    """A data set with stable sample ids.

    Shapes:
        ``targets`` is ``(n,)``: int64 class numbers, or float32 for regression; ``inputs(rows)`` is
        ``(len(rows), *input_shape)``, raw values, float32 or, where that would lose something, float64; int64 where they are ids.
    """

    @property
    def name(self) -> str:
        """Where the examples come from, as the recipe says it."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """One unique name per example, the same on every machine."""
        ...

    @property
    def targets(self) -> Tensor:
        """The class numbers or values, one per example."""
        ...

    @property
    def task(self) -> str:
        """What the targets ask for."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class number; () for regression."""
        ...

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per input feature; () where features have none."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        ...

    @property
    def label_kind(self) -> str:
        """NumPy's letter for the kind of labels that went in: U for text, i for whole numbers, b for truth values."""
        ...

    def inputs(self, rows: Tensor) -> Any:
        """Return the raw inputs of some rows: one tensor, unless the source is read when needed."""
        ...


@dataclass(frozen=True, eq=False)
class ArraySource:
    """A data set that lies in memory, or in files that are mapped into it.

    ``values`` is ``(n, ...)`` of any number type; small types (uint8 images) stay small until they are asked for. Where ``table``
    says what they stand for, they are the columns of a table as it has them, and what a model gets is fitted later. ``beside`` are
    what else is known of each row: texts, or the time as a number, by the key of ``data`` that asks for it (``split.groups``).
    ``on_disk`` is the folder whose arrays are mapped, where they are, and ``digests`` and ``known_fingerprint`` are held with
    them.
    ``recoded`` are other numbers of the words of some columns, the last one for no word. ``notes`` say in a line each what a user
    should know of the rows; ``table`` has those on its columns.
    """

    name: str
    ids: Sequence[str]
    values: Tensor
    targets: Tensor
    task: Task
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    table: TableFacts | None = None
    beside: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    label_kind: str = "U"
    on_disk: str = ""
    digests: Digests | None = None
    known_fingerprint: str = ""
    recoded: Mapping[int, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.values.shape[1:])

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the raw inputs of some rows, float64 or int64 if they are kept so, else float32."""
        values = self.values.index_select(0, rows)
        for place, codes in self.recoded.items():
            held = values[:, place]
            values[:, place] = codes[torch.where(held.isnan(), len(codes) - 1, held).long()].to(values.dtype)
        return values if values.dtype in (torch.float64, torch.int64) else values.to(torch.float32)


@dataclass(frozen=True, eq=False)
class Rows:
    """What a file holds for a model to predict on.

    Shapes:
        ``values`` is ``(len(good), *shape)``; ``good`` are the numbers of its rows among ``ids``, and ``bad`` says what is wrong
        with each of the others.
    """

    ids: tuple[str, ...]
    values: Tensor
    good: tuple[int, ...]
    bad: tuple[BadCell, ...] = ()
    notes: tuple[str, ...] = ()


def beside_of(source: Source, key: str) -> np.ndarray[Any, Any]:
    """Return what ``data.KEY`` says of each example.

    Raises:
        DataError: the source has no columns.
    """
    known: Mapping[str, np.ndarray[Any, Any]] = getattr(source, "beside", {})
    if key not in known:
        raise DataError(f"{source.name}: data.{key} names a column, and this source has none; take it away")
    return known[key]


def holds_ids(source: Source) -> bool:
    """Return whether inputs are whole numbers that stand for something (token ids), and not amounts: they are never scaled."""
    first = source.inputs(torch.arange(1))
    return isinstance(first, Tensor) and first.dtype == torch.int64


def chunks(source: Source, rows: Tensor | None = None, size: int = CHUNK_ROWS) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (rows, raw inputs) a chunk at a time, in order."""
    for part in number_chunks(len(source.ids), size) if rows is None else row_chunks(rows, size):
        yield part, source.inputs(part)


def class_counts(source: Source, rows: Tensor) -> Tensor:
    """Return how many of some rows are of each class."""
    counts = torch.zeros(len(source.class_names), dtype=torch.int64)
    for part in row_chunks(rows, 1 << 16):
        counts += torch.bincount(source.targets[part].cpu(), minlength=len(counts))
    return counts


def row_chunks(rows: Tensor, size: int = CHUNK_ROWS) -> Iterator[Tensor]:
    """Yield consecutive pieces of ``rows``; none for no rows."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def number_chunks(n: int, size: int = CHUNK_ROWS) -> Iterator[Tensor]:
    """Yield consecutive pieces of the numbers from 0 to ``n``, of which no list is made."""
    for start in range(0, n, size):
        yield torch.arange(start, min(start + size, n))


def check_ids(ids: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the ids if every one is there once.

    Raises:
        DataError: an id is given twice; the message names it.
    """
    counts = Counter(ids)
    if len(counts) != len(ids):
        repeated = next(value for value, count in counts.items() if count > 1)
        first, second = [row for row, value in enumerate(ids) if value == repeated][:2]
        raise DataError(
            f"{name}: the id {repeated!r} is given twice (rows {first} and {second}; the first row is 0): ids must be unique; "
            "correct or rename the id column"
        )
    return tuple(ids)


def check_inputs(values: Tensor, ids: Sequence[str], name: str, feature_names: Sequence[str] = ()) -> None:
    """Check that every value is a finite number.

    Raises:
        DataError: NaN or infinity; the message names the sample, the column where it has a name, and how many there are.
    """
    if not values.is_floating_point():
        return
    bad = ~values.isfinite().reshape(len(values), -1)
    n_bad = int(bad.sum())
    if n_bad == 0:
        return
    row, column = divmod(int(bad.flatten().int().argmax()), bad.shape[1])
    value = values.reshape(len(values), -1)[row, column].item()
    place = f"column {feature_names[column]!r}" if feature_names else f"input position {column}"
    more = f" ({n_bad} such values in all)" if n_bad > 1 else ""
    raise DataError(
        f"{name}: {place}, sample {ids[row]!r}: expected a finite number, got {value}{more}; fill or remove such rows"
    )
