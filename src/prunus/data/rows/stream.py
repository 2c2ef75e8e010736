"""How are kept rows streamed from files into a training, each of them once per epoch?

What is decoded are the groups that hold a kept row, a few thousand rows at a time; the order is that of ``lanes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from prunus.core.errors import DataError, RecipeError
from prunus.core.runtime import generator
from prunus.core.types import Ints
from prunus.data.rows.kept_bits import Kept
from prunus.data.rows.lanes import EpochPlan, plan_epoch
from prunus.data.rows.row_set import RowSet
from prunus.data.rows.to_tensors import Form, joined, taken
from prunus.data.rows.walk import read_group

__all__ = ["RowStream", "check_shared", "select_kept", "sliced"]


class RowStream(IterableDataset[tuple[Any, ...]]):
    """Batches of the rows that stay, in an order that is drawn anew in each epoch.

    Each is a tuple: the rows' numbers, their inputs and, if there are labels, their targets. A ``DataLoader`` must leave batches as
    they are, and may have any number of workers that divides ``n_lanes``::

        loader = DataLoader(stream, batch_size=None, num_workers=2)
        for epoch in range(n_epochs):
            stream.set_epoch(epoch)
            for position, inputs, targets in loader:
                ...

    The order hangs on seed, epoch and what is kept alone. Every rank has as many batches, and every row is in one of them (but for
    ``drop_last``).

    Args:
        batch_size: rows of each batch; a rank's last may be smaller.
        seed: of the order.
        rank: of this process, where several train together.
        n_ranks: how many there are.
        n_lanes: so many places of the data take turns; workers share them.
        window_rows: as many rows are shuffled with each other, in each lane.
        drop_last: leave out the rows that fill no batch; others in each epoch.

    Raises:
        RecipeError: a number out of range, or too few rows for so many ranks.
    """

    def __init__(
        self,
        rows: RowSet,
        kept: Kept,
        form: Form,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
        n_lanes: int = 4,
        window_rows: int = 1 << 14,
        drop_last: bool = False,
    ) -> None:
        if min(batch_size, n_lanes, window_rows) < 1 or not 0 <= rank < n_ranks:
            raise RecipeError(
                f"expected batch_size, n_lanes and window_rows of 1 and more, and a rank below n_ranks: got {batch_size}, "
                f"{n_lanes}, {window_rows}, rank {rank} of {n_ranks}"
            )
        self._rows, self._kept, self._form = rows, kept, form
        self._counts = kept.counts(rows.starts, rows.ends)
        self._new = torch.tensor([form.class_of(label) for label in kept.new_labels], dtype=torch.int64)
        self._relabelled = torch.from_numpy(kept.relabelled)
        self.batch_size, self.seed, self.rank, self.n_ranks = batch_size, seed, rank, n_ranks
        self.n_lanes, self.window_rows, self.drop_last = n_lanes, window_rows, drop_last
        # Shared, so that workers that live on see what is said here.
        self._now: Tensor = torch.zeros(2, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._plan(0)

    def set_epoch(self, epoch: int) -> None:
        """Read in the order of this epoch from now on, from its beginning."""
        self._now[:] = torch.tensor([epoch, 0])

    def __len__(self) -> int:
        """Return how many batches of this rank are left in the epoch."""
        return len(self.plan().sizes) - self.now[1]

    def _plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(
            self._counts,
            batch_size=self.batch_size,
            seed=self.seed,
            epoch=epoch,
            rank=self.rank,
            n_ranks=self.n_ranks,
            n_lanes=self.n_lanes,
            window_rows=self.window_rows,
            drop_last=self.drop_last,
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield this rank's batches from where the epoch was left; of a worker's process, those of its lanes.

        Raises:
            DataError: a file is damaged or was changed, or a row can't be read.
            RecipeError: the workers can't share the lanes.
        """
        worker = get_worker_info()
        number, n_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        check_shared(self.n_lanes, n_workers)
        epoch, start = self.now
        plan = self._plan(epoch)
        lanes: dict[int, Iterator[tuple[Any, ...]]] = {}
        for batch in range(start + number, len(plan.sizes), n_workers):
            lane = batch % self.n_lanes
            if lane not in lanes:
                lanes[lane] = self.lane(plan, epoch, batch)
            yield next(lanes[lane])

    @property
    def now(self) -> tuple[int, int]:
        """The epoch, and the batch from which it is read."""
        epoch, start = self._now.tolist()
        return epoch, start

    def plan(self) -> EpochPlan:
        """Return what this rank reads in the epoch."""
        return self._plan(self.now[0])

    def lane(self, plan: EpochPlan, epoch: int, batch: int, together: int = 1) -> Iterator[tuple[Any, ...]]:
        """Yield a batch and those of its lane after it, so many of them ``together`` at once."""
        lane = batch % self.n_lanes
        sizes = plan.sizes[lane :: self.n_lanes]
        n_before = batch // self.n_lanes
        windows = self._shuffled(plan, epoch, lane, int(sizes[:n_before].sum()))
        whole, order = next(windows)
        at = 0
        for number in range(n_before, len(sizes), together):
            size = int(sizes[number : number + together].sum())
            parts: list[tuple[Any, ...]] = []
            need = size
            while need:
                if at == len(order):
                    whole, order = next(windows)
                    at = 0
                n = min(need, len(order) - at)
                # Copies: a view would carry the whole window to another process.
                parts.append(taken(whole, order[at : at + n]))
                at, need = at + n, need - n
            yield joined(parts)

    def _shuffled(self, plan: EpochPlan, epoch: int, lane: int, place: int) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
        """Yield the windows of a lane and the order of their rows, from its row ``place`` on."""
        windows = [window for window in plan.windows(lane) if window.stop > place]
        first = windows[0].number
        each = max(self.window_rows // plan.n_places, 1)
        readers = [_Span(self._found(plan, min(start + first * each, stop), stop)) for start, stop in plan.places(lane)]
        for window in windows:
            parts = [reader.take(n) for reader, n in zip(readers, window.takes, strict=True) if n]
            whole = joined(parts)
            draw = generator(self.seed, "kept rows", epoch, self.rank, lane, window.number)
            order = torch.randperm(window.stop - window.start, generator=draw)
            yield whole, order[max(place - window.start, 0) :]

    def _found(self, plan: EpochPlan, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """Yield the kept rows from ``start`` to ``stop`` in their order, a few at a time."""
        for group, n_skipped, n_taken in plan.pieces(start, stop):
            upto = n_skipped + n_taken
            seen = 0
            for place, batch in read_group(self._rows, group, self._form.columns):
                rows = np.flatnonzero(self._kept.mask(place, place + batch.num_rows))
                wanted = rows[max(n_skipped - seen, 0) : max(upto - seen, 0)]
                seen += len(rows)
                if len(wanted):
                    yield select_kept(self._rows, self._form, batch, place, wanted, self._relabelled, self._new)
                if seen >= upto:
                    break

    def state_dict(self, n_taken: int) -> dict[str, Any]:
        """Return where the stream is, for a checkpoint.

        Args:
            n_taken: how many batches of this rank the loop took in this epoch, from the epoch's beginning. Only the loop knows: a
                loader's workers run ahead.
        """
        return {**self._identity(), "epoch": int(self._now[0]), "n_taken": n_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was, with as many workers as one likes.

        Raises:
            DataError: it is the state of a stream of other data, of other rows that stay, or with other settings.
        """
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise DataError(
                    f"the state is of a stream with {key} {state.get(key)}: got {value}; make the stream as it was"
                )
        epoch, n_taken = int(state["epoch"]), int(state["n_taken"])
        n_batches = len(self._plan(epoch).sizes)
        if not 0 <= n_taken <= n_batches:
            raise DataError(
                f"the state says that {n_taken} batches were taken of an epoch of {n_batches}: count them anew"
            )
        self._now[:] = torch.tensor([epoch, n_taken])

    def _identity(self) -> dict[str, Any]:
        names = ("batch_size", "seed", "n_ranks", "n_lanes", "window_rows", "drop_last")
        told = {name: getattr(self, name) for name in names}
        return {"data": self._rows.fingerprint, "kept": self._kept.sha256, **told}


def check_shared(n_lanes: int, n_workers: int) -> None:
    """Refuse workers that can't share the lanes evenly.

    Raises:
        RecipeError: it says how many lanes they could.
    """
    if n_lanes % n_workers:
        raise RecipeError(
            f"n_lanes {n_lanes} can't be shared by num_workers {n_workers}: expected a number of workers that divides it; give "
            f"n_lanes={n_lanes * n_workers}"
        )


class _Span:
    """Hands out as many of the rows that come as are asked for."""

    def __init__(self, rows: Iterator[tuple[Any, ...]]) -> None:
        self._rows = rows
        self._held: list[tuple[Any, ...]] = []

    def take(self, n: int) -> tuple[Any, ...]:
        """Return the next ``n`` rows."""
        n_held = sum(len(part[0]) for part in self._held)
        while n_held < n:
            self._held.append(next(self._rows))
            n_held += len(self._held[-1][0])
        whole = joined(self._held)
        self._held = [sliced(whole, n, n_held)] if n_held > n else []
        found: tuple[Any, ...] = sliced(whole, 0, n)
        return found


def sliced(tree: Any, start: int, stop: int) -> Any:
    """Return some rows of a structure, which share memory with it."""
    if isinstance(tree, dict):
        return {key: sliced(value, start, stop) for key, value in tree.items()}
    if isinstance(tree, tuple):
        return tuple(sliced(value, start, stop) for value in tree)
    return tree[start:stop]


def select_kept(
    rows: RowSet, form: Form, batch: Any, place: int, wanted: Ints, relabelled: Tensor, new: Tensor
) -> tuple[Any, ...]:
    """Return the numbers, inputs and targets of some rows of a batch, whose first row is number ``place``.

    Raises:
        DataError: a row can't be read; it says in which file.
    """
    index = place + wanted
    whole = len(wanted) == batch.num_rows
    chosen = batch if whole else batch.take(pa.array(wanted))
    try:
        inputs = form.inputs(chosen, index)
        if form.target is None:
            return torch.from_numpy(index), inputs
        targets = form.targets(chosen, index)
    except DataError as error:
        file = rows.files[rows.file_of[int(np.searchsorted(rows.ends, place, side="right"))]]
        raise DataError(f"{file}: {error}") from error
    numbers = torch.from_numpy(index)
    if len(relabelled):
        at = torch.searchsorted(relabelled, numbers).clamp(max=len(relabelled) - 1)
        hit = relabelled[at] == numbers
        targets[hit] = new[at[hit]].to(targets.dtype)
    return numbers, inputs, targets
