"""How is one shard of a data set scored?

A pure function of two paths and a scorer: it reads the shard in batches, and writes the score shard in one step. It knows nothing
of pools, other shards or what was done before, so that any engine may call it anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunus.core.errors import DataError
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import atomic_path
from prunus.core.files.urls.url_path import is_url
from prunus.data import check_columns, open_row_file, read_batches

__all__ = ["Scorer", "ShardFacts", "score_shard"]

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
    """How many rows a shard has, and what the columns of its scores are called; what they weigh, where they went to a URL."""

    n_rows: int
    columns: tuple[str, ...]
    sha256: str = ""


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
    sha256 = ""
    with ExitStack() as stack:
        file = open_row_file(shard, stack)
        wanted = None if scorer.columns is None else tuple(dict.fromkeys((*keep, *scorer.columns)))
        check_columns(shard, file.schema.names, wanted or keep)
        n_rows, writer, pending = 0, None, []
        with atomic_path(output) as temporary:
            try:
                for batch in read_batches(shard, file, wanted, batch_rows):
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
            if is_url(output):
                sha256 = sha256_file(temporary)
    return ShardFacts(n_rows, tuple(name for name in writer.schema.names), sha256)


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
