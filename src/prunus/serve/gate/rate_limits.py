"""How many requests a second does one caller get?"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

__all__ = ["RateLimits"]

_MOST_CALLERS = 10_000


class RateLimits:
    """A bucket for each caller that holds requests for one second (at least one), and fills at ``rate`` a second."""

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, max(rate, 1.0)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, caller: str, now: float | None = None) -> float:
        """Take one request; return 0, or how long until the next one is free, of which none is taken."""
        now = monotonic() if now is None else now
        left, then = self._left.get(caller, (self._most, now))
        left = min(self._most, left + (now - then) * self._rate)
        allowed = left >= 1
        self._left[caller] = (left - 1 if allowed else left, now)
        self._left.move_to_end(caller)
        if len(self._left) > _MOST_CALLERS:  # whoever asked longest ago has a full bucket by now
            self._left.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate
