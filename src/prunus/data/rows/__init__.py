"""How are the rows that stay read from a data set that doesn't fit into memory?"""

from prunus.data.rows.kept_bits import Kept, kept_of_mask, kept_of_table
from prunus.data.rows.kept_rows import KeptRows, form_of
from prunus.data.rows.loader import RowLoader
from prunus.data.rows.mapped import MappedRows
from prunus.data.rows.row_set import RowSet, open_row_set, row_files_of
from prunus.data.rows.stream import RowStream

__all__ = [
    "Kept",
    "KeptRows",
    "MappedRows",
    "RowLoader",
    "RowSet",
    "RowStream",
    "form_of",
    "kept_of_mask",
    "kept_of_table",
    "open_row_set",
    "row_files_of",
]
