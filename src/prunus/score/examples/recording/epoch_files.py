"""How do several processes write one epoch's records without waiting for each other, and how are they read again?

An epoch is one file with a record per example, at the example's place, which every process maps: what one of them stored is in the
file even if it is killed the moment after. Processes that can't map one file (on several machines) name their ``part``, and each
part has files of its own; reading takes each example from the first part that has it whole.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.plain_files import explain_os_error, open_plain
from prunus.core.text import shown
from prunus.score.examples.recording.header import publish
from prunus.score.examples.recording.record_layout import Words, checked

__all__ = ["EpochFiles", "EpochMap", "epoch_files", "part_of_machine"]

_NAME = re.compile(r"epoch-(?P<epoch>[0-9]{6})(?:\.(?P<part>[A-Za-z0-9_-]{1,40}))?\.records")
_PART = re.compile(r"[A-Za-z0-9_-]{0,40}")
_LAST_EPOCH = 999_999


class EpochMap:
    """One epoch's records, mapped to be written."""

    def __init__(self, folder: Path, epoch: int, part: str, n_examples: int, n_words: int) -> None:
        if not _PART.fullmatch(part):
            raise RecipeError(f"part must be a word of letters, digits, - and _: got {shown(part)}")
        if not 0 <= epoch <= _LAST_EPOCH:
            raise RecipeError(f"epoch must be a number from 0 to {_LAST_EPOCH}: got {epoch}")
        path = folder / f"epoch-{epoch:06d}{'.' * bool(part)}{part}.records"
        size = 2 * n_words * n_examples
        publish(path, lambda new: _reserve(new, size))
        try:
            with open_plain(path, os.O_RDWR) as file:
                if os.fstat(file.fileno()).st_size != size:
                    raise OutputError(f"{path} isn't {size} bytes long, so it was cut or belongs elsewhere: remove it")
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            raise explain_os_error(error, path) from error
        self.epoch = epoch
        self._kind = np.dtype((np.void, 2 * n_words))
        self._rows = np.frombuffer(self._map, self._kind)

    def store(self, index: np.ndarray[tuple[int, ...], np.dtype[np.int64]], words: Words) -> None:
        """Put records at their places."""
        self._rows[index] = words.view(self._kind)[:, 0]

    def flush(self) -> None:
        """Wait until the disk has what was stored, in case that the machine itself goes down."""
        self._map.flush()


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros whose place on the disk is taken: storing into a map of a full disk would end the process."""
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)


class EpochFiles:
    """The files of one epoch, to be read."""

    def __init__(self, epoch: int, paths: Sequence[Path], n_examples: int, n_words: int) -> None:
        self.epoch, self.paths, self.n_words = epoch, tuple(paths), n_words
        for path in self.paths:
            size = path.stat().st_size
            if size != 2 * n_words * n_examples:
                raise DataError(
                    f"{path}: expected {2 * n_words * n_examples} bytes for {n_examples} examples, got {size}: it was cut, or is "
                    "of another recording; remove it"
                )

    def read(self, start: int, stop: int) -> tuple[Words, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
        """Return the records of some examples, ``(n, n_words)``, and which of them are whole."""
        found = self._of(self.paths[0], start, stop)
        whole = checked(found)
        for path in self.paths[1:]:
            if whole.all():
                break
            other = self._of(path, start, stop)
            take = ~whole & checked(other)
            found[take] = other[take]
            whole |= take
        return found, whole

    def _of(self, path: Path, start: int, stop: int) -> Words:
        with open_plain(path) as file:
            file.seek(2 * self.n_words * start)
            content = bytearray(file.read(2 * self.n_words * (stop - start)))
        return np.frombuffer(content, np.dtype("<u2")).reshape(-1, self.n_words)


def epoch_files(folder: Path, n_examples: int, n_words: int) -> list[EpochFiles]:
    """Return the epochs that a folder holds, in their order.

    Raises:
        DataError: a file of another length.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if (name := _NAME.fullmatch(path.name)) is not None:
            found.setdefault(int(name["epoch"]), []).append(path)
    return [EpochFiles(epoch, paths, n_examples, n_words) for epoch, paths in sorted(found.items())]


def part_of_machine() -> str:
    """Return what tells this machine's processes from those of others, as torchrun says; "" where there is one machine."""
    here, everywhere = os.environ.get("LOCAL_WORLD_SIZE", "1"), os.environ.get("WORLD_SIZE", "1")
    if here == everywhere or not everywhere.isdecimal() or int(everywhere) == 1:
        return ""
    return f"machine-{os.environ.get('GROUP_RANK', os.environ.get('RANK', '0'))}"
