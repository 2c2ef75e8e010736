"""How does a table become a data set?

A column is a feature unless it is the target, ``id``, or left out. What it holds is read off it (``columns.column_kinds``) or said
in ``data.kinds``; the numbers that a model gets are fitted on the training rows, later. The column ``id``, where there is one,
names the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from prunus.core.errors import DataError, near
from prunus.core.files.expansion import check_expansion
from prunus.core.recipes.recipe import Data
from prunus.core.text import shown
from prunus.core.types import Bools
from prunus.data.columns.cells import (
    MAX_LETTERS,
    BadCell,
    Cells,
    Kind,
    as_number,
    is_text,
    plain_column,
    read_cells,
    recoded,
)
from prunus.data.columns.column_kinds import Guess, guess_kind
from prunus.data.columns.fit import TableFacts
from prunus.data.columns.fitted import Columns
from prunus.data.sources.arrays import find_target
from prunus.data.sources.exact_floats import narrowed
from prunus.data.sources.formats import add_reader
from prunus.data.sources.source import ArraySource, Rows, check_ids
from prunus.data.sources.table_rows import ID, read_rows
from prunus.data.sources.targets import read_targets

__all__ = [
    "LARGEST_CODE",
    "add_table_reader",
    "arrow_text",
    "bad_cells",
    "beside_values",
    "check_names",
    "chosen_columns",
    "label_note",
    "labelled_rows",
    "lacks_label",
    "open_table",
    "row_ids",
    "same_words",
    "target_column",
]

LARGEST_CODE = 2**24  # float32 holds every whole number up to here

ReadTable = Callable[[Path, Mapping[str, Any]], pa.Table]
ReadSome = Callable[[Path, Mapping[str, Any], Collection[str], Collection[str]], tuple[pa.Table, dict[int, str]]]


def add_table_reader(
    ending: str,
    read: ReadTable,
    *,
    holds: str,
    arguments: tuple[str, ...] = (),
    read_some: ReadSome | None = None,
) -> None:
    """Register what reads files with this ending as a table: ``read(path, data.args)`` returns it.

    Args:
        read_some: where a row can be damaged by itself: ``read_some(path, data.args, text, wanted)`` also returns what is wrong, by
            the number of the row. The columns ``text`` stay text, and the table is one that has the columns ``wanted``.
    """

    def table_of(
        path: Path, given: Mapping[str, Any], text: Collection[str], wanted: Collection[str] = ()
    ) -> tuple[pa.Table, dict[int, str]]:
        table, wrong = (read(path, given), {}) if read_some is None else read_some(path, given, text, wanted)
        return _checked(table, path), wrong

    def open_file(path: Path, config: Data) -> ArraySource:
        text = [name for name, kind in config.kinds.items() if kind == "category"]
        if not text:
            return open_table(_checked(read(path, config.args), path), path, config)
        table, wrong = table_of(path, config.args, text)
        if wrong:
            row, said = next(iter(wrong.items()))
            raise DataError(f"{path}: row {row} (the first is 0): {said}")
        return open_table(table, path, config)

    def rows(path: Path, columns: Columns | None, feature_names: Sequence[str], shape: tuple[int, ...]) -> Rows:
        text = [] if columns is None else [name for name, kind in columns.kinds.items() if kind == "category"]
        wanted = [name.partition("=")[0] for name in feature_names] if columns is None else columns.names
        table, wrong = table_of(path, {}, text, wanted)
        if columns is not None:
            return read_rows(table, columns, path, wrong=wrong)
        names = feature_names or _plain_columns(table.schema.names, shape, path)
        made, order = Columns.of_features(names, table.schema.names)
        return read_rows(table, made, path, wrong=wrong, order=order)

    add_reader(ending, holds=holds, open=open_file, rows=rows, arguments=arguments)


def _checked(table: pa.Table, path: Path) -> pa.Table:
    """Return the table if its columns can be told apart and it has rows."""
    check_names(table.schema.names, path)
    if table.num_rows == 0:
        raise DataError(f"{path}: expected at least one row, got an empty set")
    return table


def check_names(names: Sequence[str], path: Path) -> None:
    """Refuse columns that can't be told apart.

    Raises:
        DataError: one has no name, or another's.
    """
    seen: set[str] = set()
    for position, column in enumerate(names):
        if not column:
            raise DataError(f"{path}: column {position + 1} has no name; give it one (id, if it numbers the rows)")
        if column in seen:
            raise DataError(f"{path}: the column {shown(column)} is there twice; rename one")
        seen.add(column)


def _plain_columns(names: Sequence[str], shape: tuple[int, ...], where: Path) -> list[str]:
    """Return the columns for a model whose features have no names: all but ``id``, in order."""
    columns = [name for name in names if name != ID]
    if (len(columns),) != shape:
        raise DataError(
            f"{where}: the model needs inputs of shape {shape} and knows no column names, got {len(columns)} columns"
        )
    return columns


def arrow_text(error: Exception) -> str:
    """Return what Arrow says, in one short line."""
    return " ".join(str(error).split())[:200].rstrip(".")


def open_table(table: pa.Table, path: Path, config: Data) -> ArraySource:
    """Return the data set in a table: one number per column and row, as ``columns.cells`` has them, and what they stand for.

    Raises:
        DataError: a column can't be read, or nothing is left to learn from or to predict.
    """
    names = list(table.schema.names)
    target = target_column(names, config, path)
    ids = row_ids(table, path)
    table, labelled, notes = labelled_rows(table, target, config.missing, path)

    def guess(name: str) -> Guess:
        return guess_kind(table[name], name, config.missing, str(path))

    chosen, guessed = chosen_columns(names, target, config, path, guess)
    cells = {name: read_cells(table[name], name, kind, config.missing, str(path)) for name, kind in chosen.items()}
    for name, read in cells.items():
        if read.bad:
            raise bad_cells(replace(read.bad[0], row=int(labelled[read.bad[0].row])), len(read.bad), name, path)
    values, wide = _matrix(cells, chosen, str(path))
    raw = _target_values(table[target], config.missing, f"{path}: {target!r}")
    targets = read_targets(raw, task=config.task, name=config.source, column=target)
    facts = TableFacts(
        kinds=chosen,
        words={name: read.words for name, read in cells.items() if chosen[name] == "category"},
        wide=wide,
        spread=frozenset(name for name in chosen if config.kinds.get(name) == "quantile"),
        target=target,
        no_value=config.missing,
        notes=tuple(guessed),
    )
    return ArraySource(
        config.source,
        check_ids([ids[row] for row in labelled.tolist()], config.source),
        torch.from_numpy(values),
        targets.values,
        targets.task,
        targets.class_names,
        feature_names=tuple(chosen),
        label_kind=raw.dtype.kind,
        table=facts,
        beside={key: beside_values(table[name], name, key, config, path) for key, name in config.beside.items()},
        notes=tuple(notes),
    )


def target_column(names: list[str], config: Data, path: Path) -> str:
    """Return the name of the target's column, in a table that has all columns that are named.

    Raises:
        DataError: it hasn't.
    """
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise DataError(
            f"{path}: got one column {names[0]!r}, is it separated by another character? "
            'set data.args: {delimiter: ";"} or whichever it is'
        )
    target = find_target([name for name in names if name != ID], config.target, str(path), "column")
    for key, name in config.beside.items():
        if name not in names:
            raise DataError(f"{path}: there is no column {name!r} (data.{key}); {near(name, names)}")
    return target


def bad_cells(first: BadCell, n: int, name: str, path: Path) -> DataError:
    """Return what is to be said of a column with ``n`` cells that can't be used."""
    more = f" ({n} such rows)" if n > 1 else ""
    return DataError(f"{path}: {first}{more}; correct it, or leave the column out (data.ignore: [{name}])")


