"""How are rows of a file read in any order, while a training computes on those before them?

The order is known, so a window of it is read at once, by the place of its rows in the file, in a thread of its own; what comes out
is in the order that was asked for. The first window is one batch, and each is twice the one before, up to a size in bytes: whoever
looks at a few rows doesn't wait for many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

__all__ = ["READ_AHEAD", "read_ahead"]

READ_AHEAD = 1
"""So many windows are read beside the one that is computed on."""

_WINDOW_BYTES, _COLD_WINDOW_BYTES = 1 << 20, 64 << 20


def read_ahead(
    order: Tensor,
    read: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    row_bytes: int,
    cold: bool = False,
    n_ahead: int | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of ``order``, a batch at a time, and what ``read`` returns for them.

    Args:
        read: returns one row for each of the rows, which it gets in ascending order.
        row_bytes: how much a row takes.
        cold: memory can't hold the file: larger windows read it from the disk in longer stretches.
        n_ahead: how many windows are read ahead; default: ``READ_AHEAD``. 0: none, in the thread that asks.
    """
    ahead = READ_AHEAD if n_ahead is None else n_ahead
    most = max((_COLD_WINDOW_BYTES if cold else _WINDOW_BYTES) // max(row_bytes, 1) // batch_size, 1)
    if not ahead or len(order) <= batch_size:
        for window in _windows(order, batch_size, most):
            yield from _batches(window, _in_order(read, window), batch_size)
        return
    pending: deque[tuple[Tensor, Future[Tensor]]] = deque()
    windows = _windows(order, batch_size, most)
    with ThreadPoolExecutor(ahead, thread_name_prefix="prunus-read-ahead") as pool:
        try:
            for window in windows:
                pending.append((window, pool.submit(_in_order, read, window)))
                if len(pending) > ahead:
                    first, future = pending.popleft()
                    yield from _batches(first, future.result(), batch_size)
            while pending:
                first, future = pending.popleft()
                yield from _batches(first, future.result(), batch_size)
        finally:
            for _, future in pending:
                future.cancel()


def _windows(order: Tensor, batch_size: int, most: int) -> Iterator[Tensor]:
    start, n_batches = 0, 1
    while start < len(order):
        stop = min(start + n_batches * batch_size, len(order))
        yield order[start:stop]
        start, n_batches = stop, min(2 * n_batches, most)


def _in_order(read: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    ascending, places = rows.sort()
    found = read(ascending)
    return torch.empty_like(found).index_copy_(0, places.to(found.device), found)


def _batches(window: Tensor, found: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(window), batch_size):
        yield window[start : start + batch_size], found[start : start + batch_size]
