"""Which groups got smaller in a model that another config builds, as far as its shapes tell?

Every group either keeps its size or is scaled by the one ratio by which the settings were. Each dimension of each parameter says
how large what lies in it must be together; mostly one reading is left, and where heads or their dimension may have shrunk, two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from prunus.graph import AxisGraph
from prunus.graph.solver.axes import Atom, leaves
from prunus.graph.solver.axis_positions import left_of

__all__ = ["scaled_groups"]

_MOST_OPEN = 10
"""A dimension of more undecided groups is looked at when others have decided some."""

Shapes = Mapping[str, tuple[int, ...]]


def scaled_groups(graph: AxisGraph, shapes: Shapes, ratio: Fraction) -> Iterator[frozenset[str]]:
    """Yield the sets of groups that have the share ``ratio`` of their size in a model of these shapes.

    Args:
        shapes: of the parameters, by name.
        ratio: below 1.
    """
    assert graph.solution is not None
    states = graph.solution.solver.states
    names: dict[Atom, str] = {}
    for group in graph.groups:
        names |= dict.fromkeys(graph.solution.axes_of(group.name), group.name)
    if any(name in states and len(states[name]) != len(shape) for name, shape in shapes.items()):
        return
    dims = [
        _Dimension(atom, size, names)
        for name, shape in shapes.items()
        for atom, size in zip(states.get(name, ()), shape, strict=False)
    ]
    sizes = {group.name: group.size for group in graph.groups}
    kinds = {group.name: group.kind for group in graph.groups}
    known = {name: False for name, size in sizes.items() if (size * ratio).denominator != 1}
    seen = set()
    for first in (("head",), ("head_dim",), ()):
        found = _solved(dims, dict(known), ratio, [name for kind in first for name in sizes if kinds[name] == kind])
        if found is not None and found and found not in seen:
            seen.add(found)
            yield found


class _Dimension:
    """One dimension of one parameter: what lies in it, and how many positions it has."""

    def __init__(self, atom: Atom, size: int, names: Mapping[Atom, str]) -> None:
        self.atom, self.size = atom, size
        self.leaf = {leaf: names[leaf] for leaf in dict.fromkeys(leaves(atom)) if leaf in names}
        self.names = tuple(dict.fromkeys(self.leaf.values()))

    def fits(self, scaled: Mapping[str, bool], ratio: Fraction) -> bool:
        """Tell whether it has this size when these groups are scaled."""
        sizes = {leaf: int(leaf.size * ratio) for leaf, name in self.leaf.items() if scaled[name]}
        return left_of(self.atom, sizes) == self.size


def _solved(
    dims: list[_Dimension], known: dict[str, bool], ratio: Fraction, preferred: list[str]
) -> frozenset[str] | None:
    """Return the scaled groups; where the shapes leave it open, the preferred ones are, and others aren't."""
    if not _propagate(dims, known, ratio):
        return None
    waiting = [*preferred, *(name for dim in dims for name in dim.names)]
    for name in waiting:
        if name not in known:
            known[name] = name in preferred
            if not _propagate(dims, known, ratio):
                return None
    return frozenset(name for name, scaled in known.items() if scaled)


def _propagate(dims: list[_Dimension], known: dict[str, bool], ratio: Fraction) -> bool:
    """Decide what follows from what is known, in place; False where nothing fits."""
    waiting = list(dims)
    changed = True
    while changed:
        changed, later = False, []
        for dim in waiting:
            open_ = [name for name in dim.names if name not in known]
            if len(open_) > _MOST_OPEN:
                later.append(dim)
                continue
            fixed = {name: known[name] for name in dim.names if name in known}
            ways = [
                way
                for choice in itertools.product((False, True), repeat=len(open_))
                if dim.fits(fixed | (way := dict(zip(open_, choice, strict=True))), ratio)
            ]
            if not ways:
                return False
            for name in open_:
                if len({way[name] for way in ways}) == 1:
                    known[name] = ways[0][name]
                    changed = True
            if any(name not in known for name in open_):
                later.append(dim)
        waiting = later
    return True


def common_size(graph: AxisGraph, names: frozenset[str]) -> int:
    """Return the greatest number that divides the sizes of all these groups."""
    return math.gcd(*(group.size for group in graph.groups if group.name in names))
