"""The counts meet the cost, and no others of few do it at less loss."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import RecipeError
from prunus.core.types import Stratum
from prunus.select import climb, cost_aware, floor_counts, one_less, predicted_loss
from prunus.select.amount import Ladder
from prunus.select.knapsack import _give_back, _last_rung, error_loss


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


class Equal:
    """Every unit costs one."""

    def total(self, counts):
        return float(sum(counts))

    def part(self, group, counts):
        return float(counts[group])

    def neighbours(self, group):
        return {group}


def test_errors_in_one_unit_are_compared_as_they_are_and_saliencies_of_their_own_scale_are_not():
    errors = np.linspace(0.1, 1, 20)
    quiet, loud = (Stratum(name, scale * errors) for name, scale in (("quiet", 0.01), ("loud", 1.0)))
    assert cost_aware([quiet, loud], Equal(), 20).tolist() == [10, 10]
    few, many = cost_aware([replace(quiet, additive=True), replace(loud, additive=True)], Equal(), 20).tolist()
    assert few + many == 20
    assert few <= 2, "a hundredth of the error: almost all of the quiet one goes first"


def test_what_nobody_reads_goes_first_and_half_the_signal_lost_costs_as_much_as_there_is():
    assert error_loss(np.array([0.5, 0.5, 1.0]))[2:].tolist() == pytest.approx([2 * (1 / 0.75 - 1), 0])
    assert error_loss(np.zeros(3)).tolist() == [0, 0, 0, 0]
    unread, read = (Stratum(name, np.full(4, value), additive=True) for name, value in (("unread", 0.0), ("read", 0.1)))
    assert cost_aware([unread, read], Equal(), 5).tolist() == [1, 4]


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


class Prices:
    """Every stratum's units cost by a table of its own: ``tables[i][n]`` for n units."""

    def __init__(self, *tables):
        self.tables = tables

    def total(self, counts):
        return float(sum(table[n] for table, n in zip(self.tables, counts, strict=True)))

    def part(self, group, counts):
        return float(self.tables[group][counts[group]])

    def neighbours(self, group):
        return {group}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2]), st.integers(3, 12), st.integers(1, 3))
def test_where_every_unit_costs_the_same_the_loss_is_the_least_there_is(seed, multiple, blocks, floor):
    layers = [replace(layer, min_units=floor) for layer in strata(seed, (8, 6, 4), multiple)]
    limit = max(blocks * multiple, 3 * multiple * -(-floor // multiple))
    counts = cost_aware(layers, Prices(range(9), range(7), range(5)), limit)
    every = itertools.product(range(9), range(7), range(5))
    allowed = [
        c for c in every if sum(c) <= limit and all(n >= floor and n % multiple == 0 for n in c)
    ]  # fmt: skip
    assert loss_of(layers, counts) == pytest.approx(min(loss_of(layers, c) for c in allowed))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(5, 40))
def test_the_cheaper_of_two_alike_keeps_no_fewer_and_scaling_the_price_changes_nothing(seed, limit):
    saliency = np.random.default_rng(seed).random(8)
    cheap, dear = np.arange(9.0), 4 * np.arange(9.0)
    pair = [Stratum("cheap", saliency), Stratum("dear", saliency)]
    counts = cost_aware(pair, Prices(cheap, dear), limit)
    assert counts[0] >= counts[1]
    for scale in (2.0**-60, 2.0**60):
        again = cost_aware(pair, Prices(scale * cheap, scale * dear), scale * limit)
        assert again.tolist() == counts.tolist()


@pytest.mark.parametrize(("limit", "kept"), [(65, 7), (59, 4), (100, 8), (10, 4), (9, 3)])
def test_the_first_count_on_the_way_down_that_meets_the_limit_is_kept_though_times_are_not_monotone(limit, kept):
    measured = [0, 1, 2, 9, 10, 70, 70, 60, 100]
    assert cost_aware([Stratum("one", np.ones(8))], Prices(measured), limit).tolist() == [kept]


def test_what_can_only_be_saved_together_is_saved_by_the_floors():
    class Together:
        def total(self, counts):
            return 10.0 if max(counts) > 1 else 1.0

        def part(self, group, counts):
            return 10.0 if max(counts) > 1 else 1.0

        def neighbours(self, group):
            return {0, 1}

    assert cost_aware([Stratum("a", np.ones(4)), Stratum("b", np.ones(4))], Together(), 5.0).tolist() == [1, 1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2, 3]), st.integers(1, 9))
