"""How is a number kept of each step of an epoch, when there are very many steps?

A tensor of one number takes some hundred times as much as the number. They are put together whenever there are a thousand of
them, so that an epoch holds the numbers and no more; nothing waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["StepValues"]

_AT_ONCE = 1 << 10


class StepValues:
    """The numbers of steps, one tensor of the same shape for each, in their order."""

    def __init__(self) -> None:
        self._held: list[Tensor] = []
        self._parts: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._held or self._parts)

    def append(self, value: Tensor) -> None:
        """Keep the number of one more step."""
        self._held.append(value)
        if len(self._held) == _AT_ONCE:
            self._put_together()

    def _put_together(self) -> None:
        if self._held:
            self._parts.append(torch.stack(self._held))
            self._held = []

    def whole(self) -> Tensor:
        """Return all of them, ``(steps, ...)``, as one stack of them would be."""
        self._put_together()
        return torch.cat(self._parts)
