"""How large would what a file declares become, and is that more than such a file can honestly hold?

Asked before anything is read or allocated. What is small is always allowed, and so is what is at most some hundred times the file:
a data set of 20 GB from a file of 1 GB is fine, 64 GB from 2 kB aren't. ``PRUNUS_MAX_EXPANSION`` raises that number for a user who
knows better.
"""

from __future__ import annotations

import os

from prunus.core.errors import PrunusError
from prunus.core.text import plain

__all__ = ["ROW_BYTES", "SMALL_BYTES", "TIMES", "VARIABLE", "check_expansion"]

SMALL_BYTES = 128 * 2**20
"""Whatever a file declares, this much is always allowed."""

TIMES = 200
"""Real data, compressed, are seldom fifty times their file; a bomb is a million times its own."""

ROW_BYTES = 64
"""What a row of a data set takes beside its values: its id is a text."""

VARIABLE = "PRUNUS_MAX_EXPANSION"
"""The environment variable that holds another number of times."""


def check_expansion(
    where: object, declared_bytes: int, held_bytes: int, error: type[PrunusError], *, times: int = TIMES
) -> None:
    """Refuse what would become far more than the file that holds it.

    Args:
        where: the file, and what in it.
        declared_bytes: what would lie in memory.
        held_bytes: what the file holds for it.
        times: how many times ``held_bytes`` are allowed, unless the user's ``PRUNUS_MAX_EXPANSION`` is larger.

    Raises:
        PrunusError: it would; of the class ``error``.

    >>> check_expansion("a.npz", 5_000_000_000, 50_000_000, PrunusError)
    >>> check_expansion("a.npz", 64_000_000_000, 2_000, PrunusError)
    Traceback (most recent call last):
    prunus.core.errors.PrunusError: a.npz: refused, ... 64000000000 bytes in memory, and the file holds 2000 for that; ...
    """
    allowed = max(SMALL_BYTES, max(times, _asked(error)) * held_bytes)
    if declared_bytes > allowed:
        raise error(
            f"{plain(str(where))}: refused, it would become {declared_bytes} bytes in memory, and the file holds {held_bytes} "
            f"for that; if you trust it, set {VARIABLE}={-(-declared_bytes // max(held_bytes, 1))} (times its size)"
        )


def _asked(error: type[PrunusError]) -> int:
    text = os.environ.get(VARIABLE, "")
    if not text:
        return 0
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise error(
            f"{VARIABLE} must be a whole number, how many times its file something may become: got {text[:40]!r}"
        )
    return int(text)
