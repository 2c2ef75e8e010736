"""How is one shard of a data set scored?

A pure function of two paths and a scorer: it reads the shard in batches, and writes the score shard in one step. It knows nothing
of pools, other shards or what was done before, so that any engine may call it anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, RunError, near
from prunus.core.files.plain_files import atomic_path

__all__ = ["ENDINGS", "Scorer", "ShardFacts", "score_shard"]

ENDINGS = (".parquet", ".arrow", ".feather", ".csv")
"""What can be read in batches: Parquet, Arrow's own file (uncompressed ones are mapped into memory), and CSV."""
_GROUP_ROWS = 1 << 18
"""Rows of scores that are written at once."""

Column = Any
"""An array of NumPy's or of Arrow's, with one value per row."""


class Scorer(Protocol):
    """Tells scores of the rows of a batch.

    ``columns`` are those that it reads, in this order; None: all that there are, and the batch has them in the shard's order.
    """

    columns: tuple[str, ...] | None

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Column]:
        """Return columns with one value per row, of the same names and types for each batch."""
        ...


@dataclass(frozen=True)
class ShardFacts:
    """How many rows a shard has, and what the columns of its scores are called."""

    n_rows: int
    columns: tuple[str, ...]


def score_shard(
    shard: Path, output: Path, scorer: Scorer, *, batch_rows: int = 65536, keep: tuple[str, ...] = ()
) -> ShardFacts:
    """Write the scores of all rows of ``shard`` to the Parquet file ``output``, in their order.

    Args:
        keep: columns that are copied as they are, such as an id, before the scores.

    Raises:
        DataError: the shard is damaged, lacks a column, or a row can't be scored; nothing is written then.
        RunError: the system can't read it, which may pass.
        OutputError: the disk is full, or the folder can't be written.
    """
    with _opened(shard) as (schema, batches):
        names = schema.names
        wanted = None if scorer.columns is None else tuple(dict.fromkeys((*keep, *scorer.columns)))
        for name in wanted or keep:
            if name not in names:
                raise DataError(f"{shard}: there is no column {name!r}; {near(name, names)}")
        n_rows, writer, pending = 0, None, []
        with atomic_path(output) as temporary:
            try:
                for batch in _read(shard, iter(batches(wanted, batch_rows))):
                    n = batch.num_rows
                    if not n:
                        continue
                    read = batch if scorer.columns is None else batch.select(list(scorer.columns))
                    made = _made(shard, scorer, read, n_rows, n)
                    own = [name for name in keep if name not in made]
                    pending.append(
                        pa.record_batch(
                            [*(batch.column(name) for name in own), *map(_array, made.values())], [*own, *made]
                        )
                    )
                    n_rows += n
                    if writer is None:
                        writer = _writer(temporary, pending[0].schema, shard)
                    if sum(part.num_rows for part in pending) >= _GROUP_ROWS:
                        _write(writer, pending, shard)
                        pending = []
                if writer is None:
                    raise DataError(f"{shard}: there is no row in it; leave it out")
                if pending:
                    _write(writer, pending, shard)
            finally:
                if writer is not None:
                    writer.close()
    return ShardFacts(n_rows, tuple(name for name in writer.schema.names))


def _made(shard: Path, scorer: Scorer, batch: pa.RecordBatch, start: int, n: int) -> Mapping[str, Column]:
    try:
        made = scorer(batch)
    except DataError as error:
        raise DataError(f"{shard}: rows {start} to {start + n - 1}: {error}") from error
    for name, column in made.items():
        if len(column) != n:
            raise DataError(
                f"{shard}: the scorer must give one value per row: got {len(column)} of {name!r} for {n} rows"
            )
    return made


def _array(column: Column) -> pa.Array:
    return column if isinstance(column, pa.Array) else pa.array(np.ascontiguousarray(column))


def _writer(path: Path, schema: pa.Schema, shard: Path) -> pq.ParquetWriter:
    texts = [
        field.name for field in schema if pa.types.is_dictionary(field.type) or not pa.types.is_floating(field.type)
    ]
    return pq.ParquetWriter(
        path, schema.remove_metadata(), use_dictionary=texts, compression="zstd", compression_level=1
    )


def _write(writer: pq.ParquetWriter, batches: list[pa.RecordBatch], shard: Path) -> None:
    if odd := next((batch.schema for batch in batches if batch.schema != writer.schema), None):
        raise DataError(
            f"{shard}: the scorer must give the same columns for each batch: got {', '.join(odd.names)} after "
            f"{', '.join(writer.schema.names)}, or other types"
        )
    table = pa.Table.from_batches(batches).combine_chunks()
    writer.write_table(table, row_group_size=table.num_rows)


@contextmanager
def _opened(
    shard: Path,
) -> Iterator[tuple[pa.Schema, Callable[[tuple[str, ...] | None, int], Iterator[pa.RecordBatch]]]]:
    """Yield a shard's columns, and a function of columns and a number of rows that yields its batches."""
    ending = shard.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{shard}: expected a file that ends in {', '.join(ENDINGS)}: got {ending or 'no ending'!r}")
    with ExitStack() as stack, _explained(shard):
        schema, batches = _OPENS.get(ending, _open_arrow)(shard, stack)
        stack_of_open = stack.pop_all()
    with stack_of_open:
        yield schema, batches


def _open_parquet(shard: Path, stack: ExitStack) -> tuple[pa.Schema, Any]:
    file = stack.enter_context(pq.ParquetFile(shard, page_checksum_verification=True))

    def batches(columns: tuple[str, ...] | None, rows: int) -> Iterator[pa.RecordBatch]:
        wanted = None if columns is None else list(columns)
        found: Iterator[pa.RecordBatch] = file.iter_batches(batch_size=rows, columns=wanted, use_threads=False)
        return found

    return file.schema_arrow, batches


def _open_csv(shard: Path, stack: ExitStack) -> tuple[pa.Schema, Any]:
    reader = stack.enter_context(pa_csv.open_csv(shard, read_options=pa_csv.ReadOptions(use_threads=False)))
    return reader.schema, lambda columns, rows: _cut(reader, columns, rows)


def _open_arrow(shard: Path, stack: ExitStack) -> tuple[pa.Schema, Any]:
    file = stack.enter_context(pa.ipc.open_file(stack.enter_context(pa.memory_map(os.fspath(shard)))))
    batches = (file.get_batch(number) for number in range(file.num_record_batches))
    return file.schema, lambda columns, rows: _cut(batches, columns, rows)


_OPENS = {".parquet": _open_parquet, ".csv": _open_csv}


@contextmanager
def _explained(shard: Path) -> Iterator[None]:
    """Say what is wrong with a shard that can't be read: that it is damaged, or what the system says."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{shard}: there is no such file") from error
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        # Arrow raises these for pages that can't be made sense of, too, but without a number of the system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise RunError(f"{shard}: it can't be read ({one_line(error)[:200]})") from error
        raise DataError(
            f"{shard}: it is damaged, or no {shard.suffix.lower()} file ({one_line(error)[:200]}): fetch it anew"
        ) from error


def _read(shard: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    while True:
        with _explained(shard):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _cut(batches: Iterator[pa.RecordBatch], columns: tuple[str, ...] | None, rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, rows):
            part = batch.slice(start, rows)
            yield part if columns is None else part.select(list(columns))
