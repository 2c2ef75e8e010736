"""What does a column of a table hold, row by row?

Every kind of column becomes numbers, NaN where a cell is missing: numbers as they are, categories as positions in a list of words,
dates as seconds since 1970 (UTC), times as seconds of the day. A cell that doesn't fit its column is reported with its row, and
doesn't stop the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.core.text import shown

__all__ = [
    "MAX_LETTERS",
    "BadCell",
    "Cells",
    "Kind",
    "as_number",
    "as_seconds",
    "as_texts",
    "is_text",
    "plain_column",
    "read_cells",
    "recoded",
]

Kind = Literal["number", "boolean", "category", "date", "time"]

MAX_LETTERS = 10_000
"""A category may be as long as this."""

_WHOLE = 2**53  # beyond it float64 can't tell whole numbers apart
_LARGEST = float(np.finfo(np.float32).max)
_DATES = (datetime(1, 1, 2, tzinfo=UTC).timestamp(), datetime(9999, 12, 30, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class BadCell:
    """A cell, or a row as a whole (``column`` None), that can't be used; the first row is 0."""

    row: int
    column: str | None
    expected: str
    got: str

    def __str__(self) -> str:
        column = "" if self.column is None else f"column {self.column!r}, "
        return f"{column}row {self.row} (the first is 0): expected {self.expected}, got {self.got}"


@dataclass(frozen=True, eq=False)
class Cells:
    """One column: a number per row, NaN where it is missing or bad.

    Shapes:
        ``values`` is ``(rows,)``, float64; of a category positions in ``words``, which are sorted.
    """

    values: np.ndarray[Any, np.dtype[np.float64]]
    words: tuple[str, ...] = ()
    bad: tuple[BadCell, ...] = ()


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a categorical column as the values that it stands for."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds text, also as a dictionary."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def read_cells(column: pa.ChunkedArray, name: str, kind: Kind, missing: Collection[str], where: str) -> Cells:
    """Return the cells of one column, read as ``kind``.

    Args:
        missing: texts that mean that there is no value; an empty text always does.
        where: the file, for messages.

    Raises:
        DataError: the column's type can't be read as ``kind``.
    """
    held = column.type
    if pa.types.is_null(held):
        return Cells(np.full(len(column), np.nan))
    if kind == "category":
        return _categories(column, name, missing, where)
    if is_text(held):
        return _parsed(column, name, kind, missing)
    column = plain_column(column)
    held = column.type
    if kind in ("number", "boolean"):
        if pa.types.is_boolean(held):
            return Cells(_doubles(column.cast(pa.uint8())))
        if pa.types.is_decimal(held) or pa.types.is_integer(held) or pa.types.is_floating(held):
            return _numbers(column, name, kind)
    elif kind == "date" and (pa.types.is_timestamp(held) or pa.types.is_date(held)):
        return _dates(column, name)
    elif kind == "time" and pa.types.is_time(held):
        return Cells(_doubles(column.cast(pa.time64("us")).cast(pa.int64())) / 1e6)
    wanted = {"number": "numbers", "boolean": "true or false", "date": "dates", "time": "times of the day"}[kind]
    raise DataError(
        f"{where}: column {name!r}: expected {wanted}, got {held}; convert it, or leave it out (data.ignore: [{name}])"
    )


