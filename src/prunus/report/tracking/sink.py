"""What does a place have to do that a run is told in?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["Sink"]


class Sink(Protocol):
    """One run's place: it takes the settings once, then numbers by step."""

    def settings(self, values: Mapping[str, str | float | int | bool | None]) -> None:
        """Take the recipe, flat: ``strategy.keep_fraction`` and so on."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Take numbers of one step; a name is a stage and what was measured, with slashes between."""

    def close(self) -> None:
        """Write what isn't written yet."""
