"""What is a column that nobody described: a number, a category, a date, or a name for the rows?

Looked at is the whole column, never the labels. What isn't taken as a feature is said, and ``data.kinds`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.core.text import shown
from prunus.data.columns.cells import Kind, as_number, as_seconds, is_text, plain_column

__all__ = ["FEW_WORDS", "Guess", "Look", "guess_kind"]

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
    look = Look(column.type, name, missing, where)
    look.add(column)
    return look.guess(lambda: int(pc.count_distinct(plain_column(column)).as_py()))


class Look:
    """A column that passes by, a few rows at a time, for :func:`guess_kind` of them all.

    Args:
        most_words: so many different texts are remembered; with more, it is refused.

    Raises:
        DataError: there are more.
    """

    def __init__(
        self, held: pa.DataType, name: str, missing: Collection[str], where: str, *, most_words: int | None = None
    ) -> None:
        self.held = held.value_type if pa.types.is_dictionary(held) else held
        self.name, self.missing, self.where, self.most_words = name, missing, where, most_words
        self.n = self.n_null = 0
        self.counts: dict[str | None, int] = {}
        self.stray: tuple[str, int] | None = None
        self.low: int | None = None
        self.high: int | None = None

    def add(self, column: pa.ChunkedArray) -> None:
        """Look at some more rows."""
        if is_text(self.held):
            self._add_texts(column)
        elif pa.types.is_integer(self.held):
            low, high = (bound.as_py() for bound in pc.min_max(plain_column(column)).values())
            if low is not None:
                self.low = low if self.low is None else min(low, self.low)
                self.high = high if self.high is None else max(high, self.high)
        self.n += len(column)
        self.n_null += column.null_count

    def _add_texts(self, column: pa.ChunkedArray) -> None:
        plain = plain_column(column)
        counted = pc.value_counts(plain.combine_chunks())
        for text, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
            if text not in self.counts and self.stray is None and self._means(text) and as_number(text) is None:
                self.stray = text, self.n + int(pc.index(plain, text).as_py())
            self.counts[text] = self.counts.get(text, 0) + count
        if self.most_words is not None and len(self.counts) > self.most_words:
            raise DataError(
                f"{self.where}: column {self.name!r} has more than {self.most_words} different texts, which aren't held where data "
                f"are read from disk: leave it out (data.ignore: [{self.name}]), or set data.in_memory: true"
            )

    def _means(self, text: str | None) -> bool:
        return text is not None and text != "" and text not in self.missing

    def words(self) -> list[str]:
        """Return the different texts that mean something, in the order in which they came."""
        return [text for text in self.counts if text is not None and self._means(text)]

    def guess(self, n_distinct: Callable[[], int]) -> Guess:
        """Return what the column is; ``n_distinct`` counts its different values, where it has to be known."""
        held, name = self.held, self.name
        if is_text(held):
            return self._text()
        if pa.types.is_null(held) or self.n_null == self.n:
            return Guess(None, f"column {name!r} is empty: left out")
        if pa.types.is_boolean(held):
            return Guess("boolean")
        if pa.types.is_integer(held):
            return self._whole(n_distinct)
        if pa.types.is_floating(held) or pa.types.is_decimal(held):
            return Guess("number")
        if pa.types.is_timestamp(held) or pa.types.is_date(held):
            return Guess(
                "date", f"column {name!r} holds dates: the model gets the days and where in year, week and day they lie"
            )
        if pa.types.is_time(held):
            return Guess("time")
        raise DataError(
            f"{self.where}: column {name!r}: expected numbers, text, dates or true and false, got {held}; convert it, or leave it "
            f"out (data.ignore: [{name}])"
        )

    def _whole(self, n_distinct: Callable[[], int]) -> Guess:
        """Whole numbers that count the rows, or that are all different and too large to calculate with, name them."""
        name, n = self.name, self.n
        assert self.low is not None
        assert self.high is not None
        counts = self.high - self.low == n - 1
        if n <= FEW_WORDS or self.n_null or not (counts or max(abs(self.low), abs(self.high)) > 2**53):
            return Guess("number")
        if n_distinct() != n:
            return Guess("number")
        what = f"counts the rows ({self.low} to {self.high})" if counts else "has another huge number in every row"
        return Guess(
            None, f"column {name!r} {what}: left out as an identifier; data.kinds: {{{name}: number}} takes it"
        )

    def _text(self) -> Guess:
        name, words = self.name, self.words()
        n_rows = sum(self.counts[word] for word in words)
        if not words:
            return Guess(None, f"column {name!r} is empty: left out")
        if len(words) > FEW_WORDS or any(text in self.missing for text in self.counts):
            numbers = sum(as_number(word) is not None for word in words)
            if numbers == len(words):
                return Guess(
                    "number",
                    f"column {name!r} holds numbers as text and is read as numbers; data.kinds: {{{name}: category}} if they are "
                    "names",
                )
        self._refuse_stray(words)
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
                None,
                f"column {name!r} {what}: left out as a name or free text; data.kinds: {{{name}: category}} takes it",
            )
        return Guess("category")

    def _refuse_stray(self, words: list[str]) -> None:
        """A column of numbers with a few stray words is a mistake, not a category."""
        n_strange = sum(as_number(word) is None for word in words)
        if len(words) > 3 and 0 < n_strange <= len(words) // 4:
            assert self.stray is not None
            first, row = self.stray
            raise DataError(
                f"{self.where}: column {self.name!r}, row {row} (the first is 0): expected a number as in most rows, got "
                f"{shown(first)}; if it means that there is none, data.missing: [{shown(first)}]; if the column holds names, "
                f"data.kinds: {{{self.name}: category}}"
            )
