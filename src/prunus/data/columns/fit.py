"""What do the training rows say about the columns of a table, and what should their owner know?

Fitted are the median that stands for a missing value, the categories that have a feature of their own, the quantiles and the
middle of dates. Nothing of validation, calibration or test is looked at but for the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunus.data.columns.cells import Kind
from prunus.data.columns.fitted import CategoryColumn, Columns, DateColumn, FittedColumn, NumberColumn
from prunus.data.columns.summary import ColumnSummary, Read, summarise

__all__ = ["MOST_CATEGORIES", "SHARED", "TableFacts", "column_notes", "columns_of", "fit_parts", "strange_notes"]

Array = np.ndarray[Any, Any]

MOST_CATEGORIES = 50
"""The most frequent categories of a column that have a feature each."""

SHARED = 32
"""How many features the other categories share, where they are more than ``MOST_CATEGORIES``; fewer share one."""

_QUANTILES = 100


@dataclass(frozen=True)
class TableFacts:
    """What a table's numbers stand for: the kinds of its columns in order, and the words of each category.

    ``wide``: float32 can't tell its numbers apart. ``spread``: columns that become quantiles. ``target`` is the column that it was
    read from, ``no_value`` the texts that mean that a cell is missing. ``notes`` say what was inferred of the columns.
    """

    kinds: Mapping[str, Kind]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    wide: bool = False
    spread: frozenset[str] = frozenset()
    target: str = ""
    no_value: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def fit_parts(parts: Mapping[str, Read], facts: TableFacts) -> tuple[Columns, tuple[str, ...]]:
    """Return the columns as the part ``train`` says that they are to be encoded, and what a user should know of the fit.

    Raises:
        ValueError: two features would have one name.
    """
    found = summarise(parts, facts.kinds, facts.words, facts.spread)
    columns = columns_of(found["train"], facts)
    return columns, column_notes(columns, facts, found)


def columns_of(train: Sequence[ColumnSummary], facts: TableFacts) -> Columns:
    """Return the columns as what is known of the training rows says.

    Raises:
        ValueError: two features would have one name.
    """
    fits: dict[str, Callable[..., FittedColumn]] = {"category": _category, "date": _date, "time": _date}
    return Columns(
        columns=tuple(
            fits.get(kind, _number)(name, kind, one, facts)
            for one, (name, kind) in zip(train, facts.kinds.items(), strict=True)
        ),
        no_value=facts.no_value,
    )


def _number(name: str, kind: Kind, train: ColumnSummary, facts: TableFacts) -> NumberColumn:
    fill = float(np.mean(train.middle))
    quantiles: tuple[float, ...] = ()
    if name in facts.spread and train.low < train.high:
        shares = np.linspace(0, 1, min(_QUANTILES, train.n_present))
        quantiles = tuple(np.maximum.accumulate(np.quantile(train.present, shares)).tolist())
    if kind == "boolean":
        fill = float(fill >= 0.5)
    return NumberColumn(
        name=name,
        kind="boolean" if kind == "boolean" else "number",
        fill=fill,
        missing=train.n_missing > 0,
        quantiles=quantiles,
    )


def _category(name: str, kind: Kind, train: ColumnSummary, facts: TableFacts) -> CategoryColumn:
    words, counts = facts.words[name], train.counts
    assert counts is not None
    seen = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]]
    n_others = len(seen[MOST_CATEGORIES:])
    return CategoryColumn(
        name=name,
        kind="category",
        categories=tuple(words[place] for place in sorted(seen[:MOST_CATEGORIES])),
        others=SHARED if n_others > MOST_CATEGORIES else min(n_others, 1),
        missing=train.n_missing > 0,
    )


def _date(name: str, kind: Kind, train: ColumnSummary, facts: TableFacts) -> DateColumn:
    hours = train.hours
    return DateColumn(
        name=name,
        kind="time" if kind == "time" else "date",
        fill=train.middle[0],
        missing=train.n_missing > 0,
        parts=("day",) if kind == "time" else ("days", "year", "week", "day") if hours else ("days", "year", "week"),
    )


def column_notes(columns: Columns, facts: TableFacts, parts: Mapping[str, Sequence[ColumnSummary]]) -> tuple[str, ...]:
    """Return what a user should know of the fit: what is missing, shared, unseen or constant, in a line per column.

    Args:
        parts: what is known of the rows of every part, ``train`` among them.
    """
    notes = list(facts.notes)
    for place, column in enumerate(columns.columns):
        cells = {part: found[place] for part, found in parts.items()}
        notes += [
            f"column {column.name!r} {said}"
            for said in (
                _missing_note(column, cells),
                _shared_note(column, cells["train"]),
                _unseen_note(column, cells, facts),
                _constant_note(column, cells["train"]),
            )
            if said
        ]
    return tuple(notes)


def _missing_note(column: FittedColumn, cells: Mapping[str, ColumnSummary]) -> str:
    absent = {part: found.n_missing for part, found in cells.items()}
    n = sum(absent.values())
    if not n:
        return ""
    filled = "" if isinstance(column, CategoryColumn) else f"filled with the training's median {_said(column)}, and "
    if column.missing:
        what = f"a feature of its own ({column.feature_names[-1]!r}) says where"
        n_all = sum(found.n for found in cells.values())
        return f"has no value in {n} of {n_all} rows ({absent['train']} of train): {filled}{what}"
    if isinstance(column, CategoryColumn):
        filled = "such rows are in none of its categories, and "
    return f"has no value in {n} rows outside of train, and in none of train: {filled}predict refuses such rows"


def _said(column: NumberColumn | DateColumn) -> str:
    if isinstance(column, NumberColumn):
        return f"{column.fill:g}"
    moment = str(np.datetime64(int(column.fill), "s"))
    return moment[11:] if column.kind == "time" else moment.removesuffix("T00:00:00")


def _shared_note(column: FittedColumn, train: ColumnSummary) -> str:
    if not isinstance(column, CategoryColumn) or not column.others:
        return ""
    shared = "share one feature" if column.others == 1 else f"share {column.others} features, by a hash"
    return (
        f"has {train.n_words} categories in train: the {len(column.categories)} most frequent have a feature each, the "
        f"others {shared}"
    )


def _unseen_note(column: FittedColumn, cells: Mapping[str, ColumnSummary], facts: TableFacts) -> str:
    n = sum(found.unseen for found in cells.values())
    if not isinstance(column, CategoryColumn) or not n:
        return ""
    first = facts.words[column.name][next(found.first_unseen for found in cells.values() if found.unseen)]
    counts = "they count among the others" if column.others else "they are in none of its categories"
    return f"has values in {n} rows outside of train that train never has, like {first[:40]!r}: {counts}"


def _constant_note(column: FittedColumn, train: ColumnSummary) -> str:
    if not train.constant:
        return ""
    return f"has one value in all of train and tells the model nothing; data.ignore: [{column.name}] leaves it out"


def strange_notes(columns: Columns, values: Array, words: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return what rows of another table hold that training never saw, and what the model gets instead, in a line per column."""
    notes = []
    for place, column in enumerate(columns.columns):
        gaps = int(np.isnan(values[:, place]).sum())
        if gaps and not column.missing:
            instead = "are in none of its categories" if isinstance(column, CategoryColumn) else f"get {_said(column)}"
            notes.append(
                f"column {column.name!r}: {_rows(gaps)} no value, which no training row lacked: they {instead}"
            )
        if isinstance(column, CategoryColumn) and not column.others:
            new = [number for number, word in enumerate(words.get(column.name, ())) if column.place(word) is None]
            odd = values[np.isin(values[:, place], new), place]
            if len(odd):
                like = words[column.name][int(odd[0])][:40]
                what = f"{_rows(len(odd))} a value that training never saw, like {like!r}: it counts as none of its categories"
                notes.append(f"column {column.name!r}: {what}")
    return tuple(notes)


def _rows(n: int) -> str:
    return "1 row has" if n == 1 else f"{n} rows have"
