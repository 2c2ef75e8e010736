"""Which layers read the units of a group, through which of their inputs, and what is known of these?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunus.score.elimination import LARGEST, Reader
from prunus.score.evidence.gather import Evidence

if TYPE_CHECKING:
    from prunus.graph import Member

__all__ = ["Read", "layers_reading"]


@dataclass(frozen=True)
class Read:
    """A weight that multiplies the units of a group, as a matrix.

    Shapes:
        ``weight`` is ``(outputs, inputs)``, ``gram`` ``(inputs, inputs)`` the mean outer product of the inputs and ``mean``
        ``(inputs,)``; ``columns`` ``(units, positions)`` says which inputs each unit is.
    """

    name: str
    weight: Tensor
    gram: Tensor
    mean: Tensor
    columns: Tensor
    flipped: bool

    @property
    def reader(self) -> Reader:
        """The problem of refitting it, with means left to a bias or a norm."""
        return Reader(self.weight, self.gram - torch.outer(self.mean, self.mean), self.columns)

    def shaped(self, matrix: Tensor, like: Tensor) -> Tensor:
        """Return a matrix of this shape in that of the parameter."""
        return (matrix.t() if self.flipped else matrix).reshape(like.shape)


def layers_reading(evidence: Evidence, members: Sequence[Member]) -> list[Read]:
    """Return the members as layers whose inputs the units are; convolutions in groups and the widest layers are left out."""
    found = []
    for member in members:
        name = member.tensor
        gram, known = evidence.input_gram.get(name), (evidence.of("inverse_gram") or {}).get(name)
        if gram is None or known is None or gram.shape[-1] > LARGEST or (gram.dim() == 3 and len(gram) > 1):
            continue
        weight = evidence.weight[name]
        if known.shape[member.dim] != weight.shape[member.dim]:  # the units are what it makes
            continue
        flipped = member.dim == 0 and weight.dim() == 2
        if not flipped and member.dim != 1:
            continue
        matrix = weight.t() if flipped else weight
        n_places = matrix[0, 0].numel()
        flat, gram = matrix.flatten(1), gram.reshape(gram.shape[-2:])
        if flat.shape[1] != len(gram):
            continue
        columns = (member.index.unsqueeze(2) * n_places + torch.arange(n_places)).flatten(1)
        found.append(Read(name, flat, gram, evidence.input_mean[name].reshape(-1), columns, flipped))
    return found
