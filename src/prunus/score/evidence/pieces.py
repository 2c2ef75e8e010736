"""In which pieces is a calibration set gone through, and what becomes of the sums of each?

A set of many examples falls into pieces whose bounds hang on its length and the batch size alone. Each piece is added up from zero,
and pieces are joined in their order: so it doesn't matter who adds one up, or when, and the result is the same to the bit. What is
joined is one piece at a time, so memory doesn't grow with their number. A set of one piece is added up as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from prunus.core.batch import Batch, Batched
from prunus.data.examples import Examples

__all__ = ["Joins", "Piece", "Sums", "added", "batches_in", "in_turn", "named", "pieces_of", "under"]

PIECE_EXAMPLES = 1024
"""A piece has at least so many examples: a set of no more is added up as it comes."""
MOST_PIECES = 32
"""A large set falls into no more pieces: what each leaves may wait on the disk for the others."""

Sums = dict[str, Tensor]
"""All that was added up over some examples, by a name for each."""


class Joins(Protocol):
    """Decides who adds up the pieces, and what of it is kept."""

    def __call__(
        self, what: str, n: int, sums_of: Callable[[int], Sums], join: Callable[[Iterable[Sums]], Sums]
    ) -> Sums:
        """Return what ``join`` makes of the sums of all pieces, which it must be given in their order.

        Args:
            what: is added up, in a word: other things of one gathering have other words.
            n: how many pieces there are.
            sums_of: adds up the piece of a number.
        """
        ...


def in_turn(what: str, n: int, sums_of: Callable[[int], Sums], join: Callable[[Iterable[Sums]], Sums]) -> Sums:
    """Add up one piece after the other, here."""
    return join(map(sums_of, range(n)))


class Piece(NamedTuple):
    """Some examples that follow each other: the position of the first, and how many they are."""

    first: int
    n: int


def pieces_of(examples: Batched, batch_size: int) -> list[Piece]:
    """Return the pieces of a set, each of whole batches but for the last.

    What came as batches of its own (a stream, a ``DataLoader``) is one piece: it can't be entered in the middle.
    """
    n = len(examples)
    n_batches = -(-n // batch_size)
    step = batch_size * max(1, PIECE_EXAMPLES // batch_size, -(-n_batches // MOST_PIECES))
    if not isinstance(examples, Examples) or n <= step:
        return [Piece(0, n)]
    return [Piece(first, min(step, n - first)) for first in range(0, n, step)]


def batches_in(examples: Batched, piece: Piece, batch_size: int) -> Iterator[Batch]:
    """Yield the batches of a piece, which know their positions in the whole set."""
    if not isinstance(examples, Examples) or piece == (0, len(examples)):
        yield from examples.batches(batch_size)
        return
    for batch in examples.take(torch.arange(piece.first, piece.first + piece.n)).batches(batch_size):
        yield batch._replace(index=batch.index + piece.first)


def added(found: Iterable[Sums]) -> Sums:
    """Return plain sums joined: those of one name are added up.

    >>> added([{"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0)}])
    {'a': tensor(3.)}
    """
    total: Sums = {}
    for sums in found:
        total |= {name: total[name] + value if name in total else value for name, value in sums.items()}
        del sums  # before the next ones are made
    return total


def named(what: str, sums: Mapping[str, Tensor]) -> Sums:
    """Return the same sums with ``what`` before each name."""
    return {f"{what}/{name}": value for name, value in sums.items()}


def under(what: str, sums: Mapping[str, Tensor]) -> Sums:
    """Return the sums whose names have ``what`` before them, without it, in the order of their names.

    >>> list(under("a", {"a/y/z": torch.ones(1), "a/x": torch.ones(1), "b/x": torch.ones(1)}))
    ['x', 'y/z']
    """
    start = f"{what}/"
    return {name.removeprefix(start): sums[name] for name in sorted(sums) if name.startswith(start)}
