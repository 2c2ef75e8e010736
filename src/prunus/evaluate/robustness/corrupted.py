"""How are examples gone through with their inputs made worse, the same for every model that is compared?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.core.batch import Batch, Batched
from prunus.core.runtime import derive_seed
from prunus.evaluate.robustness.corruptions import Corruption, InputFacts
from prunus.evaluate.robustness.input_kind import Place, replaced, tensor_at

__all__ = ["Changed", "corrupted"]

Change = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Changed:
    """Examples with the tensor that they are about changed; what is drawn hangs on the seed and the batch alone.

    ``scale`` and ``undo`` lead from the data's own numbers to the model's, and back.
    """

    examples: Batched
    place: Place
    change: Change
    scale: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]
    seed: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def example_bytes(self) -> int:
        """How large one example is: batches are as large as the unchanged ones."""
        return int(getattr(self.examples, "example_bytes", 0))

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield every example once."""
        for number, batch in enumerate(self.examples.batches(batch_size, generator)):
            value = tensor_at(batch.inputs, self.place.where)
            draw = torch.Generator().manual_seed(derive_seed(self.seed, number))
            changed = self.change(self.undo(value).detach().cpu(), draw)
            changed = self.scale(changed).to(value.dtype).to(value.device)
            yield Batch(batch.index, replaced(batch.inputs, self.place.where, changed), _targets(batch, self.place))


def _targets(batch: Batch, place: Place) -> Any:
    """Return the targets; those of a language model are its unchanged tokens."""
    if batch.targets is not None or place.kind != "tokens":
        return batch.targets
    labels = batch.inputs.get("labels") if isinstance(batch.inputs, Mapping) else None
    return tensor_at(batch.inputs, place.where) if labels is None else labels


def corrupted(
    examples: Batched,
    place: Place,
    one: Corruption,
    severity: int,
    facts: InputFacts,
    *,
    scale: Callable[[Tensor], Tensor],
    undo: Callable[[Tensor], Tensor],
    seed: int,
) -> Changed:
    """Return the examples under a corruption."""

    def change(value: Tensor, draw: torch.Generator) -> Tensor:
        return one.function(value, severity, draw, facts)

    return Changed(examples, place, change, scale, undo, derive_seed(seed, "corruption", one.name, severity))
