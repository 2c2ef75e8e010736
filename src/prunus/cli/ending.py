"""How does a command end that fails or is stopped: with which line, and which exit code?

Whatever happens is one line on standard error in which no name steers the terminal. Exit codes are those of ``core.errors``.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import typer

from prunus.cli.bundles.brought import as_asked
from prunus.core.code.imports import one_line
from prunus.core.errors import OutputError, PrunusError, RunError, out_of_memory
from prunus.core.text import plain

__all__ = ["SOME_ROWS", "STOPPED", "explain", "stopped"]

STOPPED = 130
SOME_ROWS = 10
"""Some rows of a file can't be predicted, or some shards not scored; the others were."""
_KEEP = ("run", "plan", "apply", "score", "clean", "select", "shards", "score-shards")
"""Commands that go on where they were stopped."""


def stopped(arguments: Sequence[str]) -> int:
    """Say that a command was stopped, and return the exit code of it."""
    return _say("stopped" + (": what is done is kept; add --resume to go on" if _keeps(arguments) else ""), STOPPED)


def explain(error: Exception, arguments: Sequence[str]) -> int:
    """Say in one line what went wrong, and return the exit code of it."""
    if (lacking := out_of_memory(error)) is not None:
        kept = "; what is done is kept: add --resume to go on" if _keeps(arguments) else ""
        advice = "take smaller batches, fewer examples or a smaller model, or end what else uses memory"
        return _say(f"error: not enough memory ({one_line(lacking)}): {advice}{kept}", RunError.exit_code)
    if isinstance(error, PrunusError):
        return _say(f"error: {error}", error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _say(
            f"error: no space left on the disk ({error}): free some space, then add --resume", OutputError.exit_code
        )
    if isinstance(error, OSError) and error.filename is not None:
        return _say(
            f"error: can't use {error.filename}: {error.strerror}; check that it is there and yours",
            OutputError.exit_code,
        )
    text = f"internal error: {one_line(error)}; this is a fault of prunus, --debug shows the traceback"
    return _say(text, PrunusError.exit_code)


def _keeps(arguments: Sequence[str]) -> bool:
    return any(argument in _KEEP for argument in arguments[:2])


def _say(text: str, code: int) -> int:
    typer.echo(plain(as_asked(" ".join(text.splitlines()))), err=True)
    return code
