"""Are the rows of files held in memory or mapped from disk, and where do those lie that were converted for it?

What was converted is kept in a cache folder, by what it was made of: the print of the files and all that was asked of them. Other
files, or the same read otherwise, lie in a folder of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from prunus.core.errors import DataError, OutputError
from prunus.core.files.disk_room import check_room
from prunus.core.files.plain_files import atomic_folder, clear_leftovers, folder_lock, remove
from prunus.core.files.urls.url_path import matching
from prunus.core.recipes.recipe import Data
from prunus.data.disk.array_cells import inputs_column, numpy_of
from prunus.data.disk.convert import convert, disk_bytes, mapped_source, n_cells, read_manifest, shown_columns
from prunus.data.rows.row_set import RowSet, open_row_set, row_files_of
from prunus.data.rows.walk import walk
from prunus.data.sources.arrays import array_source, array_to_tensor, to_array
from prunus.data.sources.formats import row_endings
from prunus.data.sources.image_folder import holds_class_folders
from prunus.data.sources.source import ArraySource
from prunus.data.sources.tables import beside_values, check_names, labelled_rows, open_table, row_ids, target_column

__all__ = ["AUTO_BYTES", "MAPPED_ENDINGS", "goes_to_disk", "memory_bytes", "open_row_files", "rows_in"]

MAPPED_ENDINGS = (".parquet", ".arrow", ".feather", ".npy")
"""What can be read from disk: files that are read a few rows at a time and say what their columns hold."""

AUTO_BYTES = 1 << 30
"""Above this, rows aren't held in memory unless that is asked for."""

_ROW_BYTES, _CELL_BYTES = 500, 40
"""What a run takes for a row and for each of its cells where the table is held in memory, as measured (benchmarks)."""

_FORMAT = 1


def memory_bytes(n_rows: int, n_columns: int) -> int:
    """Return about how much memory it takes to hold a table, at the most."""
    return n_rows * (_ROW_BYTES + _CELL_BYTES * n_columns)


def rows_in(path: Path, config: Data) -> bool:
    """Tell whether a path is read as rows: a file of such an ending, or a folder of them.

    Where class folders of images lie beside them, it is what the recipe says.

    Raises:
        DataError: the recipe doesn't say it.
    """
    if not path.is_dir():
        return path.suffix.lower() in MAPPED_ENDINGS and path.is_file()
    rows = sorted(child.name for child in path.iterdir() if child.suffix.lower() in row_endings() and child.is_file())
    if not rows or matching(path) is not None or _says_rows(config):
        return bool(rows)
    if not holds_class_folders(path):
        return True
    if config.args:  # how images are read: rows take none
        return False
    raise DataError(
        f"{path}: it holds rows ({rows[0]}) and class folders of images, and the recipe doesn't say which are the data: name "
        "the label's column (data.target) for the rows, or say how images are read (data.args: {mode: RGB}); or move one of them"
    )


def _says_rows(config: Data) -> bool:
    """Tell whether a recipe says what only rows have."""
    return bool(config.target or config.about_tables or config.beside or config.in_memory is False)


def open_row_files(path: Path, config: Data) -> ArraySource | None:
    """Return the data set in files of rows; None: a single Parquet file that is held in memory, which its reader reads.

    Raises:
        DataError: it can't be read or learnt from.
        OutputError: the disk has no room for what has to be converted.
    """
    files = row_files_of([path])
    others = sorted({file.suffix.lower() for file in files if file.suffix.lower() not in MAPPED_ENDINGS})
    if others and config.in_memory is False:
        raise DataError(
            f"{path}: {others[0]} can't be read from disk: convert it to Parquet, or set data.in_memory: true"
        )
    if config.args:
        raise DataError(f"{path}: it takes no data.args, got {', '.join(config.args)}")
    alone = path.suffix.lower() == ".parquet" and not path.is_dir()
    try:
        rows = open_row_set([path])
    except DataError:
        if alone and config.in_memory is not False:
            return None  # its reader says what is wrong
        raise
    schema = shown_columns(rows)
    if not others and goes_to_disk(config, rows, rows.n_rows):
        return _from_disk(rows, path, config)
    return None if alone else _in_memory(rows, schema, path, config)


def goes_to_disk(config: Data, rows: RowSet, n_rows: int) -> bool:
    """Tell whether so many rows like these are read from disk, as a recipe says it."""
    if config.in_memory != "auto":
        return not config.in_memory
    n_columns = sum(map(n_cells, shown_columns(rows).types))
    return memory_bytes(n_rows, n_columns) > AUTO_BYTES


def _in_memory(rows: RowSet, schema: pa.Schema, path: Path, config: Data) -> ArraySource:
    check_names(schema.names, path)
    batches = [batch for _, batch in walk(rows, schema.names)]
    table = pa.Table.from_batches([batch.cast(schema) if batch.schema != schema else batch for batch in batches])
    inputs = inputs_column(schema, path)
    if inputs is None:
        return open_table(table, path, config)
    target = target_column([name for name in schema.names if name != inputs], config, path)
    ids = row_ids(table, path)
    table, labelled, notes = labelled_rows(table, target, config.missing, path)
    values = np.concatenate([numpy_of(chunk, inputs, path) for chunk in table[inputs].chunks])
    return array_source(
        array_to_tensor(values, f"{path}: the array {inputs!r}"),
        to_array(table[target].to_pylist()),
        config,
        column=target,
        ids=tuple(ids[row] for row in labelled.tolist()),
        beside={key: beside_values(table[name], name, key, config, path) for key, name in config.beside.items()},
        notes=tuple(notes),
    )


def _from_disk(rows: RowSet, path: Path, config: Data) -> ArraySource:
    told = {
        "format": _FORMAT,
        "files": rows.fingerprint,
        "rows": rows.n_rows,
        "columns": [[field.name, str(field.type)] for field in rows.schema],
        "asked": config.model_dump(mode="json", include=_ASKED) | {"beside": config.beside},
    }
    root = cache_folder(config)
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
    entry = root / key
    try:
        entry.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"can't write {entry}, where what is read from disk is kept: {error.strerror or error}; name another folder "
            "(data.cache, or PRUNUS_CACHE), or set data.in_memory: true"
        ) from error
    with folder_lock(entry, wait=True):
        clear_leftovers(entry, ("rows",))
        folder = entry / "rows"
        held = read_manifest(folder)
        if held is None or held.get("made_of") != told:
            if folder.exists():
                remove(folder)
            check_room(
                entry,
                disk_bytes(rows),
                f"reading {path} from disk",
                "name another folder (data.cache), or set data.in_memory: true",
            )
            with atomic_folder(folder) as new:
                held = convert(rows, path, config, new, told)
            if open_row_set([path]).fingerprint != rows.fingerprint:
                remove(folder)
                raise DataError(f"{path}: it was changed while it was read: run again once nothing writes to it")
        return mapped_source(folder, held, config)


_ASKED = {"target", "columns", "ignore", "kinds", "missing", "task"}


def cache_folder(config: Data) -> Path:
    """Return where converted rows are kept."""
    if config.cache is not None:
        return Path(config.cache)
    given = os.environ.get("PRUNUS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return (Path(given) if given else Path(home) / "prunus") / "rows"
