from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.graph import analyze
from prunus.graph.solver.axes import Atom, cut, factors, find, fresh, leaves, leaves_of_product, product, sum_of, unify
from prunus.graph.solver.axis_positions import left_of, positions

DEEP = 4000


def chain(size: int, first: int = 1) -> Atom:
    """Return an axis that was cut again and again behind its first positions, as sliding windows do."""
    whole = rest = fresh(size)
    while rest.size > first:
        rest = cut(rest, [first, rest.size - first])[1]
    return whole


def labels(atom: Atom) -> list[tuple[tuple[Atom, int], ...]]:
    """Return, by the definition, which unit of which leaves lies at each position."""
    root = find(atom)
    if root.kind == "leaf":
        return [((root, unit),) for unit in range(root.size)]
    parts = [labels(part) for part in root.parts]
    if root.kind == "sum":
        return list(itertools.chain(*parts))
    return [tuple(itertools.chain(*place)) for place in itertools.product(*parts)]


def expression(draw: random.Random, depth: int, known: list[Atom]) -> Atom:
    if depth == 0 or draw.random() < 0.2:
        if known and draw.random() < 0.4:
            return draw.choice(known)
        known.append(fresh(draw.choice([2, 3])))
        return known[-1]
    parts = [expression(draw, depth - 1, known) for _ in range(draw.choice([2, 3]))]
    return sum_of(parts) if draw.random() < 0.6 else product(parts[:2])


@pytest.mark.parametrize("seed", range(20))
def test_units_lie_where_the_definition_says_and_sizes_follow(seed):
    draw = random.Random(seed)
    atom = expression(draw, 3, [])
    places = labels(atom)
    for leaf, index in positions(atom).items():
        for unit, row in enumerate(index):
            expected = [i for i, label in enumerate(places) for part in label if part == (leaf, unit)]
            assert sorted(row.tolist()) == expected
    sizes = {leaf: draw.randint(1, leaf.size) for leaf in set(leaves(atom))}
    left = [label for label in places if all(unit < sizes[leaf] for leaf, unit in label)]
    assert left_of(atom, sizes) == len(left)


def test_a_sum_thousands_deep_is_read_like_a_flat_one():
    deep = chain(DEEP)
    assert [leaf.size for leaf in leaves(deep)] == [1] * DEEP
    assert left_of(deep, {}) == DEEP
    assert torch.equal(torch.cat(list(positions(deep).values())), torch.arange(DEEP).unsqueeze(1))
    assert leaves_of_product(deep) == []
    assert factors(deep) == [find(deep)]


def test_two_sums_thousands_deep_are_brought_together():
    one, other = chain(DEEP), chain(DEEP, first=2)
    assert unify(one, other)
    assert find(one) is find(other)
    assert [piece.size for piece in cut(one, [5, DEEP - 5])] == [5, DEEP - 5]


def test_a_sum_thousands_deep_meets_a_product():
    deep, width = chain(DEEP, first=2), fresh(2)
    assert unify(deep, product([fresh(DEEP // 2), width]))
    assert left_of(deep, {find(width): 1}) == DEEP // 2


class Rising(nn.Module):
    """Neighbours in a long series are compared, so that its axis is cut at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(1, 8), nn.Linear(8, 1)

    def forward(self, x):
        rising = (x[:, 1:-1] > x[:, :-2]).float()
        return self.b(torch.relu(self.a(x[:, 1:-1, None]))).squeeze(-1) + rising + torch.zeros_like(rising)


def test_a_long_series_whose_neighbours_are_compared_is_pruned():
    torch.manual_seed(0)
    model, x = Rising().eval(), (torch.randn(2, DEEP),)
    graph = analyze(model, x)
    assert [(group.name, group.size) for group in graph.groups] == [("a", 8)]
    for prefer in ("eager", "graph"):
        smaller = shrink(model, x, graph, {"a": torch.arange(8) < 4}, prefer=prefer)
        assert smaller.kind == prefer
        out = smaller.model(*x)
        assert (out if isinstance(out, torch.Tensor) else out[0]).shape == (2, DEEP - 2)
