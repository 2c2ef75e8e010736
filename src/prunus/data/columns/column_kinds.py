"""What is a column that nobody described: a number, a category, a date, or a name for the rows?

Looked at is the whole column, never the labels. What isn't taken as a feature is said, and ``data.kinds`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.core.text import shown
from prunus.data.columns.cells import Kind, as_number, as_seconds, is_text, plain_column

__all__ = ["FEW_WORDS", "Guess", "guess_kind"]

FEW_WORDS = 50
"""Text with at most so many different values is a category, however seldom one comes up."""
_LOOKED_AT, _SENTENCE = 1000, 4
"""Texts of so many words and more, on average, are sentences: a whole one is no category."""


@dataclass(frozen=True)
class Guess:
    """What a column is; None: it is left out. ``note`` says what a user should know."""

    kind: Kind | None
    note: str = ""


def guess_kind(column: pa.ChunkedArray, name: str, missing: Collection[str], where: str) -> Guess:
    """Return what a column is.

    Raises:
        DataError: it is a list or something else that no column of features is, or numbers with a few stray words.
    """
    held = plain_column(column).type
    if is_text(held):
        return _guess_text(column, name, missing, where)
    if pa.types.is_null(held) or column.null_count == len(column):
        return Guess(None, f"column {name!r} is empty: left out")
    if pa.types.is_boolean(held):
        return Guess("boolean")
    if pa.types.is_integer(held):
        return _guess_whole(plain_column(column), name)
    if pa.types.is_floating(held) or pa.types.is_decimal(held):
        return Guess("number")
    if pa.types.is_timestamp(held) or pa.types.is_date(held):
        return Guess(
            "date", f"column {name!r} holds dates: the model gets the days and where in year, week and day they lie"
        )
    if pa.types.is_time(held):
        return Guess("time")
    raise DataError(
        f"{where}: column {name!r}: expected numbers, text, dates or true and false, got {held}; convert it, or leave it out "
        f"(data.ignore: [{name}])"
    )


def _guess_whole(column: pa.ChunkedArray, name: str) -> Guess:
    """Whole numbers that count the rows, or that are all different and too large to calculate with, name them."""
    n = len(column)
    if n <= FEW_WORDS or column.null_count or pc.count_distinct(column).as_py() != n:
        return Guess("number")
    low, high = (bound.as_py() for bound in pc.min_max(column).values())
    if high - low != n - 1 and max(abs(low), abs(high)) <= 2**53:
        return Guess("number")
    what = f"counts the rows ({low} to {high})" if high - low == n - 1 else "has another huge number in every row"
    return Guess(None, f"column {name!r} {what}: left out as an identifier; data.kinds: {{{name}: number}} takes it")


def _guess_text(column: pa.ChunkedArray, name: str, missing: Collection[str], where: str) -> Guess:
    counted = pc.value_counts(plain_column(column).combine_chunks())
    values, counts = counted.field(0), counted.field(1)
    texts = values.to_pylist()
    words = [text for text in texts if text is not None and text != "" and text not in missing]
    n_rows = int(np.asarray(counts)[[text is not None and text != "" and text not in missing for text in texts]].sum())
    if not words:
        return Guess(None, f"column {name!r} is empty: left out")
    if len(words) > FEW_WORDS or any(text in missing for text in texts):
        numbers = sum(as_number(word) is not None for word in words)
        if numbers == len(words):
            return Guess(
                "number",
                f"column {name!r} holds numbers as text and is read as numbers; data.kinds: {{{name}: category}} if they are names",
            )
    _refuse_stray(words, column, name, where)
    if all(as_seconds(word) is not None for word in words):
        return Guess("date", f"column {name!r} holds dates as text and is read as dates")
    if len(words) > FEW_WORDS and n_rows < 2 * len(words):
        what = (
            f"has another text in each of its {n_rows} rows"
            if n_rows == len(words)
            else f"has {len(words)} different texts in {n_rows} rows"
        )
        n_words = np.mean([len(word.split()) for word in words[:_LOOKED_AT]])
        if n_words >= _SENTENCE:
            return Guess(
                None,
                f"column {name!r} holds sentences ({what}, {n_words:.0f} words each): left out, since columns are numbers and "
                "categories; give their token ids to a model of your own, ModelOptimizer(model, (ids, labels))",
            )
        return Guess(
            None, f"column {name!r} {what}: left out as a name or free text; data.kinds: {{{name}: category}} takes it"
        )
    return Guess("category")


def _refuse_stray(words: list[str], column: pa.ChunkedArray, name: str, where: str) -> None:
    """A column of numbers with a few stray words is a mistake, not a category."""
    strange = [word for word in words if as_number(word) is None]
    if len(words) > 3 and 0 < len(strange) <= len(words) // 4:
        first = min(strange, key=lambda word: pc.index(plain_column(column), word).as_py())
        row = pc.index(plain_column(column), first).as_py()
        raise DataError(
            f"{where}: column {name!r}, row {row} (the first is 0): expected a number as in most rows, got {shown(first)}; if it "
            f"means that there is none, data.missing: [{shown(first)}]; if the column holds names, data.kinds: {{{name}: category}}"
        )
