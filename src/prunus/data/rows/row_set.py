"""Which files hold the rows of a data set, and where does each row lie?

Rows are numbered through all files, in the order in which they are given; files of a folder come by their names. Only what each
file says of itself is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from prunus.core.errors import DataError, PrunusError
from prunus.core.files.urls.url_path import is_url, matching, pinned
from prunus.core.text import shown
from prunus.core.types import Ints
from prunus.data.readers.rows_of_images import image_shards
from prunus.data.readers.rows_of_npy import beside_npy
from prunus.data.rows.file_prints import file_print, joined_print
from prunus.data.sources.formats import row_endings, row_reader_of
from prunus.data.sources.row_files import RowFile, count_rows, explained

__all__ = ["RowSet", "open_row_file", "open_row_set", "row_files_of"]

_SAVED = "state.json"
_SPLITS = "dataset_dict.json"


@dataclass(frozen=True, eq=False)
class RowSet:
    """The files of a data set, and their groups one after the other.

    Args:
        file_of: which file each group is in, ``(groups,)``.
        group_of: its number there, -1 where it is the whole file, which is read from its beginning.
        ends: behind which row of all each ends.
    """

    files: tuple[Path, ...]
    schema: pa.Schema
    file_of: Ints
    group_of: Ints
    ends: Ints

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return int(self.ends[-1])

    @property
    def starts(self) -> Ints:
        """The number of each group's first row."""
        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @cached_property
    def prints(self) -> tuple[str, ...]:
        """The print of each file; of an array, with those beside it."""
        return tuple(print_of(path) for path in self.files)

    @property
    def fingerprint(self) -> str:
        """The print of all files together."""
        return joined_print(self.prints)

    def file_rows(self) -> list[tuple[int, int]]:
        """Return the first row of each file, and the one behind its last."""
        bounds = np.searchsorted(self.file_of, np.arange(len(self.files) + 1))
        edges = np.concatenate([[0], self.ends])[bounds].tolist()
        return list(pairwise(edges))


def print_of(path: Path) -> str:
    """Return the print of a file of rows; of an array, with those beside it."""
    beside = beside_npy(path) if path.suffix.lower() == ".npy" else {}
    return joined_print([file_print(path), *(file_print(other) for other in beside.values())])


def open_row_file(path: Path, stack: ExitStack) -> RowFile:
    """Return a file of rows, opened.

    Raises:
        DataError: nothing reads it, it is damaged, or two columns have one name.
        RunError: the system can't read it.
    """
    opens = row_reader_of(path)
    with explained(path):
        file = opens(path, stack)
    names = file.schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: the column {shown(twice)} is there twice; rename one")
    return file


def row_files_of(given: Sequence[Path], *, images: bool = False) -> list[Path]:
    """Return the files that are meant, those of a folder by their names; of a set that ``datasets`` saved, as it says.

    Args:
        images: a folder without such files may hold images: then it stands for the folders of its classes.

    Raises:
        DataError: there is none.
    """
    found: list[Path] = []
    for path in given:
        if is_url(path):
            found += _at_url(path, images=images)
        elif path.is_dir():
            found += _inside(path, images=images)
        elif not path.exists():
            raise DataError(f"{path}: there is no such file")
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _at_url(path: Path, *, images: bool) -> list[Path]:
    """Return the objects that a URL means: one, those of a folder, or those that a pattern fits; each must stay as it is now."""
    fitting = matching(path)
    if fitting is not None:
        return [each for each in fitting if not _beside(each)]
    there = pinned(path)
    return _inside(there, images=images) if there.is_dir() else [there]


def _inside(folder: Path, *, images: bool) -> list[Path]:
    if (folder / _SPLITS).is_file():
        parts = sorted(child.name for child in folder.iterdir() if (child / _SAVED).is_file())
        raise DataError(f"{folder}: these are several sets ({', '.join(parts)}): name one, such as {folder / parts[0]}")
    if (folder / _SAVED).is_file():
        return _saved(folder)
    endings = row_endings()
    inside = sorted(each for each in folder.iterdir() if each.suffix.lower() in endings and each.is_file())
    own = [each for each in inside if not _beside(each)]
    if not own and images:
        own = image_shards(folder)
    if not own:
        raise DataError(f"{folder}: no file in this folder ends in {', '.join(endings)}")
    return own


def _beside(path: Path) -> bool:
    """Return whether an array is a column that lies beside another."""
    first, _, more = path.stem.rpartition(".")
    return bool(first and more) and path.suffix.lower() == ".npy" and path.with_name(f"{first}.npy").is_file()


def _saved(folder: Path) -> list[Path]:
    """Return the files of a set that ``datasets`` saved, in its order."""
    try:
        state = json.loads((folder / _SAVED).read_text(encoding="utf-8"))
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except PrunusError:  # of a URL's store
        raise
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{folder / _SAVED}: this doesn't say which files the set has: save it anew") from error
    if state.get("_indices_data_files"):
        raise DataError(f"{folder}: this set has an index of its rows: save it after flatten_indices()")
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{folder / _SAVED}: expected names of files in this folder, got {name!r}: save it anew")
    if not names:
        raise DataError(f"{folder}: there is no file in this set")
    return [folder / name for name in names]


def open_row_set(given: Sequence[Path]) -> RowSet:
    """Return which rows the files have; folders stand for the files in them.

    Raises:
        DataError: a file is missing, damaged or empty, or has other columns than the first.
        RunError: the system can't read one.
    """
    files = row_files_of(given)
    schema: pa.Schema | None = None
    file_of: list[int] = []
    group_of: list[int] = []
    sizes: list[int] = []
    for number, path in enumerate(files):
        with ExitStack() as stack:
            file = open_row_file(path, stack)
            own = file.schema.remove_metadata()
            if schema is not None and own != schema:
                raise DataError(f"{path}: {_difference(own, schema)}, as in {files[0]}; convert it, or leave it out")
            schema = schema or own
            with explained(path):
                groups = file.groups
                rows = [count_rows(path, file)] if groups is None else list(groups)
        file_of += [number] * len(rows)
        group_of += [-1] if groups is None else range(len(rows))
        sizes += rows
    ends = np.cumsum(sizes, dtype=np.int64)
    if not len(ends) or ends[-1] == 0:
        raise DataError(f"{files[0] if files else 'data'}: expected rows, got an empty set")
    assert schema is not None
    return RowSet(tuple(files), schema, np.array(file_of, np.int64), np.array(group_of, np.int64), ends)


def _difference(own: pa.Schema, first: pa.Schema) -> str:
    for name in first.names:
        if name not in own.names:
            return f"expected a column {name!r}"
        if own.field(name).type != first.field(name).type:
            return f"expected column {name!r} to hold {first.field(name).type}, got {own.field(name).type}"
    return f"expected the columns {', '.join(first.names)[:200]}, got {', '.join(own.names)[:200]}"
