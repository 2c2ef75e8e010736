"""How are scores and decisions about examples kept, so that people can look at them, change them and give them back?

An *example table* is one Parquet file with one row per example. What reading it back needs stands in its columns, and nothing in
the file's metadata: spreadsheets and data frames drop those when they write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from prunus.core.code.imports import one_line
from prunus.core.errors import PlanError, PrunusError
from prunus.core.files.near_paths import near_path
from prunus.core.files.parquet_file import read_parquet
from prunus.core.files.plain_files import atomic_path, open_plain
from prunus.core.text import shown

__all__ = ["DECISIONS", "FILES", "ExampleTable", "read_arrow_table", "read_example_table", "write_example_table"]

DECISIONS = ("keep", "drop", "relabel")
"""What the column ``decision`` may say; nothing there means keep."""
FILES = "files"
"""The column that says of which files the rows are: their print, the same in each row."""
_FACTS = b"prunus"
_TEXTS = ("id", "fingerprint", "decision", "reason", "stratum", FILES)

Column = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ExampleTable:
    """One row per example.

    Args:
        ids: the examples' own names, each once.
        fingerprint: of the data that they are from.
        columns: beside these two. Known ones: ``stratum`` (a class), ``label``, ``new_label``, any score and its standard error
            under ``<score>_error``, ``probability`` (that the given label is wrong), ``decision`` (see ``DECISIONS``), ``reason``.
            Others are kept.
        facts: what is worth knowing beside (task, seed, versions), plain values; lost when other programs write the file.

    Shapes:
        ``(n,)`` each; texts are arrays of objects, None where there is none.
    Raises:
        PlanError: columns of other lengths, ids that stand there twice, or a decision that isn't one.
    """

    ids: tuple[str, ...]
    fingerprint: str
    columns: Mapping[str, Column] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_ids(self.ids)
        for name, column in self.columns.items():
            if column.shape != (len(self.ids),):
                raise PlanError(
                    f"a table of {len(self.ids)} examples has a column {name!r} of shape {column.shape}: make it anew"
                )
        for row, decision in enumerate(self.columns.get("decision", ())):
            if decision is not None and decision not in DECISIONS:
                raise PlanError(
                    f"decision of example {self.ids[row]!r} (row {row + 1}): expected {', '.join(DECISIONS)} or nothing, got "
                    f"{shown(decision)}"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def with_columns(self, columns: Mapping[str, Column], facts: Mapping[str, Any] | None = None) -> ExampleTable:
        """Return the table with these columns added, or put in the place of those that had their names."""
        return ExampleTable(self.ids, self.fingerprint, {**self.columns, **columns}, {**self.facts, **(facts or {})})


def write_example_table(table: ExampleTable, path: Path) -> None:
    """Write ``table`` in one step; the same table gives the same bytes.

    Raises:
        OutputError: the disk is full, or the folder can't be written.
    """
    n = len(table)
    constant = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([table.fingerprint]))
    columns: dict[str, Any] = {"id": pa.array(table.ids, pa.string()), "fingerprint": constant}
    for name, column in table.columns.items():
        texts = pa.array(column.tolist(), pa.string()) if column.dtype == object else None
        columns[name] = pa.array(column) if texts is None else texts.dictionary_encode() if name == FILES else texts
    arrow = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(dict(table.facts), sort_keys=True)})
    with atomic_path(path) as temporary:
        pq.write_table(arrow, temporary, compression="zstd")


def read_example_table(path: Path) -> ExampleTable:
    """Return the table that ``path`` holds, whoever wrote it.

    Raises:
        PlanError: no such file, no Parquet, or a table without what it needs; the first row at fault is named.
    """
    arrow, metadata = read_arrow_table(path)
    columns = {name: _array(name, arrow[name], path) for name in arrow.schema.names}
    ids, fingerprints = columns.pop("id"), columns.pop("fingerprint")
    empty = [row for row, name in enumerate(ids) if name is None]
    if empty:
        raise PlanError(f"{path}: row {empty[0] + 1} has no id")
    different = sorted({str(value) for value in fingerprints})
    if len(different) > 1:
        raise PlanError(f"{path}: rows of two data sets (fingerprints {different[0][:12]} and {different[1][:12]})")
    try:
        facts = json.loads(metadata.get(_FACTS, b"{}"))
        return ExampleTable(
            tuple(ids), different[0] if different else "", columns, facts if isinstance(facts, dict) else {}
        )
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: its metadata are damaged ({one_line(error)[:200]}): make it anew") from error


def read_arrow_table(path: Path) -> tuple[pa.Table, Mapping[bytes, bytes]]:
    """Return the columns of a table of examples, and its file's metadata, which may be anything.

    Raises:
        PlanError: no such file, no Parquet, or no column ``id`` or ``fingerprint``.
    """
    try:
        with open_plain(path) as file:
            content = file.read()
        reader = pa.BufferReader(content)
        metadata = pq.read_schema(reader).metadata or {}
        reader.seek(0)
        arrow = read_parquet(reader, path, len(content), PlanError)
    except FileNotFoundError as error:
        hint = near_path(path)
        raise PlanError(f"no table of examples at {path}{'; ' * bool(hint)}{hint}") from error
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        if isinstance(error, PrunusError):
            raise
        raise PlanError(f"{path}: not a readable Parquet file ({one_line(error)[:200]}): make it anew") from error
    missing = [name for name in ("id", "fingerprint") if name not in arrow.schema.names]
    if missing:
        raise PlanError(
            f"{path}: expected a column {missing[0]!r}, got {', '.join(arrow.schema.names)[:200]}: it was taken away, or this is "
            "no table of examples"
        )
    return arrow, metadata


def _array(name: str, column: pa.ChunkedArray, path: Path) -> Column:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if name in _TEXTS or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.cast(pa.string()).to_pylist(), object)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan)
        raise PlanError(f"{path}: column {name!r} is {kind}: expected numbers, texts or booleans; take it away")
    return np.asarray(column.to_numpy())


def _check_ids(ids: tuple[str, ...]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row:
            raise PlanError(f"the id {name!r} stands in rows {first[name] + 1} and {row + 1}: each example has one row")
