"""How does a table become numbers, one column per feature?

Number columns are features as they are. A text column with few different values becomes one 0/1 feature per value, called
``color=red``; other text is refused. The column ``id``, where there is one, names the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from prunus.core.errors import DataError, near
from prunus.core.files.expansion import check_expansion
from prunus.core.recipes.recipe import Data
from prunus.core.text import shown
from prunus.data.sources.arrays import array_source, find_target
from prunus.data.sources.exact_floats import exact, narrowed
from prunus.data.sources.formats import add_reader
from prunus.data.sources.source import ArraySource, check_ids

__all__ = ["MAX_CATEGORIES", "add_table_reader", "arrow_text", "encode_like", "open_table", "row_ids"]

MAX_CATEGORIES = 50
"""A text column with more different values than this is refused as a feature."""

MAX_LETTERS = 10_000

ID = "id"


def add_table_reader(
    ending: str, read: Callable[[Path, Mapping[str, Any]], pa.Table], *, holds: str, arguments: tuple[str, ...] = ()
) -> None:
    """Register what reads files with this ending as a table: ``read(path, data.args)`` returns it."""

    def open_file(path: Path, config: Data) -> ArraySource:
        return open_table(_checked(read(path, config.args), path), path, config)

    def inputs(path: Path, shape: tuple[int, ...], feature_names: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
        table = _checked(read(path, {}), path)
        names = feature_names or _plain_columns(table.schema.names, shape, path)
        return check_ids(row_ids(table, path), str(path)), encode_like(table, names, path)

    add_reader(ending, holds=holds, open=open_file, inputs=inputs, arguments=arguments)


def _checked(table: pa.Table, path: Path) -> pa.Table:
    """Return the table if its columns can be told apart and it has rows."""
    seen: set[str] = set()
    for position, column in enumerate(table.schema.names):
        if not column:
            raise DataError(f"{path}: column {position + 1} has no name; give it one (id, if it numbers the rows)")
        if column in seen:
            raise DataError(f"{path}: the column {shown(column)} is there twice; rename one")
        seen.add(column)
    if table.num_rows == 0:
        raise DataError(f"{path}: expected at least one row, got an empty set")
    return table


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
    """Return the data set in a table."""
    names = list(table.schema.names)
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise DataError(
            f"{path}: got one column {names[0]!r}, is it separated by another character? "
            'set data.args: {delimiter: ";"} or whichever it is'
        )
    column = find_target([name for name in names if name != ID], config.target, str(path), "column")
    raw_targets = _targets(table[column], f"{path}: {column!r}")
    ids = row_ids(table, path)
    columns: list[np.ndarray[Any, Any]] = []
    feature_names: list[str] = []
    for name in names:
        if name not in (column, ID):
            values, labels = _feature(table[name], name, path)
            columns += values
            feature_names += labels
    if not columns:
        raise DataError(f"{path}: no feature is left beside the target {column!r} and {ID!r}; add columns")
    repeated = [name for name, count in Counter(feature_names).items() if count > 1]
    if repeated:
        raise DataError(f"{path}: two features would be called {repeated[0]!r}; rename a column")
    return array_source(
        torch.from_numpy(narrowed(_stack(columns), str(path))),
        raw_targets,
        config,
        column=column,
        ids=ids,
        feature_names=tuple(feature_names),
    )


def row_ids(table: pa.Table, path: Path) -> tuple[str, ...]:
    """Return the column ``id`` as text, or the row numbers if there is none."""
    if ID not in table.schema.names:
        return tuple(map(str, range(table.num_rows)))
    column = _plain(table[ID])
    if column.null_count:
        raise DataError(f"{path}: the column {ID!r}, {_row(column.is_null())}: expected an id, got none")
    if not (pa.types.is_integer(column.type) or _is_text(column.type)):
        raise DataError(f"{path}: the column {ID!r} must hold whole numbers or text, got {column.type}; rename it")
    return tuple(map(str, column.to_pylist()))


def encode_like(table: pa.Table, feature_names: Sequence[str], path: Path) -> Tensor:
    """Return the columns that a trained model expects, encoded as its training table was, ``(rows, features)``.

    Raises:
        DataError: a column is missing, holds text instead of numbers, or has a value that training never saw.
    """
    columns: list[np.ndarray[Any, Any]] = []
    names = table.schema.names
    categories: dict[str, list[str]] = {}
    for feature in feature_names:
        if feature not in names and "=" in feature:
            column, _, value = feature.partition("=")
            categories.setdefault(column, []).append(value)
    missing = [name for name in feature_names if name not in names and name.partition("=")[0] not in names]
    if missing:
        wanted = list(dict.fromkeys(name.partition("=")[0] if "=" in name else name for name in missing))
        raise DataError(
            f"{path}: the model needs the column{'s' if len(wanted) > 1 else ''} "
            f"{', '.join(map(repr, wanted[:5]))}{', ...' if len(wanted) > 5 else ''}; {near(wanted[0], names)}"
        )
    texts = {column: _text_values(table[column], column, path) for column in categories}
    for column, known in categories.items():
        unknown = np.flatnonzero(~np.isin(texts[column], known))
        if len(unknown):
            row = int(unknown[0])
            raise DataError(
                f"{path}: column {column!r}, row {row} (the first is 0): got {str(texts[column][row])!r}, "
                f"which training never saw; it saw {', '.join(known[:10])}"
            )
    for feature in feature_names:
        if feature in names:
            columns.append(_number_values(table[feature], feature, path))
        else:
            column, _, value = feature.partition("=")
            columns.append((texts[column] == value).astype(np.float32))
    return torch.from_numpy(_stack(columns))


def _feature(column: pa.ChunkedArray, name: str, path: Path) -> tuple[list[np.ndarray[Any, Any]], list[str]]:
    """Return a column's features and their names."""
    if not _is_text(_plain(column).type):
        return [_number_values(column, name, path)], [name]
    texts = _text_values(column, name, path)
    values = np.unique(texts)
    _refuse_mixed(texts, values, name, path)
    if len(values) > MAX_CATEGORIES:
        raise DataError(
            f"{path}: column {name!r} holds text with {len(values)} different values, like {str(values[0])!r}: at most "
            f"{MAX_CATEGORIES} can become features; drop it, group its values, or call it {ID!r} if it names the rows"
        )
    return [(texts == value).astype(np.float32) for value in values], [f"{name}={value}" for value in values]