def lacks_label(column: pa.ChunkedArray, missing: Sequence[str]) -> Bools:
    """Return which rows have no label."""
    column = plain_column(column)
    absent = column.is_null(nan_is_null=True)
    if is_text(column.type):
        absent = pc.or_kleene(absent, pc.is_in(column, pa.array(["", *missing], column.type)))
    return np.asarray(pc.fill_null(absent, True).to_numpy())


def label_note(n: int, n_rows: int, target: str, first: int, path: Path) -> list[str]:
    """Return a note of rows without a label, if there are any.

    Raises:
        DataError: no row has one.
    """
    if n == n_rows:
        raise DataError(f"{path}: {target!r}: expected labels, got none in {n} rows; is this the right column?")
    if not n:
        return []
    return [f"{n} of {n_rows} rows have no {target!r} (the first: row {first}, counted from 0) and were left out"]


def labelled_rows(
    table: pa.Table, target: str, missing: Sequence[str], path: Path
) -> tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Return the rows that have a label, their numbers, and a note where others were left out."""
    lacks = lacks_label(table[target], missing)
    rows = np.flatnonzero(~lacks)
    n = len(lacks) - len(rows)
    notes = label_note(n, len(lacks), target, int(lacks.argmax()) if n else 0, path)
    return (table.take(pa.array(rows)) if n else table), rows, notes


def chosen_columns(
    names: Sequence[str], target: str, config: Data, path: Path, guess_of: Callable[[str], Guess]
) -> tuple[dict[str, Kind], list[str]]:
    """Return what each column is that becomes features, in the order of the table, and what was inferred.

    Raises:
        DataError: a column isn't there, can't be a feature, or nothing is left.
    """
    for key, given in (("columns", config.columns or ()), ("ignore", config.ignore), ("kinds", tuple(config.kinds))):
        for name in given:
            if name not in names:
                raise DataError(f"{path}: there is no column {name!r} (data.{key}); {near(name, names)}")
            if name == target and key != "ignore":
                raise DataError(f"{path}: {name!r} is the target and can't be a feature (data.{key}); take it out")
    kinds: dict[str, Kind] = {}
    notes: list[str] = []
    splitting = {name: key for key, name in config.beside.items() if key != "groups" and name not in config.kinds}
    if config.columns is None:
        notes += [
            f"column {name!r} is for data.{key} and no feature; data.kinds takes it" for name, key in splitting.items()
        ]
    for name in names:
        wanted = name in config.columns if config.columns is not None else name not in (ID, *splitting)
        if not wanted or name in (target, *config.ignore):
            continue
        if name in config.kinds:
            kind = config.kinds[name]
            kinds[name] = "number" if kind == "quantile" else kind
            continue
        guess = guess_of(name)
        if guess.note:
            notes.append(guess.note)
        if guess.kind is not None:
            kinds[name] = guess.kind
    if not kinds:
        left = f": {'; '.join(notes)}" if notes else ""
        raise DataError(f"{path}: no feature is left beside the target {target!r} and {ID!r}{left}; add columns")
    return kinds, notes


def beside_values(column: pa.ChunkedArray, name: str, key: str, config: Data, path: Path) -> np.ndarray[Any, Any]:
    """Return what a column says of the rows: a number for the time, else a text, empty where there is none."""
    if key == "split.time":
        kind = guess_kind(column, name, config.missing, str(path)).kind
        read = read_cells(column, name, "number" if kind in (None, "category") else kind, config.missing, str(path))
        if read.bad:
            raise DataError(f"{path}: data.{key}: {read.bad[0]}")
        return read.values
    read = read_cells(column, name, "category", config.missing, str(path))
    words = np.array([*read.words, ""])
    return np.asarray(words[np.where(np.isnan(read.values), len(read.words), read.values).astype(np.int64)])


def _matrix(cells: Mapping[str, Cells], kinds: Mapping[str, Kind], where: str) -> tuple[np.ndarray[Any, Any], bool]:
    """Return the cells side by side, and whether float32 can't tell the numbers apart."""
    values = np.stack([read.values for read in cells.values()], axis=1)
    numbers = [place for place, kind in enumerate(kinds.values()) if kind == "number"]
    wide = False
    if numbers:
        held = values[:, numbers]
        lowest = np.where(np.isnan(held), np.inf, held).min(axis=0)
        filled = np.where(np.isnan(held), np.where(np.isinf(lowest), 0.0, lowest), held)
        wide = narrowed(filled, where).dtype == np.float64
    exact = wide or any(kind in ("date", "time") for kind in kinds.values())
    exact = exact or any(len(read.words) > LARGEST_CODE for read in cells.values())
    return (values if exact else values.astype(np.float32)), wide


