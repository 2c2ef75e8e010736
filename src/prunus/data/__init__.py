"""Where do examples come from, and how are they split, scaled and handed out?"""

from prunus.core.batch import Batch, Batched
from prunus.data.batches import Batches, collect
from prunus.data.columns.cells import BadCell
from prunus.data.columns.fitted import Columns
from prunus.data.content import content_digests, fingerprint
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
from prunus.data.scaler import Scaler
from prunus.data.sources.apart import Takes, is_text
from prunus.data.sources.arrays import raw_inputs, to_array
from prunus.data.sources.datasets import handed_by, open_dataset
from prunus.data.sources.drawn import DrawnSource, known_labels, open_drawn
from prunus.data.sources.encoded import EncodedTable, encoded_as, read_as
from prunus.data.sources.formats import add_reader
from prunus.data.sources.reading import class_names_of, is_array, is_stream
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
    "Noise",
    "Prepared",
    "Rows",
    "Scaler",
    "Source",
    "Splits",
    "Takes",
    "add_reader",
    "beside_of",
    "class_names_of",
    "collect",
    "content_digests",
    "encoded_as",
    "fingerprint",
    "handed_by",
    "holds_ids",
    "is_array",
    "is_stream",
    "is_table",
    "is_text",
    "known_labels",
    "open_dataset",
    "open_drawn",
    "open_images",
    "open_inputs",
    "open_named_inputs",
    "open_rows",
    "open_source",
    "prepare",
    "prepare_arrays",
    "prepare_dataset",
    "prepare_drawn",
    "prepare_parts",
    "prepare_source",
    "raw_inputs",
    "read_as",
    "split",
    "to_array",
]
