"""Where do examples come from, and how are they split, scaled and handed out?"""

from prunus.core.batch import Batch, Batched
from prunus.data.batches import Batches, collect
from prunus.data.columns.cells import BadCell
from prunus.data.columns.fitted import Columns
from prunus.data.content import content_digests, fingerprint
from prunus.data.disk.convert import disk_bytes
from prunus.data.disk.open_on_disk import goes_to_disk, rows_in
from prunus.data.draw import prepare_drawn
from prunus.data.epoch_sampler import EpochSampler
from prunus.data.examples import Examples
from prunus.data.open import is_table, open_images, open_inputs, open_named_inputs, open_rows, open_source
from prunus.data.prepare import (
    Noise,
    Prepared,
    prepare,
    prepare_arrays,
    prepare_dataset,
    prepare_parts,
    prepare_source,
)
from prunus.data.repeated import Repeated
from prunus.data.rows import (
    Kept,
    KeptRows,
    MappedRows,
    RowLoader,
    RowSet,
    RowStream,
    form_of,
    kept_of_mask,
    kept_of_table,
    open_row_set,
    row_files_of,
)
from prunus.data.rows.file_prints import joined_print
from prunus.data.rows.row_set import open_row_file, print_of
from prunus.data.rows.walk import read_group
from prunus.data.scaler import Scaler
from prunus.data.sources.apart import Takes, is_text
from prunus.data.sources.arrays import raw_inputs, to_array
from prunus.data.sources.datasets import handed_by, open_dataset
from prunus.data.sources.drawn import DrawnSource, known_labels, open_drawn
from prunus.data.sources.encoded import EncodedTable, encoded_as, read_as
from prunus.data.sources.formats import add_reader, add_row_reader, row_endings
from prunus.data.sources.reading import class_names_of, is_array, is_stream
from prunus.data.sources.row_files import RowFile, check_columns, read_batches
from prunus.data.sources.source import LABEL_KINDS, ArraySource, Rows, Source, beside_of, holds_ids
from prunus.data.split import PARTS, Duplicate, Splits, split

__all__ = [
    "LABEL_KINDS",
    "PARTS",
    "ArraySource",
    "BadCell",
    "Batch",
    "Batched",
    "Batches",
    "Columns",
    "DrawnSource",
    "Duplicate",
    "EncodedTable",
    "EpochSampler",
    "Examples",
    "Kept",
    "KeptRows",
    "MappedRows",
    "Noise",
    "Prepared",
    "Repeated",
    "RowFile",
    "RowLoader",
    "RowSet",
    "RowStream",
    "Rows",
    "Scaler",
    "Source",
    "Splits",
    "Takes",
    "add_reader",
    "add_row_reader",
    "beside_of",
    "check_columns",
    "class_names_of",
    "collect",
    "content_digests",
    "disk_bytes",
    "encoded_as",
    "fingerprint",
    "form_of",
    "goes_to_disk",
    "handed_by",
    "holds_ids",
    "is_array",
    "is_stream",
    "is_table",
    "is_text",
    "joined_print",
    "kept_of_mask",
    "kept_of_table",
    "known_labels",
    "open_dataset",
    "open_drawn",
    "open_images",
    "open_inputs",
    "open_named_inputs",
    "open_row_file",
    "open_row_set",
    "open_rows",
    "open_source",
    "prepare",
    "prepare_arrays",
    "prepare_dataset",
    "prepare_drawn",
    "prepare_parts",
    "prepare_source",
    "print_of",
    "raw_inputs",
    "read_as",
    "read_batches",
    "read_group",
    "row_endings",
    "row_files_of",
    "rows_in",
    "split",
    "to_array",
]
