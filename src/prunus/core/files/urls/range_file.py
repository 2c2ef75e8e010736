"""How is an object read like a file, without fetching more of it than is needed?

Each read becomes a request for a range of bytes; one that goes on where the last ended asks for more and more ahead. Who knows what
is needed says so before (:meth:`RangeFile.plan`): then what lies together is fetched at once, and the next while this is worked on.
"""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from prunus.core.errors import DataError
from prunus.core.files.urls.store import Facts, connection, nothing_at, tried

__all__ = ["RangeFile"]

_FIRST_BYTES, _MOST_BYTES = 1 << 16, 8 << 20
"""So much is asked for at least, and so much ahead at most."""
_LEAST_BYTES = 1 << 20
"""Groups are taken together until they hold so much."""
_PART_BYTES = 8 << 20
"""A longer range is fetched as several at a time."""
_GAP_BYTES = 1 << 14
"""What lies between two ranges is fetched, too, where that is less than another request costs."""
_GROUP_BYTES = 64 << 20
"""More than that isn't fetched before it is asked for."""
_THREADS = 4

Span = tuple[int, int]


class RangeFile(io.RawIOBase):
    """An object, opened for reading.

    Args:
        url: where it lies.
        expected: what was said of it before, if it must be that and no later one.

    Raises:
        DataError: it isn't there, may not be read, or is another one by now.
        RunError: the connection broke.
    """

    def __init__(self, url: str, expected: Facts | None = None) -> None:
        super().__init__()
        self.url = url
        store = connection(url)
        try:
            # Their own buffers hold nothing: what is fetched when is decided here.
            self._file: Any = tried(url, lambda: store.open(url, "rb", cache_type="none"))
            details = getattr(self._file, "details", None) or {}
            self.size_bytes = int(
                self._file.size if getattr(self._file, "size", None) is not None else store.info(url)["size"]
            )
        except FileNotFoundError as error:
            raise DataError(f"{url}: {nothing_at(url)}") from error
        version = str(details.get("ETag") or details.get("etag") or "").strip('"')
        if expected is not None and (
            self.size_bytes != expected.size_bytes or (version and expected.version and version != expected.version)
        ):
            raise DataError(f"{url}: it was changed since it was listed; start again")
        self._place = 0
        self._held: tuple[int, bytes] = (0, b"")
        self._ahead = _FIRST_BYTES
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._groups: list[list[Span]] = []
        self._starts: list[tuple[int, int, int]] = []
        self._coming: dict[Span, list[Future[bytes]]] = {}

    def plan(self, groups: Sequence[Sequence[Span]]) -> None:
        """Say which ranges are going to be read, a group after the other: each is fetched when the one before it is begun."""
        for futures in self._coming.values():
            for future in futures:
                future.cancel()
        self._coming = {}
        self._groups = [_joined(group) for group in _worth_a_request(groups)]
        self._starts = sorted(
            (start, stop, number) for number, group in enumerate(self._groups) for start, stop in group
        )

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, fewer only at the end."""
        with self._lock:
            left = max(self.size_bytes - self._place, 0)
            n = left if size is None or size < 0 else min(size, left)
            found = self._bytes(self._place, self._place + n) if n else b""
            self._place += len(found)
            return found

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with the next bytes."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; nothing is fetched for it."""
        self._place = place + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size_bytes}[whence]
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read from anywhere."""
        return True

    def close(self) -> None:
        """End what is still being fetched."""
        if not self.closed:
            self.plan([])
            if self._pool is not None:
                self._pool.shutdown(wait=True, cancel_futures=True)
            self._file.close()
        super().close()

    def _bytes(self, start: int, stop: int) -> bytes:
        begins, held = self._held
        if begins <= start and stop <= begins + len(held):
            return held[start - begins : stop - begins]
        planned = self._planned(start, stop)
        if planned is not None:
            return planned
        goes_on = start == begins + len(held) and start > 0
        self._ahead = min(self._ahead * 2, _MOST_BYTES) if goes_on else _FIRST_BYTES
        first = start
        if stop > self.size_bytes - _FIRST_BYTES:  # the end says what is where
            first = min(start, max(self.size_bytes - _FIRST_BYTES, 0))
        last = min(max(stop, first + self._ahead), self.size_bytes)
        found = self._together(self._asked(first, last))
        self._held = (first, found)
        return found[start - first : stop - first]

    def _planned(self, start: int, stop: int) -> bytes | None:
        """Return bytes of the plan; what of it comes next is asked for, what lies behind is let go."""
        place = bisect_right(self._starts, (start, self.size_bytes, len(self._groups))) - 1
        if place < 0 or stop > self._starts[place][1]:
            return None
        first, last, number = self._starts[place]
        near = [group for group in self._groups[number : number + 2] if sum(b - a for a, b in group) <= _GROUP_BYTES]
        wanted = [span for group in near for span in group]
        for span in wanted:
            if span not in self._coming:
                self._coming[span] = self._asked(*span)
        # A batch of many groups goes through them once for each column: what was fetched stays while there is room.
        total = sum(b - a for a, b in self._coming)
        for span in sorted(self._coming):
            if total > 3 * _GROUP_BYTES and span not in wanted:
                total -= span[1] - span[0]
                del self._coming[span]
        if (first, last) not in self._coming:
            return None
        found = self._together(self._coming[first, last])
        self._held = (first, found)
        return found[start - first : stop - first]

    def _asked(self, start: int, stop: int) -> list[Future[bytes]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="prunus-read")
        edges = range(start, stop, _PART_BYTES)
        return [self._pool.submit(self._fetched, edge, min(edge + _PART_BYTES, stop)) for edge in edges]

    @staticmethod
    def _together(parts: list[Future[bytes]]) -> bytes:
        return parts[0].result() if len(parts) == 1 else b"".join(part.result() for part in parts)

    def _fetched(self, start: int, stop: int) -> bytes:
        """Return a range that is all there."""

        def ask() -> bytes:
            found: bytes
            if hasattr(self._file, "_fetch_range"):
                found = self._file._fetch_range(start, stop)
            else:
                with self._lock_of_file:
                    self._file.seek(start)
                    found = self._file.read(stop - start)
            if len(found) != stop - start:
                raise ConnectionError(f"{len(found)} bytes came of {stop - start}")
            return found

        try:
            return tried(self.url, ask)
        except FileNotFoundError as error:
            raise DataError(f"{self.url}: it was removed while it was read") from error

    _lock_of_file = threading.Lock()
    """For the few stores whose files have one place only."""


def _worth_a_request(groups: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """Return the groups, small ones that follow each other as one.

    >>> _worth_a_request([[(0, 10)], [(20, 30)], [(40, 3_000_000)], [(3_000_000, 3_000_010)]])
    [[(0, 10), (20, 30), (40, 3000000)], [(3000000, 3000010)]]
    """
    found: list[list[Span]] = []
    size = _LEAST_BYTES
    for group in groups:
        if size >= _LEAST_BYTES:
            found.append([])
            size = 0
        found[-1] += group
        size += sum(stop - start for start, stop in group)
    return found


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Return ranges in order, those together that lie near each other.

    >>> _joined([(4, 10), (12, 20), (900_000, 900_010)])
    [(4, 20), (900000, 900010)]
    """
    found: list[Span] = []
    for start, stop in sorted(spans):
        if found and start - found[-1][1] <= _GAP_BYTES:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found
