"""Who has the memory that was freed: this process still, or the system again?

glibc keeps what is freed between pieces that are still in use, and gives it back only where that is asked for; so does the pool
that Arrow reads files with. What one stage needed for a moment would count as this process's own until its end.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

__all__ = ["give_back_freed"]


def give_back_freed() -> None:
    """Give freed memory back to the system; where the allocator is another one, nothing is done."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
    found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int
    return found
