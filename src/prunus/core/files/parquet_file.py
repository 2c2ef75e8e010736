"""How is a Parquet file read that may be a bomb: two kilobytes that say a billion rows?

Rows and pages are counted from the footer, and from the pages' own headers, before a page is read. Text and bytes are read as a
dictionary with an index for each row, and counted before they are written out.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prunus.core.errors import PrunusError
from prunus.core.files.expansion import check_expansion
from prunus.core.files.parquet_pages import check_pages

__all__ = ["read_parquet"]

_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 8}
_TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def read_parquet(
    source: Path | pa.BufferReader, where: Path, held_bytes: int, error: type[PrunusError], *, row_bytes: int = 1
) -> pa.Table:
    """Return the table in a Parquet file.

    Args:
        row_bytes: what each row takes beside its values.
        where: what errors call it.
        held_bytes: how large the file is.

    Raises:
        PrunusError: it would become far larger than the file; of the class ``error``.
        ArrowException: it is no Parquet file, or damaged.
    """
    texts = [field.name for field in pq.read_schema(source) if field.type in _TEXTS]
    if isinstance(source, pa.BufferReader):
        source.seek(0)
    with pq.ParquetFile(source, read_dictionary=texts, page_checksum_verification=False) as file:
        rows_bytes = file.metadata.num_rows * row_bytes
        check_expansion(where, rows_bytes + _declared_bytes(file.metadata), held_bytes, error)
        check_expansion(where, rows_bytes + _page_bytes(source, file.metadata, where, error), held_bytes, error)
        table = file.read(use_threads=False)
    columns = []
    written_out = 0
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type) and column.type.value_type in _TEXTS:
            written_out += sum(_length(chunk) for chunk in column.chunks)
            check_expansion(f"{where}: column {name!r}", written_out, held_bytes, error)
        columns.append(
            column.cast(column.type.value_type) if name in texts and pa.types.is_dictionary(column.type) else column
        )
    return pa.table(columns, names=table.schema.names)


def _page_bytes(
    source: Path | pa.BufferReader, metadata: pq.FileMetaData, where: Path, error: type[PrunusError]
) -> int:
    """Return what the pages say themselves; a footer may say less."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return check_pages(file, metadata, where, error)
    place = source.tell()
    try:
        return check_pages(source, metadata, where, error)
    finally:
        source.seek(place)


def _declared_bytes(metadata: pq.FileMetaData) -> int:
    total = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        for number in range(rows.num_columns):
            column, kind = rows.column(number), metadata.schema.column(number)
            width = kind.length if kind.physical_type == "FIXED_LEN_BYTE_ARRAY" else _BYTES.get(kind.physical_type, 8)
            total += max(column.total_uncompressed_size, 0) + max(column.num_values, rows.num_rows, 0) * max(width, 1)
    return total


def _length(chunk: pa.DictionaryArray) -> int:
    """Return the bytes that a chunk of texts takes once each row has its own."""
    lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
    counts = pc.value_counts(chunk.indices.drop_null())
    used = pc.take(lengths, counts.field("values")).fill_null(0)
    total: int = pc.sum(pc.multiply(used, counts.field("counts"))).as_py() or 0
    return total
