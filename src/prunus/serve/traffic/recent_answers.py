"""What was answered lately, so that a label that comes later finds its request?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prunus.serve.running.batcher import Answer
from prunus.serve.wire.tensor_data import Array

__all__ = ["Recent", "RecentAnswers"]


@dataclass(slots=True)
class Recent:
    """A request, its answers by version, and its labels once they are known."""

    arrays: list[Array]
    answers: dict[str, Answer]
    n_bytes: int
    labels: list[Any] | None = None


class RecentAnswers:
    """The last requests by their id, as many as fit into so many bytes; of one id the last."""

    def __init__(self, most: int = 4096, most_bytes: int = 32 * 2**20) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: OrderedDict[str, Recent] = OrderedDict()
        self._bytes = 0

    def keep(self, request_id: str, arrays: list[Array], n_bytes: int, version: str, answer: Answer) -> None:
        """Keep one request and its answer, and forget the oldest where there are too many."""
        n_bytes += 500 + sum(output.nbytes for output in answer)
        if n_bytes > self._most_bytes // 16:  # it would push out all others
            return
        if (old := self._kept.pop(request_id, None)) is not None:
            self._bytes -= old.n_bytes
        self._kept[request_id] = Recent(arrays, {version: answer}, n_bytes)
        self._bytes += n_bytes
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].n_bytes

    def find(self, request_id: str) -> Recent | None:
        """Return what was answered to a request; None where it is forgotten."""
        return self._kept.get(request_id)

    def labelled(self) -> Iterator[Recent]:
        """Yield the requests whose labels came, the latest first."""
        for recent in reversed(self._kept.values()):
            if recent.labels is not None:
                yield recent

    def forget(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0
