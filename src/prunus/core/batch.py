"""What goes through a model at once, and what can be gone through in such pieces?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = ["Batch", "Batched"]


class Batch(NamedTuple):
    """Some examples: ``index`` holds their positions (on the CPU) inside the set that they came from.

    ``inputs`` is what the model takes, as :func:`prunus.core.calls.call` hands it over; ``targets`` any structure, or None.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    inputs: Any
    targets: Any


class Batched(Protocol):
    """What can be gone through in batches, as often as one likes."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield every example once."""
        ...
