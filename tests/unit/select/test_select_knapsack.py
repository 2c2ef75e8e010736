"""The counts meet the cost, and no others of few do it at less loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import RecipeError
from prunus.core.types import Stratum
from prunus.select import climb, cost_aware, floor_counts, predicted_loss


class Chain:
    """Layers one after the other: each costs the product of its width and the width before."""

    def __init__(self, first: int = 3, last: int = 2) -> None:
        self.first, self.last = first, last

    def total(self, counts):
        widths = [self.first, *counts, self.last]
        return float(sum(a * b for a, b in itertools.pairwise(widths)))

    def part(self, group, counts):
        widths = [self.first, *counts, self.last]
        return float(widths[group + 1] * (widths[group] + widths[group + 2]))

    def neighbours(self, group):
        return {group - 1, group, group + 1} & set(range(self.n))

    n = 3


def strata(seed, sizes, multiple=1):
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 10, len(sizes)).tolist()
    return [Stratum(str(i), rng.random(n), multiple=multiple, n_weights=weights[i]) for i, n in enumerate(sizes)]


def loss_of(layers, counts):
    return sum(s.n_weights**0.5 * float(predicted_loss(s.saliency)[n]) for s, n in zip(layers, counts, strict=True))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.floats(0.15, 1.0), st.sampled_from([1, 2, 4]))
def test_the_limit_is_met_in_allowed_counts_and_no_step_up_would_still_meet_it(seed, share, multiple):
    layers, cost = strata(seed, (8, 8, 8), multiple), Chain()
    limit = share * cost.total([8, 8, 8])
    if cost.total(floor_counts(layers)) > limit:
        return
    counts = cost_aware(layers, cost, limit)
    assert cost.total(counts) <= limit
    assert all(n % multiple == 0 and 1 <= n <= 8 for n in counts)
    for i in range(3):
        more = counts.copy()
        more[i] += multiple
        assert more[i] > 8 or cost.total(more) > limit


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 999), st.floats(0.3, 0.9))
def test_the_loss_is_near_the_least_of_all_counts(seed, share):
    layers, cost = strata(seed, (6, 6, 6)), Chain()
    limit = share * cost.total([6, 6, 6])
    every = itertools.product(range(1, 7), repeat=3)
    least = min(loss_of(layers, c) for c in every if cost.total(c) <= limit)
    assert loss_of(layers, cost_aware(layers, cost, limit)) <= least * 1.35 + 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2, 4]), st.integers(1, 9))
def test_a_climb_widens_one_stratum_at_a_time_by_allowed_counts_until_the_upper_end(seed, multiple, most):
    layers, rng = strata(seed, (8, 8, 8), multiple), np.random.default_rng(seed)
    low, high = (multiple * rng.integers(1, 8 // multiple + 1, 3) for _ in range(2))
    way = climb(layers, Chain(), low, high, most=most)
    assert len(way) <= most + 3
    for before, after in itertools.pairwise([low, *way]):
        assert ((after - before) > 0).sum() == 1
        assert (after >= before).all()
        assert (after % multiple == 0).all()
    assert [low, *way][-1].tolist() == np.maximum(low, high).tolist()


def test_everything_stays_when_the_limit_is_the_whole_cost():
    layers = strata(0, (5, 5, 5))
    assert cost_aware(layers, Chain(), Chain().total([5, 5, 5])).tolist() == [5, 5, 5]


def test_below_the_floors_it_says_what_they_cost():
    with pytest.raises(RecipeError, match="floors alone cost 7"):
        cost_aware(strata(0, (5, 5, 5)), Chain(), 6.9)


def test_of_two_alike_the_one_that_more_weights_would_miss_keeps_more():
    class Sum:
        def total(self, counts):
            return float(sum(counts))

        def part(self, group, counts):
            return float(counts[group])

        def neighbours(self, group):
            return {group}

    saliency = np.linspace(1, 2, 30)
    inner, stream = cost_aware([Stratum("inner", saliency), Stratum("stream", saliency, n_weights=9)], Sum(), 30)
    assert inner + stream == 30
    assert stream > 1.3 * inner


def test_a_cost_that_falls_in_stairs_is_crossed():
    """A runtime that takes as long for 5 to 8 units as for 8: a single unit saves nothing, four do."""

    class Stairs:
        def total(self, counts):
            return float(sum(-(-int(n) // 4) for n in counts))

        def part(self, group, counts):
            return float(-(-int(counts[group]) // 4))

        def neighbours(self, group):
            return {group}

    assert cost_aware(strata(3, (16, 16)), Stairs(), 5.0).sum() == 20, "whole stairs, and no unit less than they hold"


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.floats(0.01, 100))
def test_the_predicted_loss_falls_to_zero_and_has_no_scale(saliency, scale):
    values = np.array(saliency)
    loss = predicted_loss(values)
    assert loss[-1] == 0
    assert (np.diff(loss) <= 1e-12).all()
    assert predicted_loss(scale * values) == pytest.approx(loss, rel=1e-6, abs=1e-9)


def test_the_predicted_loss_is_the_power_lost_over_the_power_left():
    saliency = np.array([3.0, 1.0, 2.0, 0.1])
    left = np.array([3.0, 5.0, 6.0, 6.1]) / 6.1
    assert predicted_loss(saliency)[1:] == pytest.approx((1 - left**2) / left**2)


def test_a_dear_layer_is_not_emptied_to_leave_a_cheap_one_whole():
    class Priced:
        prices = np.array([8.0, 1.0])

        def total(self, counts):
            return float((self.prices * counts).sum())

        def part(self, group, counts):
            return float(self.prices[group] * counts[group])

        def neighbours(self, group):
            return {group}

    dear, cheap = cost_aware([Stratum("dear", np.ones(32)), Stratum("cheap", np.ones(32))], Priced(), 0.25 * 9 * 32)
    assert dear >= 5
    assert cheap > dear


@pytest.mark.parametrize("saliency", [[0.0, 0.0], [-2.0, 1.0, -1.0]])
def test_saliencies_that_are_zero_or_negative_still_have_a_loss(saliency):
    loss = predicted_loss(np.array(saliency))
    assert np.isfinite(loss).all()
    assert loss[0] > loss[-1] == 0