def row_ids(table: pa.Table, path: Path) -> tuple[str, ...]:
    """Return the column ``id`` as text, or the row numbers if there is none."""
    if ID not in table.schema.names:
        return tuple(map(str, range(table.num_rows)))
    column = plain_column(table[ID])
    if column.null_count:
        raise DataError(f"{path}: the column {ID!r}, {_row(column.is_null())}: expected an id, got none")
    if not (pa.types.is_integer(column.type) or is_text(column.type)):
        raise DataError(f"{path}: the column {ID!r} must hold whole numbers or text, got {column.type}; rename it")
    return tuple(map(str, column.to_pylist()))


def same_words(sources: Sequence[ArraySource]) -> list[ArraySource]:
    """Return tables of the same columns with one list of words for each category, so that equal rows are equal numbers."""
    facts = [source.table for source in sources if source.table is not None]
    union = {
        name: tuple(sorted(set().union(*(one.words.get(name, ()) for one in facts))))
        for name, kind in facts[0].kinds.items()
        if kind == "category"
    }
    found = []
    for source, own in zip(sources, facts, strict=True):
        codes = {
            place: torch.from_numpy(recoded(every_word(own.words[name]), union[name]).values)
            for place, name in enumerate(own.kinds)
            if name in union
        }
        table = replace(own, words=union, wide=any(one.wide for one in facts))
        found.append(
            replace(source, recoded=codes, table=table, digests=None if codes else source.digests, known_fingerprint="")
        )
    return found


