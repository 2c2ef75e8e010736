"""How many examples are read, and go through a model, at once?

As many as fit into fixed amounts of memory, at most 512. What is read together depends on the data alone, so that two models that
are compared see the same batches (padding, augmentation); what goes through a model together is a part of that, by what one example
of it takes. Parts give the same sums up to rounding; a batch that fits is one part, bit for bit as if nothing had been looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.core.batch import Batch, Batched
from prunus.core.calls import arguments, call, n_examples, select_rows
from prunus.core.errors import DataError, raise_if_out_of_memory
from prunus.data.sources.source import row_chunks

__all__ = ["MOST", "Feed", "read_size"]

MOST = 512
"""Examples that are read at once where they are small."""
_READ_BYTES = 2**26
_LIVE_BYTES = 2**28
_HELD = 3
"""So many tensors of the size of the largest are alive at once: what an operation takes, gives, and a shortcut."""


def read_size(examples: Batched) -> int:
    """Return how many examples to read at once: as many as 64 MiB hold, of the size of the first one."""
    each = getattr(examples, "example_bytes", 0)
    return max(min(MOST, _READ_BYTES // max(each, 1)), 1)


class Feed:
    """Takes batches apart for one model; what one example takes is found out on the first that is worth it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.size: int | None = None

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """Yield a batch in as many parts as its model needs: one, where 256 MiB hold what all of it takes."""
        n = len(batch.index)
        if n > 1 and self.size is None and _is_of(n, batch):
            self.size = self._fitting(select_rows(batch.inputs, torch.arange(1)))
        if self.size is None or self.size >= n or not _is_of(n, batch):
            yield batch
            return
        for rows in row_chunks(torch.arange(n), self.size):
            yield Batch(batch.index[rows], select_rows(batch.inputs, rows), _rows(batch.targets, rows))

    def _fitting(self, one: Any) -> int:
        watch = _Largest()  # type: ignore[no-untyped-call]
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), watch:
                call(self.model, one)
        except Exception as error:  # a model that doesn't take one alone
            raise_if_out_of_memory(error)
            return MOST
        return max(min(MOST, _LIVE_BYTES // max(_HELD * watch.n_bytes, 1)), 1)


def _is_of(n: int, batch: Batch) -> bool:
    """Tell whether examples can be taken out of a batch: each tensor and list has a row for each."""
    try:
        return n_examples(arguments(batch.inputs)) == n and (batch.targets is None or n_examples(batch.targets) == n)
    except DataError:
        return False


def _rows(targets: Any, rows: Tensor) -> Any:
    return None if targets is None else select_rows(targets, rows)


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how large the largest tensor is that any operation makes."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.n_bytes = max(self.n_bytes, leaf.numel() * leaf.element_size())
        return made
