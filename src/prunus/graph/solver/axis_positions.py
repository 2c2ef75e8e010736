"""Where do the units of a leaf lie along an axis, and how many positions of it are left after a cut?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from prunus.graph.solver.axes import Atom, find, fold

__all__ = ["left_of", "positions"]


def left_of(atom: Atom, sizes: Mapping[Atom, int]) -> int:
    """Return how many positions of an axis are left when leaf ``a`` keeps ``sizes[a]``."""
    return fold(
        atom,
        lambda root: sizes.get(root, root.size) if root.kind == "leaf" else None,
        lambda root, parts: sum(parts) if root.kind == "sum" else math.prod(parts),
    )


def positions(atom: Atom) -> dict[Atom, Tensor]:
    """Return, for each leaf of ``atom``, where its units lie: ``(units, positions)`` int64.

    >>> from prunus.graph.solver.axes import fresh, product
    >>> a, b = fresh(2), fresh(3)
    >>> positions(product([a, b]))[b]
    tensor([[0, 3],
            [1, 4],
            [2, 5]])
    """
    found: dict[Atom, list[Tensor]] = {}
    for leaf, index in _occurrences(find(atom)):
        found.setdefault(leaf, []).append(index)
    return {leaf: torch.cat(parts, dim=1) for leaf, parts in found.items()}


def _occurrences(whole: Atom) -> Iterator[tuple[Atom, Tensor]]:
    """Yield every leaf with the positions of its units, each time that it occurs."""
    # Position i of an atom on the stack lies at ``start + i * stride`` in the whole, for each of its starts.
    stack = [(whole, 1, torch.zeros(1, dtype=torch.int64))]
    while stack:
        root, stride, starts = stack.pop()
        if root.kind == "leaf":
            yield root, torch.arange(root.size).unsqueeze(1) * stride + starts
            continue
        inside: list[tuple[Atom, int, Tensor]] = []
        before, after, offset = 1, root.size, 0
        for part in map(find, root.parts):
            if root.kind == "sum":
                inside.append((part, stride, starts + offset * stride))
                offset += part.size
                continue
            after //= part.size
            outer = torch.arange(before) * (part.size * after)
            grid = (outer[:, None] + torch.arange(after)[None, :]).reshape(-1, 1)
            inside.append((part, stride * after, (grid * stride + starts).reshape(-1)))
            before *= part.size
        stack.extend(reversed(inside))
