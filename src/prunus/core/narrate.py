"""What does a job in Python say while it goes on, if nobody listens?

On a terminal and in a notebook it draws a bar for the stage that goes on, on standard error; elsewhere all goes to the logger
``prunus``, a line every few seconds, and warnings show by themselves.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from prunus.core.events import Event

__all__ = ["Narrator"]

_log = logging.getLogger("prunus")


_BAR = 24


class Narrator:
    """A listener that tells of stages, notes and progress.

    Args:
        stream: where it draws; None: standard error if somebody watches it, else the logger ``prunus``.
        every_s: the least time between two lines of progress; a bar is drawn anew ten times a second at most.
        clock: tells the time, in seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, *, every_s: float = 3.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream, self.every_s, self.clock = stream, every_s, clock
        self._last = clock()
        self._drawn = ""  # the stage whose bar the line shows
        self._began = self._last

    def __call__(self, event: Event) -> None:
        """Tell of one event, or don't."""
        stream = self.stream or (sys.stderr if _is_watched(sys.stderr) else None)
        if stream is not None and event.kind == "progress" and _is_watched(stream):
            self._draw(event, stream)
            return
        text = _line(event)
        if text is None or (event.kind == "progress" and not self._is_time(self.every_s)):
            return
        if stream is None:
            _log.log(logging.WARNING if event.kind == "warning" else logging.INFO, text)
        else:
            stream.write(f"{self._cleared()}{text}\n")
            stream.flush()

    def _is_time(self, every_s: float) -> bool:
        now = self.clock()
        if now - self._last < every_s:
            return False
        self._last = now
        return True

    def _draw(self, event: Event, stream: TextIO) -> None:
        """Draw a bar over the one before; a finished one stays until the next line takes its place."""
        if event.stage != self._drawn:
            stream.write(self._cleared())
            self._drawn, self._began = event.stage, self.clock()
        elif not self._is_time(0.1) and event.done != event.total:
            return
        share = event.done / event.total if event.total else 0.0
        spent = self.clock() - self._began
        left = f", {spent * (1 - share) / share:.0f} s left" if 0 < share < 1 and spent > 2 else ""
        filled = round(_BAR * share)
        text = f"{event.stage} {'━' * filled}{'·' * (_BAR - filled)} {event.done} of {event.total}{left}{_facts(event)}"
        stream.write(f"\r{_plain(text, stream)[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        stream.flush()

    def _cleared(self) -> str:
        """Return what takes a bar off the line."""
        cleared = "\r\x1b[K" if self._drawn else ""
        self._drawn = ""
        return cleared


def _line(event: Event) -> str | None:
    if event.kind == "end":
        return f"{event.stage}: done in {event.facts['seconds']:.1f} s" if "seconds" in event.facts else None
    if event.kind in ("note", "warning"):
        return f"{'warning: ' if event.kind == 'warning' else ''}{event.stage}: {event.message}"
    return f"{event.stage}: {event.done} of {event.total}{_facts(event)}" if event.kind == "progress" else None


def _facts(event: Event) -> str:
    return "".join(f", {key} {value:.3g}" for key, value in event.facts.items() if isinstance(value, float))


def _plain(text: str, stream: TextIO) -> str:
    """Return a bar of other characters where a terminal hasn't these."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return text.replace("━", "#").replace("·", ".")
    return text


def _is_watched(stream: TextIO | None) -> bool:
    """Tell whether somebody looks at a stream: a terminal, or standard error in a notebook."""
    return stream is not None and (stream.isatty() or (stream is sys.stderr and "ipykernel" in sys.modules))