def _refuse_mixed(texts: np.ndarray[Any, Any], values: np.ndarray[Any, Any], name: str, path: Path) -> None:
    """A column of numbers with a few stray words is a mistake, not a category."""
    strange = [str(value) for value in values if not _is_number(str(value))]
    if len(values) > 3 and 0 < len(strange) <= len(values) // 4:
        row = int(np.flatnonzero(texts == strange[0])[0])
        raise DataError(
            f"{path}: column {name!r}, row {row} (the first is 0): expected a number as in most rows, got {strange[0]!r}"
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number_values(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray[Any, Any]:
    column = _plain(column)
    where = f"{path}: column {name!r}"
    kind = column.type
    if pa.types.is_null(kind):
        raise DataError(f"{where} is empty; drop it")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"{where}: expected numbers, got {kind}; convert it to numbers or drop it")
    if column.null_count:
        more = f" ({column.null_count} such rows)" if column.null_count > 1 else ""
        raise DataError(
            f"{where}, {_row(column.is_null())}: expected a number, got an empty cell{more}; fill or remove such rows"
        )
    numbers = exact(np.asarray(column.to_numpy()), where)
    return numbers.astype(np.float32) if numbers.dtype == np.uint8 else numbers


def _text_values(column: pa.ChunkedArray, name: str, path: Path) -> np.ndarray[Any, Any]:
    column = _plain(column)
    if not _is_text(column.type):  # the training table had text that looks like numbers
        column = column.cast(pa.string())
    empty = pc.or_kleene(column.is_null(), pc.equal(column, ""))
    if pc.any(empty).as_py():
        raise DataError(f"{path}: column {name!r}, {_row(empty)}: expected a value, got none; fill or remove such rows")
    return _as_texts(column, f"{path}: column {name!r}")


def _as_texts(column: pa.ChunkedArray, where: str) -> np.ndarray[Any, Any]:
    """Return texts as an array, in which every one takes as much as the longest."""
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    if longest > MAX_LETTERS:
        row = pc.index(pc.greater(pc.binary_length(column), MAX_LETTERS), True).as_py()
        raise DataError(
            f"{where}, row {row} (the first is 0): a label or a category has at most {MAX_LETTERS} letters, got {longest}; "
            "drop the column or shorten its values"
        )
    check_expansion(where, 4 * longest * len(column), max(column.nbytes, 1), DataError)
    return np.asarray(column.to_pylist(), dtype=np.str_)


def _targets(column: pa.ChunkedArray, where: str) -> np.ndarray[Any, Any]:
    column = _plain(column)
    kind = column.type
    if column.null_count:
        raise DataError(f"{where}, {_row(column.is_null())}: expected a label, got none; remove rows without one")
    if _is_text(kind):
        return _as_texts(column, where)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{where}: expected numbers or text as targets, got {kind}; convert them")
    return np.asarray(column.to_numpy())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a categorical column as the values that it stands for."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _row(mask: pa.ChunkedArray) -> str:
    return f"row {pc.index(mask, True).as_py()} (the first is 0)"


def _stack(columns: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.stack(columns, axis=1) if columns else np.empty((0, 0), np.float32)
