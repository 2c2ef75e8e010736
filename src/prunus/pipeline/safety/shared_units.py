"""How is what a suite measures unit by unit kept as soon as it is known, and measured by workers where there are some?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from prunus.core.calls import tensors
from prunus.data import Examples
from prunus.pipeline.jobs.parts import Parts
from prunus.pipeline.jobs.workspace import Workspace

__all__ = ["Arrays", "Units", "content_of", "shared_units"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
Units = Callable[[Sequence[str], Callable[[int, Callable[[int, int], None]], Arrays]], list[Arrays]]
"""Has units of a suite measured, by their names, and returns what each gave, in their order.

The function that measures one is told its place, and tells how many of how many steps it has done.
"""
Tell = Callable[[str, int, int], None]
_NUMBERS = "biuf"
"""Kinds of columns that can be kept."""


def shared_units(workspace: Workspace, parts: Parts, suite: str, name: str, tell: Tell) -> Units:
    """Return who measures a suite's units: ``parts`` shares them out, and each is kept under ``name`` and its own."""

    def units(names: Sequence[str], measure: Callable[[int, Callable[[int, int], None]], Arrays]) -> list[Arrays]:
        held = [f"{name} {unit}" for unit in names]

        def one(place: int) -> Arrays:
            def progress(done: int, of: int) -> None:
                tell(suite, place * of + done, len(names) * of)

            kept = workspace.kept_state(held[place])
            if kept is not None:
                progress(1, 1)
                return {key: column.numpy() for key, column in kept.items()}
            found = measure(place, progress)
            if all(column.dtype.kind in _NUMBERS for column in found.values()):
                workspace.kept(
                    held[place],
                    lambda: {key: torch.from_numpy(np.ascontiguousarray(column)) for key, column in found.items()},
                )
            return found

        return parts.each(workspace, suite, names, one, kept=lambda place: workspace.is_kept(held[place]))

    return units


def content_of(examples: Examples) -> str:
    """Return a hash of what the examples hold."""
    found = hashlib.sha256(repr(list(examples.ids)).encode())
    for batch in examples.batches(256):
        for _, value in (*tensors(batch.inputs), *tensors(batch.targets)):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