def _doubles(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.asarray(pc.fill_null(column.cast(pa.float64(), safe=False), math.nan).to_numpy())


def _numbers(column: pa.ChunkedArray, name: str, kind: Kind) -> Cells:
    values = _doubles(column)
    limit, expected = _LARGEST, "a finite number that float32 can hold"
    if pa.types.is_integer(column.type):
        limit, expected = _WHOLE - 1, "a whole number below 2**53 (beyond it inputs can't be told apart)"
    if kind == "boolean":
        outside = ~np.isnan(values) & (values != 0) & (values != 1)
        expected = "true or false"
    else:
        outside = np.abs(values) > limit
    rows = np.flatnonzero(outside)
    bad = tuple(BadCell(int(row), name, expected, str(column[int(row)].as_py())) for row in rows)
    return Cells(np.where(outside, np.nan, values), bad=bad)


def _dates(column: pa.ChunkedArray, name: str) -> Cells:
    kind = pa.timestamp("us", tz=getattr(column.type, "tz", None))
    try:
        values = _doubles(column.cast(kind, safe=False).cast(pa.int64())) / 1e6
    except pa.ArrowException:
        values = np.full(len(column), np.inf)
    outside = (values < _DATES[0]) | (values > _DATES[1])
    bad = tuple(
        BadCell(int(row), name, "a date in the years 1 to 9999", shown(column[int(row)].cast(pa.int64()).as_py()))
        for row in np.flatnonzero(outside)
    )
    return Cells(np.where(outside, np.nan, values), bad=bad)


def as_number(text: str) -> float | None:
    """Return the number that a text is, or None.

    >>> as_number(" 2.5 "), as_number("1_000"), as_number("nan"), as_number("x")
    (2.5, None, nan, None)
    """
    if len(text) > 400 or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def as_seconds(text: str) -> float | None:
    """Return the seconds since 1970 of a date as ISO 8601 writes it (UTC where no zone is said), or None.

    >>> as_seconds("1970-01-02"), as_seconds("1970-01-01T01:00:00+01:00"), as_seconds("1/2/1970"), as_seconds("19700102")
    (86400.0, 0.0, None, None)
    """
    text = text.strip()
    if len(text) > 40 or text[4:5] != "-":
        return None
    try:
        moment = datetime.fromisoformat(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if _DATES[0] <= seconds <= _DATES[1] else None


def _as_time(text: str) -> float | None:
    try:
        found = time.fromisoformat(text.strip()) if ":" in text[:40] and len(text) <= 40 else None
    except ValueError:
        return None
    return None if found is None else found.hour * 3600 + found.minute * 60 + found.second + found.microsecond / 1e6


def _as_usable_number(text: str) -> float | None:
    number = as_number(text)
    return None if number is None or abs(number) > _LARGEST else number


def _as_boolean(text: str) -> float | None:
    return {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}.get(text.strip().lower())


_PARSERS: dict[str, tuple[Callable[[str], float | None], str]] = {
    "number": (_as_usable_number, "a finite number"),
    "boolean": (_as_boolean, "true or false"),
    "date": (as_seconds, "a date like 2024-05-31 or 2024-05-31T18:00:00+02:00"),
    "time": (_as_time, "a time like 18:30:00"),
}


def _parsed(column: pa.ChunkedArray, name: str, kind: Kind, missing: Collection[str]) -> Cells:
    """Return what texts stand for; each different one is looked at once."""
    codes, words = _coded(column)
    read, expected = _PARSERS[kind]
    values = np.full(len(words) + 1, np.nan)  # the last is for no text at all
    fits = np.ones(len(words) + 1, dtype=bool)
    for number, word in enumerate(words):
        if word.strip() == "" or word in missing:
            continue
        found = read(word)
        fits[number] = found is not None
        values[number] = np.nan if found is None else found
    bad = tuple(BadCell(int(row), name, expected, shown(words[codes[row]])) for row in np.flatnonzero(~fits[codes]))
    return Cells(values[codes], bad=bad)


def _coded(column: pa.ChunkedArray) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Return the place of each row's text in a list of all different ones; -1 where there is none."""
    whole = plain_column(column).combine_chunks()
    coded = (whole.cast(pa.large_string()) if pa.types.is_string_view(whole.type) else whole).dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    codes = np.asarray(pc.fill_null(coded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False))
    return codes, coded.dictionary.to_pylist()


def _categories(column: pa.ChunkedArray, name: str, missing: Collection[str], where: str) -> Cells:
    codes, words = _coded(column if is_text(column.type) else as_texts(column, name, where))
    usable = [word for word in words if word != "" and word not in missing and len(word) <= MAX_LETTERS]
    order = {word: place for place, word in enumerate(sorted(usable))}
    places = np.array([float(order.get(word, math.nan)) for word in words] + [math.nan])
    long = np.array([len(word) > MAX_LETTERS for word in words] + [False])
    expected = f"a category of at most {MAX_LETTERS} letters"
    bad = tuple(
        BadCell(int(row), name, expected, f"{len(words[codes[row]])} letters") for row in np.flatnonzero(long[codes])
    )
    return Cells(places[codes], tuple(order), bad)


def as_texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """Return values as texts: whole numbers without a point, whether or not their column could hold fractions."""
    column = plain_column(column)
    if pa.types.is_floating(column.type):
        values = column.to_numpy()
        column = pa.chunked_array([pa.array(values, mask=np.isnan(values))])
        with np.errstate(invalid="ignore"):
            whole = bool((np.isnan(values) | ((values == np.round(values)) & (np.abs(values) < _WHOLE))).all())
        column = column.cast(pa.int64()) if whole else column
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"{where}: column {name!r}: expected values that can be written as text, got {column.type}; convert it, or leave it "
            f"out (data.ignore: [{name}])"
        ) from error


def recoded(cells: Cells, words: tuple[str, ...]) -> Cells:
    """Return a category's cells as positions in a longer list of words."""
    places = np.array([*map({word: place for place, word in enumerate(words)}.__getitem__, cells.words), math.nan])
    codes = np.where(np.isnan(cells.values), len(cells.words), cells.values).astype(np.int64)
    return replace(cells, values=places[codes].astype(np.float64), words=words)
