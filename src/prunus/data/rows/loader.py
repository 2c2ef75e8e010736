"""How do a stream's batches come from workers without a loop waiting for each of them?

To hand a batch from one process to another costs about as much as a short training step. So workers send many batches of a lane as
one, and the loop's own process cuts them apart: the same batches in the same order as without workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from prunus.core.errors import RecipeError
from prunus.data.rows.stream import RowStream, check_shared, sliced

__all__ = ["RowLoader"]


class RowLoader:
    """Batches of the rows that stay, which workers read ahead.

    As a ``DataLoader`` it is gone through once per epoch, and has a length; it counts what was taken itself, so that a checkpoint
    needs nothing but its state::

        for epoch in range(n_epochs):
            loader.set_epoch(epoch)
            for position, inputs, targets in loader:
                ...
                checkpoint = loader.state_dict()

    Args:
        stream: what is read.
        num_workers: processes that read; any number that divides the stream's lanes, or 0. They live as long as the loader does.
        together: so many batches are sent at once, and as many of each lane held.

    Raises:
        RecipeError: a number out of range.
    """

    def __init__(self, stream: RowStream, *, num_workers: int = 0, together: int = 64) -> None:
        if num_workers < 0 or together < 1:
            raise RecipeError(f"expected num_workers >= 0 and together >= 1: got {num_workers} and {together}")
        check_shared(stream.n_lanes, max(num_workers, 1))
        self._stream, self._together = stream, together
        self._n_taken = 0
        blocks = _Blocks(stream, together)
        self._loader: DataLoader[Any] | None = None
        if num_workers:
            self._loader = DataLoader(
                blocks, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is, persistent_workers=True
            )

    def __len__(self) -> int:
        """Return how many batches of this rank are left in the epoch."""
        return len(self._stream)

    def set_epoch(self, epoch: int) -> None:
        """Read in the order of this epoch from now on, from its beginning."""
        self._stream.set_epoch(epoch)
        self._n_taken = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield this rank's batches from where the epoch was left.

        Raises:
            DataError: a file is damaged or was changed, or a row can't be read.
        """
        self._n_taken = self._stream.now[1]
        for batch in self._stream if self._loader is None else self._cut(iter(self._loader)):
            self._n_taken += 1  # before the loop has it: what it says in its body counts this one
            yield batch

    def _cut(self, blocks: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Yield the batches in blocks of the lanes, one of each lane in turns."""
        sizes, start = self._stream.plan().sizes, self._stream.now[1]
        n_lanes = self._stream.n_lanes
        span = n_lanes * self._together
        for first in range(start, len(sizes), span):
            last = min(first + span, len(sizes))
            held = [next(blocks) for _ in range(min(n_lanes, last - first))]
            places = [0] * len(held)
            for batch in range(first, last):
                lane = (batch - first) % n_lanes
                stop = places[lane] + int(sizes[batch])
                yield sliced(held[lane], places[lane], stop)
                places[lane] = stop

    def state_dict(self) -> dict[str, Any]:
        """Return where the loop is, for a checkpoint: behind the batch that it was given last."""
        return self._stream.state_dict(self._n_taken)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was, with as many workers as one likes.

        Raises:
            DataError: it is the state of other data, of other rows that stay, or of other settings.
        """
        self._stream.load_state_dict(state)
        self._n_taken = self._stream.now[1]


def _as_it_is(block: Any) -> Any:
    return block


class _Blocks(IterableDataset[tuple[Any, ...]]):
    """Blocks of ``together`` batches of each lane, the lanes in turns; of a worker's process, those of its lanes."""

    def __init__(self, stream: RowStream, together: int) -> None:
        self._stream, self._together = stream, together

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        worker = get_worker_info()
        number, n_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch, start = self._stream.now
        plan, n_lanes = self._stream.plan(), self._stream.n_lanes
        n_batches = len(plan.sizes) - start
        lanes: dict[int, Iterator[tuple[Any, ...]]] = {}
        for turn in range(ceil(n_batches / (n_lanes * self._together))):
            n_here = min(n_lanes, n_batches - turn * n_lanes * self._together)
            for place in range(number, n_here, n_workers):
                if place not in lanes:
                    lanes[place] = self._stream.lane(plan, epoch, start + place, self._together)
                yield next(lanes[place])
