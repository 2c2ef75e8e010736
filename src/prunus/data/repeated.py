"""How do few examples give an epoch as long as that of many?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from prunus.core.batch import Batch
from prunus.data.examples import Examples

__all__ = ["Repeated"]


class Repeated:
    """Some examples in epochs of ``n``, more than there are: each comes as often as any other, and chance decides about the rest.

    A training on them takes exactly the optimizer steps, at the learning rates, of one on ``n`` examples. What an epoch holds hangs
    on its generator alone, so a training that is resumed equals one that never stopped. ``index`` in a batch is the position among
    the examples themselves; without a generator each comes once.
    """

    def __init__(self, examples: Examples, n: int) -> None:
        self._examples, self._n = examples, n

    def __len__(self) -> int:
        return self._n

    def __getattr__(self, name: str) -> Any:
        return getattr(self._examples, name)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield an epoch, in the order that ``generator`` shuffles."""
        if generator is None:
            yield from self._examples.batches(batch_size)
            return
        n_own = len(self._examples)
        times, rest = divmod(self._n, n_own)
        again = torch.randperm(n_own, generator=generator)[:rest]
        places = torch.cat([torch.arange(n_own).repeat(times), again])
        for batch in self._examples.take(places).batches(batch_size, generator):
            yield Batch(places[batch.index], batch.inputs, batch.targets)
