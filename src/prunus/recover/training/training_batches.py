"""In which batches is a model trained?

A last batch of a single example joins the batch before it: batch norm can't normalise over one value, and one example's gradient
would weigh as much as a whole batch's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from prunus.core.calls import joined, select_rows

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

__all__ = ["n_training_batches", "parts_of", "training_batches"]


def n_training_batches(n_examples: int, batch_size: int) -> int:
    """Return how many batches :func:`training_batches` yields.

    >>> n_training_batches(9, 4), n_training_batches(10, 4), n_training_batches(1, 4), n_training_batches(3, 1)
    (2, 3, 1, 3)
    """
    full, rest = divmod(n_examples, batch_size)
    return full + (rest > 1 or (rest == 1 and full == 0))


def training_batches(examples: Examples, batch_size: int, generator: torch.Generator | None) -> Iterator[Batch]:
    """Yield every example once, in an order drawn from ``generator`` (None: as they lie)."""
    batches = examples.batches(batch_size, generator)
    if batch_size == 1 or len(examples) % batch_size != 1:
        yield from batches
        return
    held: Batch | None = None
    for batch in batches:
        if held is not None and len(batch.index) == 1:
            batch = type(batch)(*(joined(pair) for pair in zip(held, batch, strict=True)))
            held = None
        if held is not None:
            yield held
        held = batch
    if held is not None:
        yield held


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield ``batch`` in parts of ``size`` examples, in order; a last single example joins the part before it."""
    n = len(batch.index)
    if n <= size:
        yield batch
        return
    sizes = [size] * (n // size)
    rest = n % size
    if rest == 1:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    for places in torch.split(torch.arange(n), sizes):
        yield type(batch)(*(select_rows(field, places) for field in batch))
