from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunus.core.errors import ShapeError
from prunus.graph import analyze
from prunus.score import gather, score_groups
from prunus.score.elimination import Reader, eliminate
from recover_stand_ins import TensorExamples

UNITS = st.integers(2, 6)


def problem(n_units: int, n_places: int, n_outputs: int, seed: int, n_rows: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs that hang together, a weight, and which columns each unit is, in any order."""
    draw = torch.Generator().manual_seed(seed)
    n = n_units * n_places
    mix = torch.randn(n, n, generator=draw, dtype=torch.float64)
    rows = torch.randn(n_rows, n, generator=draw, dtype=torch.float64) @ mix
    weight = torch.randn(n_outputs, n, generator=draw, dtype=torch.float64)
    return rows, weight, torch.randperm(n, generator=draw).view(n_units, n_places)


def lost(rows: Tensor, weight: Tensor, kept: Tensor) -> float:
    """What the best weight on the kept columns leaves of the outputs, as a share of their square."""
    wanted = rows @ weight.T
    if not len(kept):
        return 1.0
    best = torch.linalg.lstsq(rows[:, kept], wanted).solution
    return float((rows[:, kept] @ best - wanted).square().sum() / wanted.square().sum())


@settings(deadline=None, max_examples=30, derandomize=True)
@given(UNITS, st.integers(1, 3), st.sampled_from([1, 4, 30]), st.integers(1, 2), st.integers(0, 999))
def test_each_unit_that_goes_is_the_one_that_brute_force_misses_least_and_costs_what_refitting_says(
    n_units, n_places, n_outputs, n_readers, seed
):
    problems = [problem(n_units, n_places, n_outputs + k, seed + k) for k in range(n_readers)]
    readers = [Reader(weight, rows.T @ rows / len(rows), columns) for rows, weight, columns in problems]
    found = eliminate(readers, damping=0.0)

    def error(left: list[int]) -> float:
        return sum(lost(rows, weight, columns[left].flatten()) for rows, weight, columns in problems)

    left, highest, before = list(range(n_units)), 0.0, 0.0
    for unit in found.argsort().tolist():
        errors = {one: error([u for u in left if u != one]) for one in left}
        assert errors[unit] <= min(errors.values()) + 1e-8
        highest = max(highest, errors[unit] - before)
        assert float(found[unit]) == pytest.approx(highest, rel=1e-5, abs=1e-8)
        left.remove(unit)
        before = errors[unit]


@settings(deadline=None, max_examples=20, derandomize=True)
@given(UNITS, st.integers(0, 999))
def test_where_inputs_do_not_hang_together_no_other_set_of_units_loses_less(n_units, seed):
    _, weight, columns = problem(n_units, 2, 3, seed)
    draw = torch.Generator().manual_seed(seed)
    rows = torch.linalg.qr(torch.randn(40, 2 * n_units, generator=draw, dtype=torch.float64)).Q
    found = eliminate([Reader(weight, rows.T @ rows, columns)], damping=0.0)
    for n_kept in range(1, n_units):
        kept = found.topk(n_kept).indices
        best = min(lost(rows, weight, columns[list(some)].flatten()) for some in combinations(range(n_units), n_kept))
        assert lost(rows, weight, columns[kept].flatten()) == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(UNITS, st.integers(1, 2), st.integers(0, 999))
def test_the_order_of_units_and_the_scale_of_a_reader_say_nothing(n_units, n_places, seed):
    rows, weight, columns = problem(n_units, n_places, 3, seed)
    gram, order = rows.T @ rows, torch.randperm(n_units, generator=torch.Generator().manual_seed(seed))
    plain = eliminate([Reader(weight, gram, columns)])
    assert torch.allclose(eliminate([Reader(weight, gram, columns[order])]), plain[order], rtol=1e-6)
    assert torch.allclose(eliminate([Reader(100 * weight, gram, columns)]), plain, rtol=1e-6)


def test_one_of_two_that_say_the_same_goes_first_and_the_other_stays():
    rows, weight, columns = problem(5, 1, 4, 0)
    rows[:, columns[3]] = rows[:, columns[1]]
    found = eliminate([Reader(weight, rows.T @ rows, columns)], damping=1e-9)
    first = int(found.argmin())
    assert first in (1, 3)
    assert found[4 - first] > found[first] + 1e-3


def test_inputs_that_never_move_and_readers_that_give_nothing_cost_nothing():
    rows, weight, columns = problem(4, 2, 3, 1)
    rows[:, columns[2]] = 0
    found = eliminate([Reader(weight, rows.T @ rows, columns)])
    assert int(found.argmin()) == 2
    assert found[2] < 1e-9
    nothing = eliminate([Reader(torch.zeros_like(weight), rows.T @ rows, columns)])
    assert bool((nothing < 1e-200).all())
    with pytest.raises(ShapeError, match="at least one layer"):
        eliminate([])
    with pytest.raises(ShapeError, match="must fit"):
        eliminate([Reader(weight, torch.eye(3), columns)])


class Normed(nn.Module):
    """A convolution is read by another, and by a linear layer over all its positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.make, self.read, self.head = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 3, 2), nn.Linear(3 * 9 + 5 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.make(x).relu()
        return self.head(torch.cat([self.read(hidden).flatten(1), hidden.flatten(1)], dim=1))


def test_a_model_s_readers_are_those_of_the_formula_by_hand_with_means_left_to_the_bias():
    model = Normed().eval()
    inputs = torch.randn(50, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    graph = analyze(model, (inputs[:2],))
    (group,) = [group for group in graph.groups if group.size == 5]
    names = sorted(group.parameters(model))
    evidence = gather(
        model, names, TensorExamples(inputs, torch.zeros(50)), lambda *_: inputs.sum(), ("weight", "inverse_gram")
    )
    (stratum,) = score_groups([group], evidence, "reconstruction")
    with torch.no_grad():
        hidden = model.make(inputs).relu()
        patches = nn.functional.unfold(hidden, 2).transpose(1, 2).reshape(-1, 5 * 4)
        whole = torch.cat([model.read(hidden).flatten(1), hidden.flatten(1)], dim=1)
    readers = [
        Reader(model.read.weight.detach().flatten(1), torch.cov(patches.T, correction=0), torch.arange(20).view(5, 4)),
        Reader(model.head.weight.detach(), torch.cov(whole.T, correction=0), 27 + torch.arange(80).view(5, 16)),
    ]
    assert np.allclose(stratum.saliency, eliminate(readers).numpy(), rtol=1e-3)
    assert stratum.additive, "shares of what readers put out add up over groups"
    (norms,) = score_groups([group], evidence, "magnitude_l2")
    assert not norms.additive
