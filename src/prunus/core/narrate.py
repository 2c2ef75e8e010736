"""What does a job in Python say while it goes on, if nobody listens?

On a terminal and in a notebook it writes a line on standard error every few seconds; elsewhere all goes to the logger ``prunus``,
where warnings show by themselves.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

from prunus.core.events import Event

__all__ = ["Narrator"]

_log = logging.getLogger("prunus")


class Narrator:
    """A listener that tells of stages, notes and, every few seconds, of progress.

    Args:
        stream: where lines go; None: standard error if somebody watches it, else the logger ``prunus``.
        every_s: the least time between two lines of progress.
        clock: tells the time, in seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, *, every_s: float = 3.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream, self.every_s, self.clock = stream, every_s, clock
        self._last = clock()

    def __call__(self, event: Event) -> None:
        """Tell of one event, or don't."""
        stream = self.stream or (sys.stderr if _is_watched() else None)
        text = self._line(event)
        if text is None:
            return
        if stream is not None:
            stream.write(f"{text}\n")
            stream.flush()
        else:
            _log.log(logging.WARNING if event.kind == "warning" else logging.INFO, text)

    def _line(self, event: Event) -> str | None:
        if event.kind == "end":
            return f"{event.stage}: done in {event.facts['seconds']:.1f} s" if "seconds" in event.facts else None
        if event.kind in ("note", "warning"):
            return f"{'warning: ' if event.kind == 'warning' else ''}{event.stage}: {event.message}"
        if event.kind != "progress" or self.clock() - self._last < self.every_s:
            return None
        self._last = self.clock()
        facts = "".join(f", {key} {value:.3g}" for key, value in event.facts.items() if isinstance(value, float))
        return f"{event.stage}: {event.done} of {event.total}{facts}"


def _is_watched() -> bool:
    """Tell whether somebody looks at standard error: a terminal, or a notebook's kernel."""
    return bool(sys.stderr and sys.stderr.isatty()) or "ipykernel" in sys.modules
