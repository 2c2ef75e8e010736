"""What reads a file of data, and what does it need?

A reader is found by the ending of the file. It gives a labelled data set (``open``), inputs without labels (``inputs``, or
``rows`` where a bad row stands alone), or both. What reads a few rows at a time, for files larger than memory, is registered by
``add_row_reader``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from prunus.core.code.registry import READERS, Registry, offered
from prunus.core.errors import DataError, near
from prunus.core.recipes.recipe import Data
from prunus.data.columns.fitted import Columns
from prunus.data.sources.row_files import OpenRows
from prunus.data.sources.source import Rows, Source

__all__ = [
    "IMAGES",
    "Inputs",
    "Open",
    "ReadRows",
    "Reader",
    "add_reader",
    "add_row_reader",
    "readers",
    "readers_table",
    "row_endings",
    "row_reader_of",
    "row_readers",
]


class Open(Protocol):
    """How a file becomes a labelled data set."""

    def __call__(self, path: Path, config: Data, /) -> Source:
        """Return the data set; ``config.args`` are the user's arguments for this reader."""


class Inputs(Protocol):
    """How a file becomes inputs for a model, whatever else it holds."""

    def __call__(
        self, path: Path, shape: tuple[int, ...], feature_names: Sequence[str], /
    ) -> tuple[tuple[str, ...], Tensor]:
        """Return the ids and the raw inputs, ``(n, *shape)``."""


class ReadRows(Protocol):
    """How a table becomes inputs for a model, row by row."""

    def __call__(
        self, path: Path, columns: Columns | None, feature_names: Sequence[str], shape: tuple[int, ...], /
    ) -> Rows:
        """Return the rows that the model can take, and what is wrong with the others."""


@dataclass(frozen=True)
class Reader:
    """What reads the files of one ending. ``arguments`` are those of ``data.args``, ``needs`` the extra to install."""

    ending: str
    holds: str
    open: Open
    inputs: Inputs | None = None
    rows: ReadRows | None = None
    arguments: tuple[str, ...] = ()
    needs: str = ""


readers: Registry[Reader] = Registry("reader", group=READERS)
"""By ending, without its dot."""


def add_reader(
    ending: str,
    *,
    holds: str,
    open: Open,  # noqa: A002 - as the field is called
    inputs: Inputs | None = None,
    rows: ReadRows | None = None,
    arguments: tuple[str, ...] = (),
    needs: str = "",
) -> Reader:
    """Register what reads files with this ending (in lower case, with its dot); ``holds`` says what they hold, in a few words."""
    assert ending == ending.lower() and ending[0] == ".", f"an ending is like .csv: got {ending!r}"  # noqa: PT018
    return readers.add(ending[1:], Reader(ending, holds, open, inputs, rows, arguments, needs))


IMAGES = "images"
"""As what a folder is read a few rows at a time."""

row_readers: Registry[OpenRows] = Registry("row reader")
"""What opens a file to be read a few rows at a time, by ending, without its dot."""


def add_row_reader(ending: str, opens: OpenRows) -> OpenRows:
    """Register what opens files with this ending (in lower case, with its dot) to be read a few rows at a time."""
    assert ending == ending.lower() and ending[0] == ".", f"an ending is like .csv: got {ending!r}"  # noqa: PT018
    return row_readers.add(ending[1:], opens)


def row_endings() -> tuple[str, ...]:
    """Return the endings of files that can be read a few rows at a time, with their dots."""
    return tuple(f".{name}" for name in row_readers if name != IMAGES)


def row_reader_of(path: Path) -> OpenRows:
    """Return what opens a file to be read a few rows at a time; a package that offers it is imported now.

    Raises:
        DataError: nothing does.
    """
    name = IMAGES if path.is_dir() else path.suffix.lower()[1:]
    if name not in row_readers and name in offered(READERS):
        readers.load(name)
    if name not in row_readers:
        raise DataError(
            f"{path}: expected a file that ends in {', '.join(row_endings())}: got {path.suffix.lower() or 'no ending'!r}"
        )
    return row_readers[name]


def refuse_arguments(reader: Reader, path: Path, config: Data) -> None:
    """Refuse ``data.args`` that a reader doesn't know.

    Raises:
        DataError: it names the first.
    """
    unknown = [name for name in config.args if name not in reader.arguments]
    if unknown:
        if not reader.arguments:
            raise DataError(f"{path}: {reader.ending} takes no data.args, got {', '.join(unknown)}")
        hint = near(str(unknown[0]), reader.arguments)
        raise DataError(f"{path}: unknown argument {unknown[0]!r} (data.args): {hint}")


def readers_table() -> list[dict[str, str]]:
    """Return one row per reader: its ending, what such a file holds, what it can be asked, what it needs.

    >>> [row["arguments"] for row in readers_table() if row["ending"] == ".csv"]
    ['delimiter']
    """
    return [
        {
            "ending": one.ending,
            "holds": one.holds,
            "arguments": ", ".join(one.arguments),
            "predicts": "" if one.inputs is None and one.rows is None else "yes",
            "by_rows": "yes" if one.ending[1:] in row_readers else "",
            "needs": one.needs,
        }
        for one in (readers[name] for name in readers)
    ]
