"""Where the names of the rows aren't held, no file is written that isn't needed to know them."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from prunus.data.disk import ids_on_disk
from prunus.data.disk.ids_on_disk import IdColumn, names_in
from prunus.data.disk.raw_files import RawFolder


def names_of(folder, parts, texts=None):
    """Return the names of rows that come in parts, and which files were made for them."""
    made = []
    with ExitStack() as stack:
        files = RawFolder(folder, stack)
        plain = files.file
        files.file = lambda name, *more: made.append(name) or plain(name, *more)
        column = IdColumn(None if texts is None else pa.string(), "t", Path("t"), files, sum(map(len, parts)))
        for rows in parts:
            given = {"a": rows} if texts is None else {"id": [texts[row] for row in rows]}
            column.add(pa.record_batch(list(map(pa.array, given.values())), names=list(given)), np.array(rows))
        told = column.finish()
    assert sorted(made) == sorted(path.name for path in folder.iterdir()) == sorted(told)
    return tuple(names_in(folder, told, sum(map(len, parts)))), made


@pytest.mark.parametrize(
    ("parts", "n_files"),
    [
        ([[0, 1], [2, 3], [4]], 0),
        ([[0, 1], [2, 4], [5]], 1),
        ([[0, 1], [3], [4, 7]], 1),
        ([[1], [2]], 1),
    ],
)
def test_row_numbers_are_written_only_where_a_row_was_left_out(tmp_path, monkeypatch, parts, n_files):
    monkeypatch.setattr(ids_on_disk, "_AT_ONCE", 1)
    names, made = names_of(tmp_path, parts)
    assert names == tuple(str(row) for rows in parts for row in rows)
    assert len(made) == n_files


def test_rows_with_a_name_need_no_number(tmp_path):
    names, made = names_of(tmp_path, [[0], [2, 3]], ["a", "", "ü", "long name"])
    assert names == ("a", "ü", "long name")
    assert sorted(made) == ["id_ends.bin", "ids.bin"]
