"""What does a model get for the rows of a table, once its columns were fitted?

Nothing is kept but the table as it came: rows are encoded when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.data.columns.fit import TableFacts, strange_notes
from prunus.data.columns.fitted import Columns
from prunus.data.sources.source import Source, chunks

__all__ = ["EncodedTable", "encoded_as", "read_as"]


@dataclass(frozen=True, eq=False)
class EncodedTable:
    """A table as a data set of features; ``source`` hands out its columns as they came.

    ``order``: the places of the model's features among those of ``columns``; nothing: as they come.
    """

    source: Source
    columns: Columns
    table: TableFacts
    order: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Where the examples come from."""
        return self.source.name

    @property
    def ids(self) -> Sequence[str]:
        """One unique name per example."""
        return self.source.ids

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the rows."""
        return tuple(getattr(self.source, "notes", ()))

    @property
    def on_disk(self) -> str:
        """The folder whose arrays are mapped, where they are."""
        return str(getattr(self.source, "on_disk", ""))

    @property
    def targets(self) -> Tensor:
        """The class numbers or values."""
        return self.source.targets

    @property
    def task(self) -> str:
        """What the targets ask for."""
        return self.source.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class number."""
        return self.source.class_names

    @property
    def label_kind(self) -> str:
        """The kind of labels that went in."""
        return self.source.label_kind

    @property
    def beside(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """What else is known of each row."""
        found: Mapping[str, np.ndarray[Any, Any]] = getattr(self.source, "beside", {})
        return found

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature."""
        names = self.columns.feature_names
        return tuple(names[place] for place in self.order) or names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return (len(self.columns.feature_names),)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the features of some rows."""
        values = self.source.inputs(rows).numpy()
        found = self.columns.encode(values, self.table.words, wide=self.table.wide)
        return torch.from_numpy(found[:, list(self.order)] if self.order else found)

    def strange(self, rows: Tensor) -> tuple[str, ...]:
        """Return what is to be said of rows that hold what training never saw."""
        return strange_notes(self.columns, self.source.inputs(rows).numpy(), self.table.words)


def read_as(columns: Columns | None, feature_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the values of a recipe's ``data`` with which a table is read as the one that a model was trained on.

    Args:
        columns: what the model's features were made of; None: what ``feature_names`` say.
    """
    if columns is None:
        if not feature_names:
            return {}
        columns, _ = Columns.of_features(feature_names, ())
    return {"columns": columns.names, "ignore": (), "kinds": dict(columns.kinds), "missing": columns.no_value}


def encoded_as(source: Source, columns: Columns | None, feature_names: Sequence[str] = ()) -> Source:
    """Return a table as the features that a model takes, whatever it was fitted to itself; another source as it is.

    Raises:
        DataError: ``columns`` isn't known, and a value is missing.
    """
    raw = source.source if isinstance(source, EncodedTable) else source
    facts = getattr(raw, "table", None)
    if facts is None:
        return source
    if columns is not None:
        return EncodedTable(raw, columns, facts)
    made, order = Columns.of_features(feature_names or tuple(facts.kinds), tuple(facts.kinds))
    if absent := _first_gap(raw, tuple(facts.kinds)):
        raise DataError(
            f"{raw.name}: {absent}: expected a value, since the model was trained where none was missing, got none"
        )
    return EncodedTable(raw, made, facts, tuple(order))


def _first_gap(raw: Source, names: Sequence[str]) -> str:
    for rows, values in chunks(raw):
        gaps = values.isnan().nonzero()
        if len(gaps):
            place, column = gaps[0].tolist()
            return f"column {names[column]!r}, sample {raw.ids[int(rows[place])]!r}"
    return ""
