"""FAB goes to the nearest place in the box where the model, were it a plane, changes its mind; Square also works in the l2 norm."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.evaluate.robustness import Effort, Threat, attacked
from prunus.evaluate.robustness.attacks.fab import fab, to_plane
from prunus.evaluate.robustness.attacks.square_l2 import bump, square_l2
from prunus.evaluate.robustness.attacks.threat import wrong

FREE = torch.tensor(True)


def threat(norm, reach=1.0, low=0.0, high=1.0, free=FREE):
    return Threat(norm, reach, torch.tensor(low), torch.tensor(high), free)


def draw():
    return torch.Generator().manual_seed(0)


def nearest(x, normal, value, low, high, free, norm):
    """Return the smallest change to the plane, by halving: how far must all go, at their pace, until their room is used up?"""
    slope = torch.where(free, normal, torch.zeros(()))
    sign = -slope.sign() * value.sign()
    room = torch.where(sign > 0, high - x, x - low)
    pace = torch.ones_like(slope) if norm == "linf" else slope.abs()
    little, much = 0.0, 1e6
    for _ in range(200):
        middle = (little + much) / 2
        gained = float((slope.abs() * (middle * pace).minimum(room)).sum())
        little, much = (middle, much) if gained < abs(float(value)) else (little, middle)
    return sign * (much * pace).minimum(room) * (slope != 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(["linf", "l2"]), st.integers(1, 6), st.floats(0.01, 3))
def test_the_change_to_a_plane_is_the_smallest_that_the_box_allows(seed, norm, size, value):
    made = torch.Generator().manual_seed(seed)
    x, normal = torch.rand(4, size, generator=made).double(), torch.randn(4, size, generator=made).double()
    normal[0, 0] = 0.0
    free = torch.rand(size, generator=made) < 0.8
    values = torch.tensor([value, -value, value / 10, -value / 10]).double()
    found = to_plane(x, normal, values, torch.zeros(4, size), torch.ones(4, size), threat(norm, free=free))
    for row in range(4):
        expected = nearest(x[row], normal[row], values[row], torch.zeros(()), torch.ones(()), free, norm)
        assert torch.allclose(found[row], expected, atol=1e-6)
    assert float((x + found).min()) >= -1e-9
    assert float((x + found).max()) <= 1 + 1e-9


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_of_a_linear_model_it_finds_whom_the_reach_allows_and_nobody_else(norm, dual):
    torch.manual_seed(0)
    weight = torch.randn(5, 8)
    x = torch.randn(200, 8)
    scores = x @ weight.T
    right = scores.argmax(dim=1)
    lead = scores.gather(1, right[:, None]) - scores
    away = lead / (weight[right][:, None] - weight).norm(p=dual, dim=2)
    away = away.scatter(1, right[:, None], torch.inf).amin(dim=1)  # from the nearest boundary, without a box
    limits = threat(norm, 0.3, -1e6, 1e6)
    found = fab(lambda inputs: inputs @ weight.T, x, right, limits, steps=20, most=4)
    fooled = wrong(found @ weight.T, right)
    assert fooled[away < 0.3 / 1.06].all()  # it goes a twentieth beyond the plane
    assert not fooled[away > 0.3].any()
    assert 20 < int(fooled.sum()) < 180


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (12,), (2,)])
def test_square_stays_in_the_ball_and_the_box_and_changes_only_what_is_free(shape):
    torch.manual_seed(0)
    x = torch.rand(10, *shape)
    weight = torch.randn(x[0].numel(), 3)
    free = torch.rand(shape) < 0.7
    free.view(-1)[0] = False
    limits = threat("l2", 0.5, free=free)

    def model(inputs):
        return inputs.flatten(1) @ weight

    right = model(x).argmax(dim=1)
    found = square_l2(model, x, right, limits, queries=60, draw=draw())
    assert float((found - x).flatten(1).norm(dim=1).max()) <= 0.5 + 1e-5
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert torch.equal(found[:, ~free], x[:, ~free])


def test_square_breaks_in_l2_what_gives_no_gradients():
    torch.manual_seed(0)
    x = torch.rand(64, 1, 8, 8)
    weight = torch.randn(64, 4)

    def model(inputs):  # its gradient is zero everywhere
        return (inputs.flatten(1) * 16).round() / 16 @ weight

    right = model(x).argmax(dim=1)
    small = Effort(pgd_steps=5, restarts=1, steps=10, targets=2, queries=200)
    found = attacked(model, x, right, threat("l2", 2.0), effort=small, seed=0)
    by_name = {row.attack: row for row in found.rows}
    assert [row.attack for row in found.rows][-2:] == ["fab", "square"]
    assert by_name["fab"].broken == 0
    assert by_name["square"].broken > by_name["square"].tried / 2


@pytest.mark.parametrize(("tall", "wide"), [(3, 3), (6, 3), (2, 1), (7, 7), (1, 1)])
def test_a_bump_is_up_in_one_half_and_down_in_the_other_and_of_length_one(tall, wide):
    found = bump(tall, wide)
    assert float(found.norm()) == pytest.approx(1)
    assert float(found[: tall // 2].clamp(max=0).abs().sum()) == 0
    assert float(found[tall // 2 :].clamp(min=0).sum()) == 0
