"""Which rows of a data set stay: a bit for each, and the new labels of those that get one.

A bitmap takes an eighth of a byte per row. It comes from an array of truth values, or from a table of decisions, whose rows are
found by their ids; such a table is refused where it was made for other data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError, PlanError
from prunus.core.files.example_table import DECISIONS, FILES, read_arrow_table
from prunus.core.text import shown
from prunus.core.types import Bools, Ints
from prunus.data.rows.row_set import RowSet
from prunus.data.rows.walk import walk
from prunus.data.sources.table_rows import ID

__all__ = ["Kept", "kept_of_mask", "kept_of_table"]


@dataclass(frozen=True, eq=False)
class Kept:
    """Which rows stay.

    Args:
        bits: one per row, packed, the first in the lowest bit.
        relabelled: which rows get another label, ascending.
        new_labels: what they get, as texts.
    """

    n_rows: int
    bits: np.ndarray[Any, np.dtype[np.uint8]]
    relabelled: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    new_labels: np.ndarray[Any, Any] = field(default_factory=lambda: np.empty(0, object))

    def mask(self, start: int, stop: int) -> Bools:
        """Return whether each of some rows stays."""
        first = start // 8
        found = np.unpackbits(self.bits[first : -(-stop // 8)], bitorder="little")[start - 8 * first : stop - 8 * first]
        return found.view(np.bool_)

    def counts(self, starts: Ints, ends: Ints) -> Ints:
        """Return how many rows stay from each start to each end."""
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        return np.array([np.count_nonzero(self.mask(start, stop)) for start, stop in pairs], np.int64)

    @property
    def sha256(self) -> str:
        """What tells this choice from another, in hexadecimal."""
        total = hashlib.sha256(self.bits.tobytes())
        total.update(self.relabelled.tobytes() + "\n".join(self.new_labels.tolist()).encode())
        return total.hexdigest()


def kept_of_mask(mask: Any, n_rows: int) -> Kept:
    """Return the rows where an array of truth values (NumPy's, torch's or Arrow's) is true; None: all.

    Raises:
        DataError: it has other values, or isn't one per row.
    """
    if mask is None:
        mask = np.ones(n_rows, np.bool_)
    elif isinstance(mask, (pa.Array, pa.ChunkedArray)):
        if not pa.types.is_boolean(mask.type) or mask.null_count:
            raise DataError(f"expected a truth value for each row: got {mask.null_count} missing of {mask.type}")
        mask = mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy()
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ or mask.shape != (n_rows,):
        raise DataError(
            f"expected a truth value for each row, ({n_rows},) of bool: got {mask.dtype} of shape {mask.shape}"
        )
    if not mask.any():
        raise DataError(f"expected rows that stay: got none of {n_rows}")
    return Kept(n_rows, np.packbits(mask, bitorder="little"))


def kept_of_table(path: Path, rows: RowSet, target: str | None = None) -> Kept:
    """Return the rows that a table of decisions keeps or relabels; a row that isn't in it doesn't stay.

    Args:
        path: of the Parquet file that ``prunus clean`` or ``prunus select`` wrote, edited or not.
        rows: the data; where they have a column ``id``, rows are found by it, else by their numbers.
        target: the label's column, with which the table's is compared where the table doesn't say of which files it is.

    Raises:
        PlanError: it can't be read, is of other data, or asks for what can't be done; the first row at fault is named.
    """
    table, _ = read_arrow_table(path)
    names = table.schema.names
    where = _places(path, _texts(table[ID]), rows)
    decision = _texts(table["decision"]) if "decision" in names else pa.nulls(len(table), pa.string())
    odd = pc.fill_null(pc.invert(pc.is_in(decision, pa.array(DECISIONS))), False)
    odd = pc.and_(odd, pc.is_valid(decision))
    if pc.any(odd).as_py():
        row = pc.index(odd, True).as_py()
        raise PlanError(
            f"{path}: decision of row {row + 1}: expected {', '.join(DECISIONS)} or nothing, got {shown(decision[row].as_py())}"
        )
    _check_same(path, table, rows, where, target)
    stays = ~np.asarray(pc.fill_null(pc.equal(decision, "drop"), False).to_numpy(zero_copy_only=False))
    if not stays.any():
        raise PlanError(f"{path}: its column decision drops all {len(stays)} examples: keep some")
    mask = np.zeros(rows.n_rows, np.bool_)
    mask[where[stays]] = True
    changes = np.flatnonzero(pc.fill_null(pc.equal(decision, "relabel"), False).to_numpy(zero_copy_only=False))
    new = (
        _texts(table["new_label"]).take(pa.array(changes)).to_pylist()
        if "new_label" in names
        else [None] * len(changes)
    )
    for row, label in zip(changes.tolist(), new, strict=True):
        if not label:
            raise PlanError(f"{path}: row {row + 1} is to be relabelled and has no new_label: write a class into it")
    order = np.argsort(where[changes], kind="stable")
    return Kept(
        rows.n_rows,
        np.packbits(mask, bitorder="little"),
        where[changes][order],
        np.array(new, object)[order],
    )


def _texts(column: Any) -> pa.Array:
    """Return a column as texts; spreadsheets make numbers with a point of whole ones."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    if pa.types.is_floating(whole.type) and pc.all(pc.equal(whole, pc.round(whole))).as_py():
        whole = whole.cast(pa.int64())
    return whole.cast(pa.string())


def _places(path: Path, ids: pa.Array, rows: RowSet) -> Ints:
    """Return the number of the row that each id means."""
    if ids.null_count:
        raise PlanError(f"{path}: row {pc.index(ids.is_null(), True).as_py() + 1} has no id")
    if ID in rows.schema.names:
        held = pa.concat_arrays([_texts(batch.column(0)) for _, batch in walk(rows, [ID])])
        found = pc.index_in(ids, value_set=held)
    else:
        whole = pc.fill_null(pc.match_substring_regex(ids, r"^\d{1,18}$"), False)
        numbers = pc.if_else(whole, ids, pa.scalar(None, pa.string())).cast(pa.int64())
        found = pc.if_else(pc.less(numbers, rows.n_rows), numbers, pa.scalar(None, pa.int64()))
    if found.null_count:
        row = pc.index(found.is_null(), True).as_py()
        what = "their column id" if ID in rows.schema.names else f"their numbers, 0 to {rows.n_rows - 1}"
        raise PlanError(
            f"{path}: {found.null_count} rows are of no row of these files (the first is {shown(ids[row].as_py())}): rows are "
            f"found by {what}; use the files that the table was made for"
        )
    where = found.cast(pa.int64()).to_numpy()
    count = np.bincount(where, minlength=rows.n_rows)
    if (count > 1).any():
        first, second = np.flatnonzero(where == int(count.argmax()))[:2].tolist()
        raise PlanError(
            f"{path}: the id {shown(ids[first].as_py())} stands in rows {first + 1} and {second + 1}: each example has one row"
        )
    return np.asarray(where, np.int64)


def _check_same(path: Path, table: pa.Table, rows: RowSet, where: Ints, target: str | None) -> None:
    """Refuse a table that was made for other files, or where it doesn't say for which, with other labels."""
    if FILES in table.schema.names:
        said = sorted(set(_texts(table[FILES]).unique().to_pylist()), key=str)
        if said != [rows.fingerprint]:
            raise PlanError(
                f"{path} was made for other files (print {shown(str(said[0])[:12])}, expected {rows.fingerprint[:12]}): use the "
                "files that it was made for, in their order, or make it anew"
            )
        return
    if target is None or "label" not in table.schema.names:
        raise PlanError(
            f"{path}: it doesn't say for which files it was made, and there are no labels to compare (its column label, and target "
            "of the data): make it anew"
        )
    expected = np.full(rows.n_rows, None, object)
    expected[where] = _texts(table["label"]).to_pylist()
    for start, batch in walk(rows, [target]):
        given = _texts(batch.column(0)).to_pylist()
        _compare(path, expected[start : start + len(given)], given, start)


def _compare(path: Path, expected: np.ndarray[Any, Any], given: Sequence[Any], start: int) -> None:
    for offset, (wanted, found) in enumerate(zip(expected.tolist(), given, strict=True)):
        if wanted is not None and wanted != found:
            raise PlanError(
                f"{path} was made for other data: row {start + offset} has label {shown(found)} in the files and {shown(wanted)} "
                "in the table; use the files that it was made for"
            )
