"""What does a run tell while it goes on?

One event type serves the log file, the progress bars and the plain lines. A listener is any function of an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Event", "Listener", "silent"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    ``stage`` names where in the flow (``seed 0 / recover``); ``done`` of ``total`` says how far, in the stage's own
    steps; ``facts`` are numbers for machines.
    """

    kind: Literal["start", "progress", "end", "note", "warning"]
    stage: str
    message: str = ""
    done: int = 0
    total: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore an event."""
