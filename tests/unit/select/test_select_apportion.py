"""One budget, shared out: against brute force over every rung, and by the properties of Webster's method."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.types import Stratum
from prunus.select import allocations, select
from prunus.select.amount import Ladder
from prunus.select.apportion import apportion, whole

COMMON = settings(deadline=None, derandomize=True, max_examples=40)
SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=4).filter(any)


def rungs(size: int, multiple: int, floor: int) -> list[int]:
    block = multiple if multiple <= size else 1
    return [n for n in sorted({*range(0, size + 1, block), size}) if n >= min(floor, size)]


@COMMON
@given(SIZES, st.integers(1, 3), st.integers(0, 3), st.floats(0.05, 1.0), st.integers(0, 99), st.sampled_from([1, 2]))
def test_rungs_are_climbed_in_the_order_of_their_levels_until_the_budget_is_nearest(
    sizes, multiple, floor, keep, seed, power
):
    """Brute force: the levels of all rungs in one list, sorted."""
    steep = np.random.default_rng(seed).uniform(0.3, 3.0, len(sizes))
    strata = [Stratum(f"s{i}", np.zeros(n), min_units=floor, multiple=multiple) for i, n in enumerate(sizes)]
    given_back = apportion(
        strata,
        keep,
        level=lambda i, shares: shares ** (1 / power) / steep[i],
    )
    counts = [rungs(n, multiple, floor)[0] for n in sizes]
    steps = sorted(
        (((a + b) / 2 / sizes[i]) ** (1 / power) / steep[i], i, b)
        for i, n in enumerate(sizes)
        for a, b in itertools.pairwise(rungs(n, multiple, floor))
    )
    target = round(keep * sum(sizes))
    for _, i, b in steps:
        over = sum(counts) + b - counts[i] - target
        if sum(counts) >= target or over > target - sum(counts):
            break
        counts[i] = b
    assert given_back.tolist() == counts


@COMMON
@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.floats(0.1, 0.9), st.data())
def test_shares_are_of_what_there_was_before_the_first_round(sizes, keep, data):
    wholes = [n + data.draw(st.integers(0, 5)) for n in sizes]
    strata = [
        Stratum(f"s{i}", np.zeros(n), whole=w, min_units=0) for i, (n, w) in enumerate(zip(sizes, wholes, strict=True))
    ]
    assert whole(strata).tolist() == wholes
    assert whole([Stratum("none", np.zeros(0)), Stratum("all", np.zeros(3))]).tolist() == [1, 3]
    counts = allocations["uniform"](strata, keep)
    assert counts.sum() == round(keep * sum(sizes))
    for i, j in itertools.permutations(range(len(sizes)), 2):  # nobody is owed more than another has too much
        if counts[i] > 0 and counts[j] < sizes[j]:
            assert (counts[i] - 0.5) / wholes[i] <= (counts[j] + 0.5) / wholes[j] + 1e-12


@COMMON
@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.floats(0.05, 0.95), st.integers(0, 99))
def test_rows_share_a_count_as_webster_would(rows, keep, seed):
    row = np.array(rows)
    saliency = np.random.default_rng(seed).random(len(rows))
    (mask,) = select([Stratum("s", saliency, row=row, min_units=1)], keep_fraction=keep)
    assert mask.sum() == max(1, round(keep * len(rows)))
    kept, size = (np.array([values[row == r].sum() for r in np.unique(row)]) for values in (mask, np.ones(len(row))))
    for i, j in itertools.permutations(range(len(kept)), 2):
        if kept[i] > 0 and kept[j] < size[j]:
            assert (kept[i] - 0.5) / size[i] <= (kept[j] + 0.5) / size[j]


@COMMON
@given(SIZES, st.integers(1, 4), st.integers(0, 5))
def test_a_ladder_has_every_allowed_count_and_no_other(sizes, multiple, floor):
    strata = [Stratum(f"s{i}", np.zeros(n), min_units=floor, multiple=multiple) for i, n in enumerate(sizes)]
    ladder = Ladder.of(strata)
    for i, n in enumerate(sizes):
        counts = {
            int(ladder.counts(np.where(np.arange(len(sizes)) == i, rung, 0))[i])
            for rung in range(ladder.first[i], ladder.last[i] + 1)
        }
        assert sorted(counts) == rungs(n, multiple, floor)
    for wanted in range(max(sizes) + 1):
        found = ladder.at_least(np.minimum(wanted, sizes))
        assert found.tolist() == [min(c for c in rungs(n, multiple, floor) if c >= min(wanted, n)) for n in sizes]


@COMMON
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(2, 4), st.floats(0.05, 1.0), st.integers(0, 999)
)
def test_blocks_compete_by_their_mean_and_none_overtakes_a_better_one(sizes, multiple, keep, seed):
    draw = np.random.default_rng(seed)
    strata = [Stratum(f"s{i}", draw.random(n).round(2), multiple=multiple) for i, n in enumerate(sizes)]
    counts = [rungs(n, multiple, 1)[0] for n in sizes]
    steps = []
    for i, (n, stratum) in enumerate(zip(sizes, strata, strict=True)):
        ranked, lowest = np.sort(stratum.saliency)[::-1], np.inf
        for a, b in itertools.pairwise(rungs(n, multiple, 1)):
            lowest = min(lowest, ranked[a:b].mean())
            steps.append((-lowest, i, b))
    if all(multiple > n for n in sizes):
        return  # single units
    target = round(keep * sum(sizes))
    for _, i, b in sorted(steps):
        over = sum(counts) + b - counts[i] - target
        if sum(counts) >= target or over > target - sum(counts):
            break
        counts[i] = b
    assert allocations["global"](strata, keep).tolist() == counts


@pytest.mark.parametrize("name", [name for name in allocations if name != "sensitivity"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_one_stratum_gets_the_whole_budget_whatever_the_allocation(name, keep):
    part = Stratum("only", np.linspace(1, 2, 20), whole=40, shape=(4, 5))
    assert allocations[name]([part], keep).tolist() == [round(20 * keep)]
    (mask,) = select([replace(part, min_units=7)], keep_fraction=keep, allocation=name)
    assert mask.sum() == max(7, round(20 * keep))
