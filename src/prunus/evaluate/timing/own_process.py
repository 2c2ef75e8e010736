"""How is a model timed by a process of its own, for runtimes that talk, or may end the process that they are in?

The process is started once and told before each turn, on a line, how many times to call the model; it answers with a line
``seconds`` and what they took by its own clock. What else it writes is passed over.
"""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from prunus.core.errors import ModelError

__all__ = ["InOwnProcess"]


class InOwnProcess:
    """A model that a script calls.

    Args:
        called: what the runtime is called, for messages.
        script: is run with ``words``.
        folder: holds its files, and is removed in the end.
    """

    def __init__(self, called: str, script: Path, words: Sequence[str], folder: TemporaryDirectory[str]) -> None:
        self._called = called
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._end = weakref.finalize(self, _end, self._process, folder)  # also where nobody closes it

    def seconds(self, n_calls: int) -> float:
        """Return how long so many calls took together.

        Raises:
            ModelError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{n_calls}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error
        for line in self._process.stdout:
            word, _, number = line.strip().partition(" ")
            if word == "seconds":
                return float(number)
        raise self._ended()

    def _ended(self) -> ModelError:
        return ModelError(f"{self._called}'s process ended while it was timed; leave it out with --runtime")

    def close(self) -> None:
        """End the process and remove its files."""
        self._end()


def _end(process: subprocess.Popen[str], folder: TemporaryDirectory[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # it has ended by itself
                continue
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()
