"""Which units may go *together*, if the layers that read them are refitted to what is left?

Judged one by one, two units that say the same both look worthless (each could go), or both precious. Here the units of a group go
one after the other: always the one whose absence the refitted readers feel least, given those that have gone before. What the rest
takes over is in the next judgement, by downdating the inverse second moments, as Optimal Brain Surgeon does for single weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.core.errors import ShapeError

__all__ = ["LARGEST", "Reader", "eliminate"]

LARGEST = 6144
"""Readers of more inputs are left out: the square of them, in double precision, is held and worked through for each unit."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads the units of a group.

    Shapes:
        ``weight`` is ``(outputs, inputs)``, ``gram`` ``(inputs, inputs)``, the mean outer product of the inputs (their covariance,
        where something takes the means over); ``columns`` ``(units, positions)``: which inputs each unit is.
    """

    weight: Tensor
    gram: Tensor
    columns: Tensor


@torch.no_grad()
def eliminate(readers: Sequence[Reader], *, damping: float = 0.01) -> Tensor:
    """Return one saliency per unit: the rise of the readers' error when it went, in the order in which the units went.

    Args:
        readers: each counts by the share of its outputs' square that is lost.
        damping: of the second moments, as a share of their mean.

    Shapes:
        ``(units,)``.
    Units:
        Shares of the outputs' square. A unit that went later has a higher saliency, also where it cost less than one before it.

    Raises:
        ShapeError: no readers, or parts that don't fit.

    References:
        Meng et al., ICML 2024, arXiv:2403.12983 (OSSCAR: the layer-wise problem, by local search); Hassibi and Stork, NeurIPS 1992.
        Here by backward elimination without swaps, so that a larger share keeps a superset.

    >>> gram = torch.tensor([[1.0, 0.99, 0.0], [0.99, 1.0, 0.0], [0.0, 0.0, 0.5]])
    >>> eliminate([Reader(torch.ones(1, 3), gram, torch.arange(3).unsqueeze(1))], damping=0.0).argsort().tolist()
    [0, 2, 1]
    """
    if not readers:
        raise ShapeError("expected at least one layer that reads the units: got none")
    states = [_State(reader, damping) for reader in readers]
    n_units = len(readers[0].columns)
    found = torch.zeros(n_units, dtype=torch.float64)
    gone = torch.zeros(n_units, dtype=torch.bool)
    least = 0.0
    for _ in range(n_units):
        rise = torch.stack([state.rises() for state in states]).sum(dim=0).cpu().masked_fill(gone, torch.inf)
        unit = int(rise.argmin())
        least = max(float(rise[unit]), least * (1 + 1e-9) + 1e-300)
        found[unit], gone[unit] = least, True
        for state in states:
            state.remove(unit)
    return found


class _State:
    """A reader after some units have gone: its refitted weights, and the inverse second moments of the inputs that are left."""

    def __init__(self, reader: Reader, damping: float) -> None:
        weight, gram, self._columns = (
            reader.weight.double(),
            reader.gram.double(),
            reader.columns.to(reader.weight.device),
        )
        n_inputs = weight.shape[1]
        if gram.shape != (n_inputs, n_inputs):
            raise ShapeError(
                f"weight (outputs, inputs) and gram (inputs, inputs) must fit: got {tuple(weight.shape)} and {tuple(gram.shape)}"
            )
        self._whole = float(((weight @ gram) * weight).sum())
        mean = float(gram.diagonal().mean())
        # What an input that never moves is multiplied with doesn't matter: an equation of its own keeps the inverse finite.
        dead = gram.diagonal() <= 1e-12 * mean
        extra = torch.full((n_inputs,), damping * mean, dtype=torch.float64, device=gram.device)
        extra, weight = extra + dead * (mean or 1.0), weight * ~dead
        self._inverse = torch.linalg.inv(gram + torch.diag(extra))
        # Only sums over outputs are asked for, which an orthogonal change of the outputs leaves as they are.
        self._weight = torch.linalg.qr(weight, mode="r").R if weight.shape[0] > n_inputs else weight

    def rises(self) -> Tensor:
        """Return by how much the error rises if one unit more goes, as a share of the outputs' square; ``(units,)``."""
        if self._whole <= 0:
            return torch.zeros(len(self._columns), dtype=torch.float64, device=self._weight.device)
        if self._columns.shape[1] == 1:
            at = self._columns[:, 0]
            own = self._inverse.diagonal()[at].clamp_min(1e-300)
            alone: Tensor = self._weight[:, at].square().sum(dim=0) / own / self._whole
            return alone
        blocks = self._inverse[self._columns.unsqueeze(2), self._columns.unsqueeze(1)]
        dead = (blocks.diagonal(dim1=1, dim2=2) == 0).double()
        parts = self._weight[:, self._columns].permute(1, 2, 0)  # (units, positions, outputs)
        solved = torch.linalg.solve(blocks + torch.diag_embed(dead), parts)
        together: Tensor = (parts * solved).sum(dim=(1, 2)) / self._whole
        return together

    def remove(self, unit: int) -> None:
        """Take a unit out: the rest takes over what it can."""
        at = self._columns[unit]
        block = self._inverse[at][:, at]
        rows = torch.linalg.solve(block, self._inverse[at])
        self._weight = self._weight - self._weight[:, at] @ rows
        self._inverse = self._inverse - self._inverse[:, at] @ rows
        self._weight[:, at] = 0
        self._inverse[at] = 0
        self._inverse[:, at] = 0
