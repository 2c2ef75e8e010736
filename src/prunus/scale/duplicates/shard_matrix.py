"""How do the rows of a shard become one matrix, of which any row is read when it is asked for?

A ``.npy`` file is one already, and is mapped into memory as it lies. What other files hold is copied to one, in single precision,
a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.core.files.plain_files import atomic_path
from prunus.core.files.urls.url_path import is_url
from prunus.data import check_columns, open_row_file, read_batches
from prunus.data.rows.to_tensors import Form, is_number, is_rows
from prunus.scale.mapped_matrix import mapped_matrix

__all__ = ["is_matrix", "rows_of", "write_matrix"]

_BATCH_ROWS = 1 << 14


def is_matrix(shard: Path, columns: tuple[str, ...] | None) -> bool:
    """Return whether a shard is taken as it lies."""
    return columns is None and shard.suffix.lower() == ".npy" and not is_url(shard)


def write_matrix(shard: Path, columns: tuple[str, ...] | None, path: Path) -> None:
    """Write the rows of a shard to the ``.npy`` file ``path``, in single precision.

    Args:
        columns: one that holds an array per row, or several that hold a number each; None: the only one that holds arrays.

    Raises:
        DataError: the shard is damaged or lacks a column, or a row holds no numbers, or more than others.
        OutputError: it can't be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        n_rows, width = 0, 0
        for rows in _read(shard, columns, _BATCH_ROWS):
            if not n_rows:
                width = rows.shape[1]
                raw.write(_header(0, width))
            raw.write(rows.tobytes())
            n_rows += len(rows)
        if not n_rows:
            raise DataError(f"{shard}: there is no row in it; leave it out")
        raw.seek(0)
        raw.write(_header(n_rows, width))


def rows_of(shard: Path, columns: tuple[str, ...] | None, n_rows: int) -> Iterator[np.ndarray]:
    """Yield the rows of a shard, at most ``n_rows`` at a time: of a matrix as they lie, else in single precision.

    Raises:
        DataError: the shard is damaged or lacks a column, or a row holds no numbers, or more than others.
    """
    if not is_matrix(shard, columns):
        yield from _read(shard, columns, n_rows)
        return
    table = mapped_matrix(shard)
    for first in range(0, len(table), n_rows):
        yield table[first : first + n_rows]


def _read(shard: Path, columns: tuple[str, ...] | None, n_rows: int) -> Iterator[np.ndarray]:
    with ExitStack() as stack:
        file = open_row_file(shard, stack)
        names = _chosen(shard, file.schema, columns)
        check_columns(shard, file.schema.names, names)
        first, width = 0, None
        for batch in read_batches(shard, file, names, n_rows):
            if not batch.num_rows:
                continue
            rows = _rows(shard, batch, names, first)
            width = rows.shape[1] if width is None else width
            if rows.shape[1] != width:
                raise DataError(
                    f"{shard}: expected {width} numbers per row, as in row 0: got {rows.shape[1]} from row {first} on"
                )
            yield rows
            first += len(rows)


def _chosen(shard: Path, schema: pa.Schema, columns: tuple[str, ...] | None) -> tuple[str, ...]:
    if columns is not None:
        return columns
    found = tuple(field.name for field in schema if is_rows(field.type) or _is_list(field.type))
    if len(found) != 1:
        held = f"{len(found)} columns hold arrays ({', '.join(found)})" if found else "no column holds an array per row"
        raise DataError(
            f"{shard}: name the columns whose numbers are compared (--columns): {held}, of {', '.join(schema.names)[:200]}"
        )
    return found


def _rows(shard: Path, batch: pa.RecordBatch, names: tuple[str, ...], first: int) -> np.ndarray:
    index = np.arange(first, first + batch.num_rows)
    try:
        if len(names) == 1 and _is_list(batch.schema.field(names[0]).type):
            return _of_lists(batch.column(names[0]), names[0], first)
        for name in names:
            kind = batch.schema.field(name).type
            if not (is_number(kind) or (len(names) == 1 and is_rows(kind))):
                raise DataError(f"column {name!r} holds {kind}: expected numbers, or one column of arrays of numbers")
        found = Form(names).inputs(batch, index)
    except DataError as error:
        raise DataError(f"{shard}: {error}") from error
    flat: np.ndarray = found.reshape(len(index), -1).float().numpy()
    return flat


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_number(kind.value_type)


def _of_lists(column: pa.Array, name: str, first: int) -> np.ndarray:
    lengths = pc.list_value_length(column)
    if column.null_count:
        raise DataError(
            f"column {name!r}: expected an array in every row, got none in {column.null_count} from row {first} on"
        )
    sizes = lengths.to_numpy()
    odd = np.flatnonzero(sizes != sizes[0])
    if len(odd):
        raise DataError(
            f"column {name!r}: expected {sizes[0]} numbers in each row, got {sizes[odd[0]]} in row {first + int(odd[0])}"
        )
    flat = column.flatten()
    if flat.null_count:
        raise DataError(f"column {name!r}: expected numbers, got {flat.null_count} missing ones from row {first} on")
    found: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(column), -1)
    return found


def _header(n_rows: int, width: int) -> bytes:
    """Return the beginning of a ``.npy`` file, of one length however many rows there are."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {width}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"
