"""Which groups can only be cut together, because one number stands for all of their sizes?

A class that is built from a config has one ``intermediate_size`` for all layers: each may lose other units, but all lose as many.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Joint", "Setting"]

Setting = tuple[tuple[str, ...], str, int | None, int | float]
"""The config inside the config, the setting's name, the place in it where it is a list, and its value in the whole model."""


@dataclass(frozen=True)
class Joint:
    """Groups whose sizes are one choice: ``n_steps`` steps are whole, and at step ``k`` each keeps ``size * k / n_steps`` units.

    ``settings`` are what says so in the config: each has the share ``k / n_steps`` of its value then. ``said`` are sizes that the
    config leaves to other settings, and that have to be said first so that they don't follow those.
    """

    groups: tuple[str, ...]
    n_steps: int
    settings: tuple[Setting, ...]
    said: tuple[Setting, ...] = ()

    @property
    def name(self) -> str:
        """What the settings are called."""
        return " with ".join(name if place is None else f"{name}[{place}]" for _, name, place, _ in self.settings)
