"""What are the columns of a table that is read a few rows at a time, and what do its categories stand for?

One pass over those columns whose type doesn't tell it: texts, and whole numbers that may only name the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prunus.core.errors import DataError
from prunus.core.recipes.recipe import Data
from prunus.data.columns.cells import MAX_LETTERS, BadCell, Cells, Kind, as_texts, is_text, plain_column
from prunus.data.columns.column_kinds import Guess, Look
from prunus.data.large.sorted_buckets import SortedBuckets, digest_of_rows
from prunus.data.sources.tables import chosen_columns

__all__ = ["Categories", "Chunks", "look_at_columns"]

Chunks = Callable[[Sequence[str]], Iterator[tuple[Any, pa.RecordBatch]]]
"""Yields the labelled rows, some columns of them, a few at a time, with their numbers in the files."""

MOST_WORDS = 1 << 20
"""A column may have so many different texts: they are held."""


class Categories:
    """How a category's values become positions among its words, as :func:`prunus.data.columns.cells.read_cells` has them."""

    def __init__(self, values: pa.Array, name: str, missing: Sequence[str], where: str) -> None:
        self.name, self.values = name, values
        texts = values if is_text(values.type) else as_texts(pa.chunked_array([values]), name, where)
        words = texts.to_pylist()
        usable = {word for word in words if word not in ("", *missing) and len(word) <= MAX_LETTERS}
        self.words: tuple[str, ...] = tuple(sorted(usable))
        order = {word: float(place) for place, word in enumerate(self.words)}
        self._places = np.array([*(order.get(word, np.nan) for word in words), np.nan])
        self._letters = np.array([*(len(word) if len(word) > MAX_LETTERS else 0 for word in words), 0])

    def read(self, column: pa.ChunkedArray) -> Cells:
        """Return the cells of some rows."""
        if pa.types.is_null(column.type):
            return Cells(np.full(len(column), np.nan))
        found = pc.index_in(plain_column(column).cast(self.values.type), value_set=self.values)
        codes = np.asarray(pc.fill_null(found, -1).to_numpy())
        expected = f"a category of at most {MAX_LETTERS} letters"
        long = np.flatnonzero(self._letters[codes])
        bad = tuple(BadCell(int(row), self.name, expected, f"{self._letters[codes[row]]} letters") for row in long)
        return Cells(self._places[codes], self.words, bad)


def look_at_columns(
    chunks: Chunks, schema: pa.Schema, target: str, config: Data, path: Path
) -> tuple[dict[str, Kind], list[str], dict[str, Categories]]:
    """Return what each column is that becomes features, what is to be said of that, and how its categories are read.

    Raises:
        DataError: a column isn't there or can't be a feature, or has more different texts than are held.
    """
    looks: dict[str, Look] = {}
    values: dict[str, pa.Array] = {}
    for field in schema:
        kind = config.kinds.get(field.name)
        if kind == "category" and not pa.types.is_null(field.type):
            values[field.name] = pa.array([], _comparable_type(field.type))
        elif kind is None and field.name != target and field.name not in config.ignore:
            looks[field.name] = Look(field.type, field.name, config.missing, str(path), most_words=MOST_WORDS)
    for _, batch in chunks([*looks, *values]):
        for name, look in looks.items():
            look.add(pa.chunked_array([batch.column(name)]))
        for name in values:
            values[name] = _more(values[name], batch.column(name), name, path)

    def guess(name: str) -> Guess:
        return looks[name].guess(lambda: _count_distinct(chunks, name, looks[name].n))

    kinds, notes = chosen_columns(schema.names, target, config, path, guess)
    categories: dict[str, Categories] = {}
    for name, kind in kinds.items():
        if kind == "category":
            held = values.get(name, pa.array([], pa.string()))
            words = (
                held if name not in looks else pa.array(looks[name].words(), _comparable_type(schema.field(name).type))
            )
            categories[name] = Categories(words, name, config.missing, str(path))
    return kinds, notes, categories


def _more(held: pa.Array, column: pa.Array, name: str, path: Path) -> pa.Array:
    """Return the different values, in the order in which they came, with those of some more rows."""
    plain = plain_column(pa.chunked_array([column])).cast(held.type)
    found = pc.unique(plain).drop_null()
    if pa.types.is_floating(found.type):
        found = found.filter(pc.invert(pc.is_nan(found)))
    new = found.filter(pc.invert(pc.is_in(found, value_set=held)))
    if len(held) + len(new) > MOST_WORDS:
        raise DataError(
            f"{path}: column {name!r} has more than {MOST_WORDS} different values, which aren't held where data come from disk: "
            f"leave it out (data.ignore: [{name}]), or set data.in_memory: true"
        )
    return pa.concat_arrays([held, new]) if len(new) else held


def _comparable_type(held: pa.DataType) -> pa.DataType:
    held = held.value_type if pa.types.is_dictionary(held) else held
    return pa.large_string() if is_text(held) else held


def _count_distinct(chunks: Chunks, name: str, n_rows: int) -> int:
    """Return how many different whole numbers a column has, of which it has all between two, or only huge ones."""
    with SortedBuckets(n_rows, ()) as seen:
        for _, batch in chunks([name]):
            column = np.asarray(batch.column(name).cast(pa.int64(), safe=False).to_numpy())
            seen.add(digest_of_rows(column[:, None]))
        return seen.n_keys()
