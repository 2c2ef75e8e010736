"""How is a Parquet file read as a table? What guards against files that declare too much is ``core.files.parquet_file``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from prunus.core.errors import DataError
from prunus.core.files import parquet_file
from prunus.core.files.expansion import ROW_BYTES
from prunus.data.sources.tables import add_table_reader, arrow_text

__all__ = ["read_parquet"]


def read_parquet(path: Path, arguments: Mapping[str, Any]) -> pa.Table:
    """Return the table in a Parquet file, without the columns that pandas keeps its row index in.

    Raises:
        DataError: the file is damaged, or would become far larger than it is.
    """
    try:
        table = parquet_file.read_parquet(path, path, path.stat().st_size, DataError, row_bytes=ROW_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path}: this is not a readable Parquet file: {arrow_text(error)}; it may be damaged or cut off"
        ) from error
    # pandas itself doesn't show them as columns either.
    return table.drop_columns([name for name in table.schema.names if name.startswith("__index_level_")])


add_table_reader(".parquet", read_parquet, holds="a table")