def test_each_step_of_a_climb_regains_the_most_for_its_price_and_there_are_no_more_steps_than_asked(
    seed, multiple, most
):
    layers, cost = strata(seed, (8, 7, 6), multiple), Chain()
    rungs = [[*range(0, len(s.saliency), multiple), len(s.saliency)] for s in layers]
    way = climb(layers, cost, floor_counts(layers), np.array([8, 7, 6]), most=most)
    low = [r.index(n) for r, n in zip(rungs, floor_counts(layers).tolist(), strict=True)]
    stride = -(-sum(len(r) - 1 - k for r, k in zip(rungs, low, strict=True)) // most)
    here = floor_counts(layers)
    for after in way:
        ratios = {}
        for i in range(3):
            at = rungs[i].index(here[i])
            trial = here.copy()
            trial[i] = rungs[i][min(at + stride, len(rungs[i]) - 1)]
            if trial[i] > here[i]:
                gain = loss_of(layers, here) - loss_of(layers, trial)
                ratios[tuple(trial.tolist())] = gain / (cost.total(trial) - cost.total(here))
        assert ratios[tuple(after.tolist())] == pytest.approx(max(ratios.values()))
        here = after
    assert here.tolist() == [8, 7, 6]


def test_a_climb_that_costs_nothing_goes_first():
    layers = [Stratum("free", np.ones(4)), Stratum("dear", np.ones(4))]
    way = climb(layers, Prices([5] * 5, range(5)), np.array([1, 1]), np.array([4, 4]))
    assert [counts.tolist() for counts in way] == [[2, 1], [3, 1], [4, 1], [4, 2], [4, 3], [4, 4]]


@pytest.mark.parametrize("multiple", [1, 3])
def test_one_less_is_every_count_one_step_narrower(multiple):
    layers = [Stratum("a", np.ones(7), min_units=2, multiple=multiple), Stratum("b", np.ones(4), multiple=multiple)]
    lower = {1: [[6, 4], [7, 3]], 3: [[6, 4], [7, 3]]}
    assert [c.tolist() for c in one_less(layers, np.array([7, 4]))] == lower[multiple]
    assert one_less(layers, floor_counts(layers)) == []
    assert floor_counts(layers).tolist() == {1: [2, 1], 3: [3, 3]}[multiple]


def test_the_predicted_loss_of_nothing_left_is_large_and_not_infinite():
    assert predicted_loss(np.array([1.0, 3.0]))[0] == pytest.approx(1e6 - 1)
    assert predicted_loss(np.array([1e9, 1.0]))[0] == pytest.approx(1e6 - 1)
    assert predicted_loss(np.array([-2.0, 1.0, -1.0]))[1:] == pytest.approx([(4 / 3) ** 2 - 1, 0, 0])
    assert predicted_loss(np.zeros(2)).tolist() == pytest.approx([1e6 - 1, 3, 0])
    assert np.isfinite(predicted_loss(np.zeros(0))).all()


def test_a_step_that_doubles_the_price_is_not_cheap():
    """What is given back goes first where it regains the most for its price, however large the price is."""
    saliency = np.array([2.0, 1.0])
    pair = [Stratum("dear", saliency), Stratum("cheap", saliency)]
    prices = Prices([0, 1, 6], [0, 1, 2])  # from both at one: 2 in all; the dear one's next costs 5, the cheap one's 1
    assert _give_back(Ladder.of(pair), np.array([1, 1]), [predicted_loss(saliency)] * 2, prices, 7.0).tolist() == [1, 2]
    doubled = Prices([0, 1, 5], [0, 1, 2])  # 2 in all, then 6: three times as much, a remainder of none
    assert _give_back(Ladder.of(pair), np.array([1, 1]), [predicted_loss(saliency)] * 2, doubled, 6.0).tolist() == [
        1,
        2,
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1, 2, 3]), st.floats(0.2, 1.0))
def test_what_is_given_back_goes_step_by_step_to_what_regains_the_most_for_its_price(seed, multiple, share):
    """Brute force over the steps that the limit allows, until there is none."""
    layers, cost = strata(seed, (8, 7, 6), multiple), Chain()
    limit = share * cost.total([8, 7, 6])
    rungs = [[*range(0, len(s.saliency), multiple), len(s.saliency)] for s in layers]
    here = floor_counts(layers).tolist()
    losses = [s.n_weights**0.5 * predicted_loss(s.saliency) for s in layers]
    start = np.array([r.index(n) for r, n in zip(rungs, here, strict=True)])
    found = _give_back(Ladder.of(layers), start, losses, cost, limit).tolist()
    while True:
        wider = [
            [*here[:i], r[r.index(n) + 1], *here[i + 1 :]]
            for i, (r, n) in enumerate(zip(rungs, here, strict=True))
            if n < r[-1]
        ]
        fitting = [trial for trial in wider if cost.total(trial) <= limit]
        if not fitting:
            break
        here = max(
            fitting, key=lambda t: (loss_of(layers, here) - loss_of(layers, t)) / (cost.total(t) - cost.total(here))
        )
    assert found == here


@pytest.mark.parametrize("multiple", [1, 2])
@pytest.mark.parametrize("ahead", [1, 2, 4])
def test_a_long_step_stops_at_the_first_rung_that_meets_the_limit_else_at_its_end(multiple, ahead):
    layers, cost = strata(0, (8 * multiple, 7, 6), multiple), Chain()
    ladder = Ladder.of(layers)
    counts = ladder.counts(ladder.last)
    totals = [cost.total([rung * multiple, *counts[1:]]) for rung in range(9)]
    for limit in [0.0, *(total + at for total in totals for at in (0.0, 0.5))]:
        way = range(7, 7 - ahead, -1)
        expected = next((rung for rung in way if totals[rung] <= limit), way[-1])
        assert _last_rung(0, 8, ahead, ladder, counts, cost, limit) == expected
