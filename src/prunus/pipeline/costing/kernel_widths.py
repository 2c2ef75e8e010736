"""In which widths do channels come, so that a runtime's kernels are as fast as there is less to compute?

Convolutions count channels in blocks as wide as the processor's vectors: a width between two blocks costs what the wider does, and
one that four doesn't divide falls back to kernels that are several times slower (measured: ONNX Runtime,
docs/explanation/arithmetic-and-time.md). So widths are kept to blocks wherever that leaves what was asked for; channels that fill
no block stay, as they cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import lcm

from torch import nn

from prunus.core.types import Stratum
from prunus.graph import Group
from prunus.select import Cost, cost_aware, floor_counts

__all__ = ["BLOCK", "convolved", "fitting", "in_multiples", "width_at"]

BLOCK = 16
"""The block where none was measured: that of vectors of 16 floats, and two of those of 8."""
_ALIGNED = 4
"""The least multiple with which a width stays among the fast kernels."""
_NEAR = 0.95
"""Blocks are too coarse for a model where they leave less than this of what may be left."""


def convolved(groups: Sequence[Group], model: nn.Module) -> dict[str, int]:
    """Return the sizes of the groups whose units are channels of convolutions over a picture."""
    dims = {name: tensor.dim() for name, tensor in model.state_dict().items()}
    return {g.name: g.size for g in groups if any(dims.get(member.tensor, 0) >= 4 for member in g.members)}


def width_at(kept: float, block: int = BLOCK) -> int:
    """Return the multiple for a group that keeps about so many units.

    >>> [width_at(kept) for kept in (40, 16, 12, 6)]
    [16, 16, 4, 1]
    """
    return block if kept >= block else _ALIGNED if kept >= 2 * _ALIGNED else 1


def fitting(strata: Sequence[Stratum], sizes: Mapping[str, int], cost: Cost, limit: float) -> list[Stratum]:
    """Return the strata in the coarsest widths that leave nearly all of what ``limit`` allows.

    Args:
        sizes: what :func:`convolved` found; other strata keep their multiples.
    """
    # First blocks everywhere, then only where there are two, and fast kernels elsewhere.
    blocks = {name: min(size, BLOCK) for name, size in sizes.items()}
    blocks_of_two = {name: BLOCK if size >= 2 * BLOCK else width_at(size / 2) for name, size in sizes.items()}
    for multiples in (blocks, blocks_of_two):
        rounded = in_multiples(strata, multiples)
        if cost.total(floor_counts(rounded)) <= limit <= cost.total(cost_aware(rounded, cost, limit)) / _NEAR:
            return rounded
    return list(strata)


def in_multiples(strata: Sequence[Stratum], multiples: Mapping[str, int]) -> list[Stratum]:
    """Return the strata with other multiples, which what they have already divides."""
    return [replace(s, multiple=lcm(s.multiple, multiples.get(s.name, 1))) for s in strata]
