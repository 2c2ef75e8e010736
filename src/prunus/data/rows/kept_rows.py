"""What does a training loop of one's own read of a data set, some of whose rows stay?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.core.files.urls.url_path import is_url
from prunus.data.readers.rows_of_npy import INPUTS, beside_npy
from prunus.data.rows.kept_bits import Kept
from prunus.data.rows.loader import RowLoader
from prunus.data.rows.mapped import MappedArray, MappedRows, convert_rows
from prunus.data.rows.row_set import RowSet
from prunus.data.rows.stream import RowStream
from prunus.data.rows.to_tensors import Form, is_number, is_rows
from prunus.data.rows.walk import walk
from prunus.data.sources.row_files import check_columns
from prunus.data.sources.table_rows import ID

__all__ = ["KeptRows", "form_of"]


@dataclass(frozen=True, eq=False)
class KeptRows:
    """The rows of some files that stay, of which nothing is read yet: a stream, or an index, reads them.

    Args:
        rows: all that there are, and where.
        kept: which of them stay.
        form: what is read of each.
    """

    rows: RowSet
    kept: Kept
    form: Form

    def __len__(self) -> int:
        """Return how many rows stay."""
        return int(self.kept.counts(self.rows.starts, self.rows.ends).sum())

    @property
    def class_names(self) -> tuple[str, ...]:
        """What class numbers stand for, where labels are texts."""
        return self.form.class_names

    def stream(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
        n_lanes: int = 4,
        window_rows: int = 1 << 14,
        drop_last: bool = False,
    ) -> RowStream:
        """Return batches of them, in an order drawn anew in each epoch, as :class:`RowStream` says; the files stay as they are."""
        return RowStream(
            self.rows,
            self.kept,
            self.form,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            n_ranks=n_ranks,
            n_lanes=n_lanes,
            window_rows=window_rows,
            drop_last=drop_last,
        )

    def loader(
        self,
        batch_size: int,
        *,
        num_workers: int = 0,
        together: int = 64,
        seed: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
        n_lanes: int = 4,
        window_rows: int = 1 << 14,
        drop_last: bool = False,
    ) -> RowLoader:
        """Return what a loop goes through, as :class:`RowLoader` says: the stream, its workers sending many batches at once."""
        stream = self.stream(
            batch_size,
            seed=seed,
            rank=rank,
            n_ranks=n_ranks,
            n_lanes=n_lanes,
            window_rows=window_rows,
            drop_last=drop_last,
        )
        return RowLoader(stream, num_workers=num_workers, together=together)

    def mapped(self, folder: str | Path | None = None) -> MappedRows:
        """Return them by index, as :class:`MappedRows` says.

        Args:
            folder: where other files than ``.npy`` are converted to, once: it must be new, or of the same files.

        Raises:
            DataError: they can't be mapped as they lie, and no folder is given.
            OutputError: the folder is of other files, or can't be written.
        """
        found = self._as_they_lie()
        if found is None and folder is None:
            raise DataError(
                f"{self.rows.files[0]} can't be read by index as it lies: say where it may be converted to, mapped('FOLDER')"
            )
        inputs, targets = found if found is not None else convert_rows(self.rows, self.form, Path(folder or ""))
        return MappedRows(inputs, targets, self.kept, self.form)

    def _as_they_lie(self) -> tuple[MappedArray, MappedArray | None] | None:
        """Return inputs and targets of arrays that can be mapped; None where they can't."""
        files, form = self.rows.files, self.form
        here = all(path.suffix.lower() == ".npy" and not is_url(path) for path in files)
        plain = here and form.features == (INPUTS,)
        if not plain or form.convert is not None or form.class_names:
            return None
        inputs = MappedArray(files)
        if inputs.dtype.names is not None:
            return None
        if form.target is None:
            return inputs, None
        return inputs, MappedArray([beside_npy(path)[form.target] for path in files])


def form_of(
    rows: RowSet,
    *,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    convert: Callable[[pa.RecordBatch], Any] | None = None,
) -> Form:
    """Return what is read of each row.

    Args:
        target: the label's column; None: there is none.
        columns: those of the inputs, in this order; None: all but the label's and ``id``.
        class_names: what class numbers stand for; None: the labels that there are, in their order, where they are texts.
        convert: makes inputs of a batch of the columns, instead of numbers side by side.

    Raises:
        DataError: a column isn't there, or holds what needs ``convert``.
    """
    names, where = rows.schema.names, rows.files[0]
    check_columns(where, names, [*(columns or ()), *([] if target is None else [target])])
    chosen = tuple(columns) if columns is not None else tuple(name for name in names if name not in (ID, target))
    kinds = [rows.schema.field(name).type for name in chosen]
    if not chosen:
        raise DataError(f"{where}: no column is left for the inputs: got {', '.join(names)}")
    if convert is None and not (len(chosen) == 1 and is_rows(kinds[0])):
        odd = next(((name, kind) for name, kind in zip(chosen, kinds, strict=True) if not is_number(kind)), None)
        if odd is not None:
            raise DataError(
                f"{where}: column {odd[0]!r} holds {odd[1]}, which is no number: name the columns of the inputs, or give convert, "
                "a function from a batch of columns to inputs"
            )
    words = tuple(class_names or ())
    if not words and target is not None and not is_number(rows.schema.field(target).type):
        words = _words(rows, target)
    return Form(chosen, target, words, convert)


def _words(rows: RowSet, target: str) -> tuple[str, ...]:
    """Return the different labels that there are, in their order."""
    found: set[str] = set()
    for _, batch in walk(rows, [target]):
        column = batch.column(0)
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        found.update(word for word in pc.unique(plain.cast(pa.string())).to_pylist() if word is not None)
    return tuple(sorted(found))
