"""How does a training loop of one's own read what stays of a data set that doesn't fit into memory?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from prunus.core.errors import DataError
from prunus.core.files.urls.url_path import path_at
from prunus.data import KeptRows, form_of, kept_of_mask, kept_of_table, open_row_set
from prunus.pipeline.sharding.kept_of_scores import Where, kept_of_scores

__all__ = ["kept_rows"]


def kept_rows(
    data: str | Path | Sequence[str | Path],
    kept: Any = None,
    *,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    convert: Callable[[pa.RecordBatch], Any] | None = None,
    where: Where | None = None,
) -> KeptRows:
    """Return the rows of some files that stay, to be streamed or read by index; nothing is loaded.

    In a loop of one's own::

        rows = prunus.kept_rows("data/", "runs/clean/examples.parquet", target="label")
        for position, inputs, targets in rows.loader(256, num_workers=2, seed=0):
            ...

    Args:
        data: a file or several, or folders of them, here or at a URL (``s3://bucket/folder/*.parquet``): Parquet, Arrow, CSV,
            ``.npy``, or a set that Hugging Face's ``datasets`` saved.
        kept: the table that ``prunus clean`` or ``prunus select`` wrote, edited or not, where rows that it relabels get
            their new labels; or the folder of scores that ``prunus score-shards`` wrote, with ``where``; or an array of truth
            values, one per row. None: all rows.
        target: the label's column; texts become class numbers.
        columns: those of the inputs; default: all but the label's and ``id``.
        class_names: of labels that are texts, by their numbers; default: all that there are, sorted.
        convert: makes inputs of a batch of columns (Arrow's), where they aren't numbers side by side.
        where: of a folder of scores, from scores by their names to a truth value per row: ``lambda scores: scores["aum"] > 0``.

    Raises:
        DataError: a file or a column can't be read, or the array isn't one truth value per row.
        PlanError: the table, or the scores, are of other files, or damaged.
    """
    given = [data] if isinstance(data, (str, Path)) else list(data)
    rows = open_row_set([path_at(path) for path in given])
    form = form_of(rows, target=target, columns=columns, class_names=class_names, convert=convert)
    is_path = isinstance(kept, (str, Path))
    if is_path and path_at(kept).is_dir():
        return KeptRows(rows, kept_of_scores(path_at(kept), rows, where), form)
    if where is not None:
        raise DataError("where is for a folder of scores (prunus score-shards): got none; leave it out")
    if is_path:
        return KeptRows(rows, kept_of_table(path_at(kept), rows, target), form)
    return KeptRows(rows, kept_of_mask(kept, rows.n_rows), form)
