"""How do files of rows become a folder of plain arrays that are mapped into memory, to the numbers that memory would hold?

Three passes, a few rows at a time: what the columns are, the cells with labels and names, and a digest of each row. What is written
says itself what it is (``rows.json``), and comes into place in one step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from prunus.core.errors import DataError
from prunus.core.files.expansion import ROW_BYTES, check_expansion
from prunus.core.files.plain_files import write_json
from prunus.core.recipes.recipe import Data
from prunus.data.columns.fit import TableFacts
from prunus.data.content import digest_chunks, fingerprint
from prunus.data.disk.array_cells import ArrayCells, inputs_column, numpy_of
from prunus.data.disk.cell_rows import CellRows
from prunus.data.disk.ids_on_disk import IdColumn, names_in
from prunus.data.disk.looks import look_at_columns
from prunus.data.disk.raw_files import RawFile, RawFolder, mapped_rows
from prunus.data.disk.targets_on_disk import TargetColumn
from prunus.data.rows.row_set import RowSet
from prunus.data.rows.walk import walk
from prunus.data.sources.source import ArraySource
from prunus.data.sources.table_rows import ID
from prunus.data.sources.tables import beside_values, check_names, label_note, lacks_label, target_column

__all__ = ["convert", "disk_bytes", "mapped_source", "n_cells", "read_manifest", "shown_columns"]

MANIFEST = "rows.json"
_AT_ONCE = 1 << 14
_VALUES, _TARGETS, _DIGESTS = "values.bin", "targets.bin", "digests.bin"


def shown_columns(rows: RowSet) -> pa.Schema:
    """Return the columns, without those that pandas keeps its row index in."""
    return pa.schema([field for field in rows.schema if not field.name.startswith("__index_level_")])


def disk_bytes(rows: RowSet) -> int:
    """Return how much disk the conversion takes at most: cells in double and in single precision, labels, digests and names."""
    each = sum(n_cells(field.type) for field in shown_columns(rows))
    return rows.n_rows * (12 * each + 8 + 8 + 32 + 32)


def n_cells(held: pa.DataType) -> int:
    """Return how many cells of a row a column of this kind has."""
    if isinstance(held, pa.FixedShapeTensorType):
        return int(np.prod(held.shape))
    return int(held.list_size) if pa.types.is_fixed_size_list(held) else 1


def convert(rows: RowSet, path: Path, config: Data, folder: Path, made_of: dict[str, Any]) -> dict[str, Any]:
    """Write the arrays of a data set into ``folder``, and return what they are; ``made_of`` is told with them.

    Raises:
        DataError: the rows can't be learnt from; as of a table in memory, it says where and why.
    """
    schema = shown_columns(rows)
    check_names(schema.names, path)
    files_bytes = sum(file.stat().st_size for file in rows.files)
    check_expansion(path, rows.n_rows * (ROW_BYTES + 4 * sum(map(n_cells, schema.types))), files_bytes, DataError)
    inputs = inputs_column(schema, path)
    target = target_column([name for name in schema.names if name != inputs], config, path)
    read = _Labelled(rows, target, config.missing, path)
    with ExitStack() as stack:
        files = RawFolder(folder, stack)
        told, ids = (_tables if inputs is None else _arrays)(read, schema, target, inputs, path, config, files)
    n = told["files"][_VALUES]["shape"][0]
    notes = label_note(rows.n_rows - n, rows.n_rows, target, read.first_without, path)
    beside = _written_beside(read, config, path, folder)
    whole = {**told, "ids": ids, "beside": beside, "target": target, "label_notes": notes, "rows": n}
    with RawFile(folder / _DIGESTS, np.uint8, (32,)) as digests:
        for part in digest_chunks(mapped_source(folder, {**whole, "digests": False}, config)):
            digests.append(part)
    whole |= {"digests": True, "made_of": made_of}
    source = mapped_source(folder, whole, config)
    assert source.digests is not None
    whole["fingerprint"] = fingerprint(source, source.digests)
    write_json(folder / MANIFEST, whole)
    return whole


class _Labelled:
    """The rows that have a label, some columns of them, a few at a time, with their numbers in the files."""

    def __init__(self, rows: RowSet, target: str, missing: Sequence[str], path: Path) -> None:
        self._rows, self._target, self._missing, self._path = rows, target, missing, path
        self.n_rows, self.first_without = rows.n_rows, 0

    def __call__(self, columns: Sequence[str]) -> Iterator[tuple[np.ndarray[Any, Any], pa.RecordBatch]]:
        wanted = list(dict.fromkeys((*columns, self._target)))
        found_without = found = False
        for place, batch in walk(self._rows, wanted, _AT_ONCE):
            lacks = lacks_label(pa.chunked_array([batch.column(self._target)]), self._missing)
            numbers = np.arange(place, place + batch.num_rows)
            if lacks.any():
                if not found_without:
                    found_without, self.first_without = True, place + int(lacks.argmax())
                kept = np.flatnonzero(~lacks)
                batch, numbers = batch.take(pa.array(kept)), numbers[kept]
            if batch.num_rows:
                found = True
                yield numbers, batch
        if not found:
            label_note(self.n_rows, self.n_rows, self._target, 0, self._path)


def _tables(
    read: _Labelled, schema: pa.Schema, target: str, inputs: str | None, path: Path, config: Data, folder: RawFolder
) -> tuple[dict[str, Any], dict[str, Any]]:
    kinds, guessed, categories = look_at_columns(read, schema, target, config, path)
    cells = CellRows(kinds, categories, schema, config.missing, path, folder)
    targets, ids = _columns_beside(read, schema, target, path, config, folder)
    for numbers, batch in read([*kinds, *([ID] if ID in schema.names else [])]):
        cells.add(batch, numbers)
        ids.add(batch, numbers)
        targets.add(pa.chunked_array([batch.column(target)]))
    named = ids.finish()
    file, wide = cells.finish()
    facts = TableFacts(
        kinds=kinds,
        words={name: one.words for name, one in categories.items()},
        wide=wide,
        spread=frozenset(name for name in kinds if config.kinds.get(name) == "quantile"),
        target=target,
        no_value=config.missing,
        notes=tuple(guessed),
    )
    return {"table": _json_of(facts), **_told(targets, file)}, named


def _arrays(
    read: _Labelled, schema: pa.Schema, target: str, inputs: str | None, path: Path, config: Data, folder: RawFolder
) -> tuple[dict[str, Any], dict[str, Any]]:
    assert inputs is not None
    targets, ids = _columns_beside(read, schema, target, path, config, folder)
    held: ArrayCells | None = None
    for numbers, batch in read([inputs, *([ID] if ID in schema.names else [])]):
        values = numpy_of(batch.column(inputs), inputs, path)
        held = held or ArrayCells(values, inputs, path, folder)
        held.add(values)
        ids.add(batch, numbers)
        targets.add(pa.chunked_array([batch.column(target)]))
    named = ids.finish()
    assert held is not None
    file = held.finish(config.source, names_in(folder.path, named, held.file.n))
    return {"table": None, **_told(targets, file)}, named


def _columns_beside(
    read: _Labelled, schema: pa.Schema, target: str, path: Path, config: Data, folder: RawFolder
) -> tuple[TargetColumn, IdColumn]:
    held = schema.field(ID).type if ID in schema.names else None
    return (
        TargetColumn(schema.field(target).type, target, config, path, folder),
        IdColumn(held, config.source, path, folder, read.n_rows),
    )


def _told(targets: TargetColumn, values: RawFile) -> dict[str, Any]:
    made, letter, file = targets.finish()
    return {
        "task": made.task,
        "class_names": list(made.class_names),
        "label_kind": letter,
        "files": {_VALUES: values.told(), _TARGETS: file.told()},
    }


def _written_beside(read: _Labelled, config: Data, path: Path, folder: Path) -> list[str]:
    """Write what columns say of the rows that no model gets; each is held by itself for it."""
    for number, (key, name) in enumerate(config.beside.items()):
        column = pa.chunked_array([batch.column(name) for _, batch in read([name])])
        np.save(folder / f"beside_{number}.npy", beside_values(column, name, key, config, path), allow_pickle=False)
    return list(config.beside)


def _json_of(facts: TableFacts) -> dict[str, Any]:
    return {**asdict(facts), "spread": sorted(facts.spread), "kinds": list(facts.kinds.items())}


def mapped_source(folder: Path, told: dict[str, Any], config: Data) -> ArraySource:
    """Return the data set whose arrays lie in a folder, mapped.

    Raises:
        DataError: a file isn't there or isn't whole.
    """

    def array(name: str) -> np.ndarray[Any, Any]:
        one = told["files"][name]
        return mapped_rows(folder / name, np.dtype(one["dtype"]), tuple(one["shape"]))

    values, n = array(_VALUES), told["rows"]
    table = told["table"]
    facts = None
    if table is not None:
        words = {name: tuple(given) for name, given in table["words"].items()}
        facts = TableFacts(dict(table["kinds"]), words, table["wide"], frozenset(table["spread"]), table["target"])
        facts = replace(facts, no_value=tuple(table["no_value"]), notes=tuple(table["notes"]))
    beside = {key: _mapped_npy(folder / f"beside_{number}.npy") for number, key in enumerate(told["beside"])}
    digests = mapped_rows(folder / _DIGESTS, np.uint8, (n, 32)) if told["digests"] else None
    return ArraySource(
        config.source,
        names_in(folder, told["ids"], n),
        torch.from_numpy(values),
        torch.from_numpy(array(_TARGETS)),
        told["task"],
        tuple(told["class_names"]),
        feature_names=() if facts is None else tuple(facts.kinds),
        table=facts,
        beside=beside,
        label_kind=told["label_kind"],
        on_disk=str(folder),
        digests=digests,
        known_fingerprint=told.get("fingerprint", ""),
        notes=tuple(told["label_notes"]),
    )


def _mapped_npy(path: Path) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: it isn't there or is damaged: remove its folder, and it is made anew") from error


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what the arrays in a folder are; None: there are none, or none that are whole."""
    try:
        told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
