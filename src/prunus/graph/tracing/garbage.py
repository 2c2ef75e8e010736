"""How does work that makes many small objects not pay for all that was there before?

Python looks through every object for those that only hold each other each time that a quarter has been added: with a few libraries
imported that takes a third of a second, again and again while models are traced.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["settled"]


@contextmanager
def settled() -> Iterator[None]:
    """Leave what is there out of garbage collection for a block; what the block makes is collected as ever."""
    if gc.get_freeze_count():  # by a block around this one, or by the program, which then undoes it itself
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
