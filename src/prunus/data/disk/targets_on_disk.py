"""Which class number or value does each row have, where not even the labels are held in memory?

To the same rules as :mod:`prunus.data.sources.targets`, which says what is wrong where something is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data.columns.cells import MAX_LETTERS, as_number, is_text, plain_column
from prunus.data.disk.raw_files import RawFile, RawFolder
from prunus.data.sources.exact_floats import rounding_shows
from prunus.data.sources.targets import FEW_REPEATS, MANY_VALUES, Targets, read_targets

__all__ = ["TargetColumn"]

Array = np.ndarray[Any, Any]

_AT_ONCE = 1 << 16
_LARGEST_CLASS = 2**53
_MOST_CLASSES = 1 << 20


class TargetColumn:
    """The label's column, row by row; ``raw`` and ``final`` are the files that it is kept in."""

    def __init__(self, held: pa.DataType, name: str, config: Data, path: Path, folder: RawFolder) -> None:
        self._name, self._config, self._path = name, config, path
        self._text = is_text(held)
        held = held.value_type if pa.types.is_dictionary(held) else held
        plain = pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_boolean(held)
        if not (self._text or plain or pa.types.is_decimal(held)):
            raise DataError(f"{path}: {name!r}: expected numbers or text as targets, got {held}; convert them")
        self._decimal = pa.types.is_decimal(held)
        kind = np.int64 if self._text else np.float64 if self._decimal else np.dtype(held.to_pandas_dtype())
        self._raw = folder.file("raw_targets.bin", kind)
        self._folder = folder
        self._codes: dict[str, int] = {}

    def add(self, column: pa.ChunkedArray) -> None:
        """Keep the labels of some more rows."""
        column = plain_column(column)
        if not self._text:
            self._raw.append(np.asarray((column.cast(pa.float64()) if self._decimal else column).to_numpy()))
            return
        coded = column.combine_chunks().cast(pa.large_string()).dictionary_encode()
        words = coded.dictionary.to_pylist()
        long = next((word for word in words if len(word) > MAX_LETTERS), None)
        if long is not None:
            row = self._raw.n + int(pc.index(column, long).as_py())
            raise DataError(
                f"{self._path}: {self._name!r}, row {row} (the first is 0): a label has at most {MAX_LETTERS} letters, got "
                f"{len(long)}; shorten it, or name another column (data.target)"
            )
        codes = np.array([self._codes.setdefault(word, len(self._codes)) for word in words] or [0], np.int64)
        if len(self._codes) > _MOST_CLASSES:
            raise DataError(
                f"{self._path}: {self._name!r} has more than {_MOST_CLASSES} different texts: is it the right column (data.target)?"
            )
        self._raw.append(codes[np.asarray(coded.indices.to_numpy())])

    def finish(self) -> tuple[Targets, str, RawFile]:
        """Return the targets, which letter their labels' kind has, and the file that holds them.

        Raises:
            DataError: they can't be used.
        """
        with self._raw:
            raw = self._raw.mapped()
        if not self._text:
            return self._numbers(raw, None)
        words = list(self._codes)
        numbers = [as_number(word) for word in words] if self._config.missing else [None]
        if None not in numbers:
            return self._numbers(raw, np.array(words).astype(np.float64))
        made = self._whole(np.array(words))
        table = made.values.numpy()
        return self._written(made, "U", (table[codes] for codes in _pieces(raw)), np.int64)

    def _whole(self, raw: Array) -> Targets:
        config = self._config
        return read_targets(raw, task=config.task, name=config.source, column=self._name)

    def _written(self, made: Targets, letter: str, pieces: Iterator[Array], dtype: Any) -> tuple[Targets, str, RawFile]:
        with self._folder.file("targets.bin", dtype) as final:
            for piece in pieces:
                final.append(piece)
            self._raw.path.unlink()
            return Targets(torch.from_numpy(final.mapped()), made.task, made.class_names), letter, final

    def _numbers(self, raw: Array, table: Array | None) -> tuple[Targets, str, RawFile]:
        """Return numbers as targets; with ``table``, ``raw`` are places in it."""

        def pieces() -> Iterator[Array]:
            yield from (piece if table is None else table[piece] for piece in _pieces(raw))

        dtype = raw.dtype if table is None else table.dtype
        seen = _Seen(pieces(), len(raw))
        task = self._config.task if self._config.task != "auto" else seen.guess(dtype.kind)
        sound = seen.finite and task in ("classification", "regression")
        if task == "regression":
            sound = sound and dtype.kind != "b" and seen.low < seen.high and seen.fits_single
            if sound and not seen.exact:
                sound = not rounding_shows((piece.astype(np.float64)[:, None] for piece in pieces()), len(raw))
        else:
            sound = sound and seen.values is not None and len(seen.values) > 1
            sound = sound and (dtype.kind == "b" or (seen.whole and seen.low >= 0 and seen.high <= _LARGEST_CLASS))
        if not sound:
            return self._whole(raw if table is None else table[raw]), dtype.kind, self._raw  # says what is wrong
        if task == "regression":
            made = Targets(None, "regression", ())  # type: ignore[arg-type]
            return self._written(made, dtype.kind, (piece.astype(np.float32) for piece in pieces()), np.float32)
        values = seen.values
        assert values is not None
        names = tuple(str(bool(v)) if dtype.kind == "b" else str(int(v)) for v in values)
        made = Targets(None, "classification", names)  # type: ignore[arg-type]
        return self._written(made, dtype.kind, (np.searchsorted(values, piece) for piece in pieces()), np.int64)


def _pieces(array: Array) -> Iterator[Array]:
    for start in range(0, len(array), _AT_ONCE):
        yield array[start : start + _AT_ONCE]


class _Seen:
    """What numbers are like that pass by; ``values`` are the different ones, None where there are too many to be classes."""

    def __init__(self, pieces: Iterator[Array], n: int) -> None:
        self.n, self.finite, self.whole, self.exact, self.fits_single = n, True, True, True, True
        self.low, self.high = np.inf, -np.inf
        self.values: Array | None = None
        most = max(n // FEW_REPEATS, MANY_VALUES, _MOST_CLASSES)
        first = True
        for piece in pieces:
            fractional = piece.dtype.kind == "f"
            if fractional and not np.isfinite(piece).all():
                self.finite = False
                return
            self.whole &= not fractional or bool((piece == np.round(piece)).all())
            self.low, self.high = min(self.low, float(piece.min())), max(self.high, float(piece.max()))
            with np.errstate(over="ignore"):
                single = piece.astype(np.float32)
            self.exact &= bool((single == piece).all())
            self.fits_single &= bool(np.isfinite(single).all())
            if self.whole and (first or self.values is not None):
                values = np.unique(piece if self.values is None else np.concatenate([self.values, np.unique(piece)]))
                self.values = values if len(values) <= most else None
            else:
                self.values = None
            first = False

    def guess(self, kind: str) -> str:
        if kind == "b":
            return "classification"
        if not self.whole or self.values is None:
            return "regression"
        n_values = len(self.values)
        many = n_values > MANY_VALUES and self.n < FEW_REPEATS * n_values
        return "regression" if many else "classification"