def every_word(words: tuple[str, ...]) -> Cells:
    """Return a cell of each word, and one of none."""
    return Cells(np.array([*range(len(words)), np.nan], np.float64), words)


def _target_values(column: pa.ChunkedArray, missing: Sequence[str], where: str) -> np.ndarray[Any, Any]:
    column = plain_column(column)
    kind = column.type
    if is_text(kind):
        texts = _as_texts(column, where)
        # A word for nothing made text of a column of numbers; without such a word, text is meant as text.
        numbers = [as_number(text) for text in np.unique(texts).tolist()] if missing else [None]
        return texts if None in numbers else texts.astype(np.float64)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where}: expected numbers or text as targets, got {kind}; convert them")
    return np.asarray(column.to_numpy())


def _as_texts(column: pa.ChunkedArray, where: str) -> np.ndarray[Any, Any]:
    """Return texts as an array, in which every one takes as much as the longest."""
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    if longest > MAX_LETTERS:
        row = pc.index(pc.greater(pc.binary_length(column), MAX_LETTERS), True).as_py()
        raise DataError(
            f"{where}, row {row} (the first is 0): a label has at most {MAX_LETTERS} letters, got {longest}; shorten it, or name "
            "another column (data.target)"
        )
    check_expansion(where, 4 * longest * len(column), max(column.nbytes, 1), DataError)
    return np.asarray(column.to_pylist(), dtype=np.str_)


def _row(mask: pa.ChunkedArray) -> str:
    return f"row {pc.index(mask, True).as_py()} (the first is 0)"
