"""Which rows of a table can a trained model take, and what is wrong with the others?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from prunus.core.errors import DataError, near
from prunus.core.text import shown
from prunus.data.columns.cells import BadCell, Cells, is_text, plain_column, read_cells
from prunus.data.columns.fit import strange_notes
from prunus.data.columns.fitted import Columns
from prunus.data.sources.source import Rows

__all__ = ["ID", "read_rows"]

ID = "id"


def read_rows(
    table: pa.Table,
    columns: Columns,
    path: Path,
    *,
    wrong: Mapping[int, str] | None = None,
    order: Sequence[int] | None = None,
) -> Rows:
    """Return the rows of a table that a model can take, encoded as its training's were, and what is wrong with the others.

    Args:
        wrong: what is wrong with rows that aren't in the table at all, by their numbers in the file.
        order: the places of the model's features among those of ``columns``; default: as they come.

    Raises:
        DataError: a column is missing, or can't be read at all.
    """
    names = table.schema.names
    if absent := [name for name in columns.names if name not in names]:
        raise DataError(
            f"{path}: the model needs the column{'s' if len(absent) > 1 else ''} {', '.join(map(repr, absent[:5]))}"
            f"{', ...' if len(absent) > 5 else ''}; {near(absent[0], names)}"
        )
    cells = {
        name: read_cells(table[name], name, kind, columns.no_value, str(path)) for name, kind in columns.kinds.items()
    }
    n_rows = table.num_rows + len(wrong or {})
    numbers = np.setdiff1d(np.arange(n_rows), list(wrong or {}))
    found = {row: BadCell(row, None, "a row that can be read", said) for row, said in (wrong or {}).items()}
    ids = [str(row) for row in range(n_rows)]
    for place, bad in _bad_cells(cells, columns):
        row = int(numbers[place])
        found.setdefault(row, replace(bad, row=row))
    for row, name, bad_id in _file_ids(table, numbers, path):
        ids[row] = name
        if bad_id:
            found.setdefault(row, BadCell(row, ID, "an id that no other row has", bad_id))
    good = [row for row in range(n_rows) if row not in found]
    place_of = {int(row): place for place, row in enumerate(numbers)}
    rows = np.array([place_of[row] for row in good], dtype=np.int64)
    words = {name: read.words for name, read in cells.items()}
    values = np.stack([read.values for read in cells.values()], axis=1)[rows]
    encoded = columns.encode(values, words, wide=True)
    if order is not None:
        encoded = encoded[:, list(order)]
    notes = strange_notes(columns, values, words)
    return Rows(tuple(ids), torch.from_numpy(encoded), tuple(good), tuple(found[row] for row in sorted(found)), notes)


def _bad_cells(cells: Mapping[str, Cells], columns: Columns) -> list[tuple[int, BadCell]]:
    """Return every cell that the model can't take, by its place in the table."""
    bad: list[tuple[int, BadCell]] = []
    for column in columns.columns:
        read = cells[column.name]
        bad += [(cell.row, cell) for cell in read.bad]
        if not column.missing:
            reported = {cell.row for cell in read.bad}
            expected = f"a {column.kind}, as in every row of training"
            bad += [
                (place, BadCell(place, column.name, expected, "an empty cell"))
                for place in np.flatnonzero(np.isnan(read.values)).tolist()
                if place not in reported
            ]
    return bad


def _file_ids(table: pa.Table, numbers: np.ndarray[Any, Any], path: Path) -> list[tuple[int, str, str]]:
    """Return the number, the id and what is wrong with the id of every row that was read."""
    if ID not in table.schema.names:
        return []
    column = plain_column(table[ID])
    if not (pa.types.is_integer(column.type) or is_text(column.type) or pa.types.is_null(column.type)):
        raise DataError(f"{path}: the column {ID!r} must hold whole numbers or text, got {column.type}; rename it")
    seen: dict[str, int] = {}
    found: list[tuple[int, str, str]] = []
    for number, value in zip(numbers.tolist(), column.to_pylist(), strict=True):
        if value is None:
            found.append((number, "", "none"))
            continue
        first = seen.setdefault(str(value), number)
        found.append((number, str(value), "" if first == number else f"{shown(value)}, as in row {first}"))
    return found
