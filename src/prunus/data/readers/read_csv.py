"""How is a CSV file read?

UTF-8, with a header; a row may be as long as 16 MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from prunus.core.errors import DataError
from prunus.data.sources.tables import add_table_reader, arrow_text

__all__ = ["read_csv"]

_BLOCK_BYTES = 16 << 20  # one row may be as long as this


def read_csv(path: Path, arguments: Mapping[str, Any]) -> pa.Table:
    """Return the table in a CSV file; ``delimiter`` is its one argument.

    Raises:
        DataError: the file is damaged or empty, or the delimiter isn't one character.
    """
    delimiter = arguments.get("delimiter", ",")
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise DataError(f"{path}: data.args.delimiter must be one character, got {delimiter!r}")
    try:
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            raise DataError(f"{path}: expected a header and rows, got an empty set") from error
        raise DataError(f"{path}: this is not a readable CSV file in UTF-8: {arrow_text(error)}") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: can't be read as CSV: {arrow_text(error)}") from error


add_table_reader(".csv", read_csv, holds="a table in UTF-8 with a header", arguments=("delimiter",))
