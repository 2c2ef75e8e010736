"""What does a process do in a training that it shares: which examples are its own, and whose gradients count?

A batch is split in as many parts as there are processes; each computes the mean loss of its part times the part's share of the
batch, and the gradients are added up. So a step is that of one process but for the order of sums, whatever the last batch holds.
What is decided (goes it on? is it good?) rank 0 decides alone, and says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from prunus.core.calls import joined, map_tensors, select_rows
from prunus.recover.training.ranks.batch_norm import WholeBatchNorm

if TYPE_CHECKING:
    from prunus.data import Batch

__all__ = ["Alone", "Together", "own_places"]

_BUCKET = 1 << 23
"""Numbers that are added up over the processes at once."""


def own_places(n: int, rank: int, n_ranks: int) -> range:
    """Return which of ``n`` examples in a row are a process's own: parts differ by one example at most.

    >>> [list(own_places(5, rank, 3)) for rank in range(3)]
    [[0, 1], [2, 3], [4]]
    """
    size, rest = divmod(n, n_ranks)
    start = rank * size + min(rank, rest)
    return range(start, start + size + (rank < rest))


class Alone:
    """One process: everything is its own."""

    rank = 0
    n_ranks = 1
    scale = 1.0
    sharded = False

    def shard(self, model: nn.Module) -> None:
        """Leave of the model's parameters what belongs here."""

    def own(self, batch: Batch) -> tuple[Batch, int]:
        """Return this process's part of a batch, and how many examples of it count."""
        return batch, len(batch.index)

    def forward(self, model: nn.Module, *, counts: bool) -> AbstractContextManager[Any]:
        """Return the block that a forward pass belongs in."""
        return nullcontext()

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every process the sum of all gradients."""

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes."""
        return value

    def parts(self, parameters: Sequence[nn.Parameter]) -> Sequence[nn.Parameter]:
        """Return what an optimizer moves here."""
        return parameters

    def gather(self, model: nn.Module, optimizer: Optimizer | None, average: dict[str, Any]) -> dict[str, Any]:
        """Return the state of the optimizer and the average, and of a model that lies in parts, as a whole."""
        return {"model": None, "optimizer": optimizer and optimizer.state_dict(), "average": average}

    def spread(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """Return of a whole state what belongs here."""
        return state

    def gathered(self, batch: Batch, outputs: Any, n: int) -> tuple[Batch, Any] | None:
        """Return the whole batch with its outputs on rank 0, None on the others."""
        return batch, outputs

    def says(self, *, goes_on: bool) -> None:
        """Say on rank 0 whether it goes on."""

    def hears(self) -> bool:
        """Return on the other ranks whether it goes on."""
        return True


class Together(Alone):
    """One of several processes that hold the whole model each (data parallel)."""

    def __init__(self, words: Any) -> None:
        self.rank, self.n_ranks = dist.get_rank(), dist.get_world_size()
        self._words = words

    def own(self, batch: Batch) -> tuple[Batch, int]:
        """Return this process's part of a batch; where none is left for it, the first example, which doesn't count."""
        places = own_places(len(batch.index), self.rank, self.n_ranks)
        rows = torch.arange(places.start, places.stop) if places else torch.zeros(1, dtype=torch.int64)
        return type(batch)(*(select_rows(field, rows) for field in batch)), len(places)

    def forward(self, model: nn.Module, *, counts: bool) -> AbstractContextManager[Any]:
        """Let batch norm see the whole batch."""
        if any(isinstance(module, _BatchNorm) and module.training for module in model.modules()):
            return WholeBatchNorm(counts=counts)
        return nullcontext()

    @torch.no_grad()
    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add the gradients up; what has one on no process keeps none, as with one process."""
        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
        ]
        used: list[bool] = []
        for bucket in _buckets(gradients):
            # What the first one brings along: which parameters have a gradient at all.
            flags = [] if used else [bucket[0].new_tensor([parameter.grad is not None for parameter in parameters])]
            flat = torch.cat([gradient.flatten() for gradient in (*flags, *bucket)])
            dist.all_reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in (*flags, *bucket)])
            used = used or (parts[0] > 0).tolist()
            sums = [part.view_as(one) for part, one in zip(parts[len(flags) :], bucket, strict=True)]
            torch._foreach_copy_(bucket, sums)
        for parameter, gradient, is_used in zip(parameters, gradients, used, strict=True):
            if is_used:
                parameter.grad = gradient

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over the processes."""
        value = value.clone()
        dist.all_reduce(value)
        return value

    def gathered(self, batch: Batch, outputs: Any, n: int) -> tuple[Batch, Any] | None:
        """Bring the parts of a batch and of its outputs together on rank 0, in their order."""
        shown = map_tensors(lambda value: value.detach().cpu(), (batch, outputs)) if n else None
        found: list[Any] | None = [None] * self.n_ranks if self.rank == 0 else None
        dist.gather_object(shown, found, dst=0)
        if found is None:
            return None
        parts = [part for part in found if part is not None]
        whole = type(batch)(*(joined(column) for column in zip(*(one for one, _ in parts), strict=True)))
        return whole, joined([answers for _, answers in parts])

    def says(self, *, goes_on: bool) -> None:
        """Say on rank 0 whether it goes on."""
        self._words.say(goes_on)

    def hears(self) -> bool:
        """Wait for rank 0's word."""
        return bool(self._words.hear())


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the gradients in their order, put together as long as they are of one kind and not too many numbers."""
    found: list[list[Tensor]] = []
    size = 0
    for gradient in gradients:
        alike = found and found[-1][0].dtype == gradient.dtype and found[-1][0].device == gradient.device
        if not alike or size + gradient.numel() > _BUCKET:
            found.append([])
            size = 0
        found[-1].append(gradient)
        size += gradient.numel()
    return found
