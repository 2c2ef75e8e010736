"""The laws of selection, for every allocation and normalization that is registered."""

import heapq
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.types import Stratum
from prunus.select import allocations, keep_fractions, normalizations, schedules, select
from tests_support import public_dataclasses

ALLOCATIONS = pytest.mark.parametrize("allocation", list(allocations))
NORMALIZATIONS = pytest.mark.parametrize("normalize", list(normalizations))
COMMON = settings(deadline=None, derandomize=True, max_examples=60)

KEEP = st.floats(0.01, 1.0)
# Few distinct values, so that ties are the rule.
SALIENCY = st.one_of(st.integers(-2, 3).map(float), st.floats(-10, 10, allow_nan=False).map(lambda x: x + 0.0))


@st.composite
def strata(draw, *, multiples=False, max_floor=4, positive=False):
    made = []
    for number in range(draw(st.integers(1, 5))):
        values = draw(st.lists(SALIENCY, min_size=1, max_size=25))
        saliency = np.array(values, np.float64)
        if positive:
            saliency = np.abs(saliency) + 2.0**-4
        units = np.array(draw(st.permutations(range(len(values)))), np.int64) * 3
        floor = draw(st.integers(0, max_floor))
        multiple = draw(st.sampled_from([1, 2, 4, 8])) if multiples else 1
        losses = np.array([[share, draw(st.sampled_from([0.0, 0.1, 0.5, 2.0]))] for share in (1.0, 0.7, 0.2)])
        settings = {"min_units": max(1, floor), "multiple": multiple, "cost": draw(st.sampled_from([1.0, 3.0, 50.0]))}
        made.append(Stratum(f"s{number}", saliency, units, **settings, losses=losses))
    return made


def floors(parts):
    return [min(s.min_units, len(s.saliency)) for s in parts]


def total(masks):
    return sum(int(mask.sum()) for mask in masks)


@ALLOCATIONS
@NORMALIZATIONS
@COMMON
@given(parts=strata(), keep=KEEP)
def test_exactly_the_budget_is_kept_unless_the_floors_ask_for_more(allocation, normalize, parts, keep):
    masks = select(parts, keep_fraction=keep, allocation=allocation, normalize=normalize)
    n = sum(len(s.saliency) for s in parts)
    assert total(masks) == max(round(keep * n), sum(floors(parts)))
    assert all(mask.sum() >= floor for mask, floor in zip(masks, floors(parts), strict=True))


@ALLOCATIONS
@NORMALIZATIONS
@COMMON
@given(parts=strata(multiples=True), keep=st.tuples(KEEP, KEEP))
def test_a_larger_keep_fraction_keeps_a_superset(allocation, normalize, parts, keep):
    few, many = (
        select(parts, keep_fraction=share, allocation=allocation, normalize=normalize) for share in sorted(keep)
    )
    assert all((~small | large).all() for small, large in zip(few, many, strict=True))


@ALLOCATIONS
@COMMON
@given(parts=strata(multiples=True), keep=KEEP, data=st.data())
def test_permuting_units_permutes_the_masks_even_among_ties(allocation, parts, keep, data):
    orders = [np.array(data.draw(st.permutations(range(len(s.saliency))))) for s in parts]
    moved = [replace(s, saliency=s.saliency[o], unit=s.units[o]) for s, o in zip(parts, orders, strict=True)]
    before = select(parts, keep_fraction=keep, allocation=allocation)
    after = select(moved, keep_fraction=keep, allocation=allocation)
    assert all((b[o] == a).all() for b, a, o in zip(before, after, orders, strict=True))


@pytest.mark.parametrize(
    ("allocation", "normalize"),
    [(name, "none") for name in allocations if name != "global"] + [("global", "mean"), ("global", "max")],
)
@COMMON
@given(parts=strata(multiples=True, positive=True), keep=KEEP, power=st.integers(-8, 8), data=st.data())
def test_scaling_the_saliency_of_one_stratum_changes_nothing(allocation, normalize, parts, keep, power, data):
    which = data.draw(st.integers(0, len(parts) - 1))
    scaled = [
        # A power of two scales without rounding, so even ties stay ties.
        replace(s, saliency=s.saliency * 2.0**power) if i == which else s
        for i, s in enumerate(parts)
    ]
    before = select(parts, keep_fraction=keep, allocation=allocation, normalize=normalize)
    after = select(scaled, keep_fraction=keep, allocation=allocation, normalize=normalize)
    assert all((b == a).all() for b, a in zip(before, after, strict=True))


@ALLOCATIONS
@NORMALIZATIONS
@COMMON
@given(parts=strata(multiples=True))
def test_keeping_everything_keeps_everything(allocation, normalize, parts):
    masks = select(parts, keep_fraction=1.0, allocation=allocation, normalize=normalize)
    assert all(mask.all() for mask in masks)


@ALLOCATIONS
@COMMON
@given(parts=strata(multiples=True), keep=KEEP)
def test_counts_are_multiples_and_as_near_to_the_budget_as_those_allow(allocation, parts, keep):
    masks = select(parts, keep_fraction=keep, allocation=allocation)
    for mask, stratum in zip(masks, parts, strict=True):
        count, size = int(mask.sum()), len(stratum.saliency)
        assert count % stratum.multiple == 0 or count == size or size < stratum.multiple
        assert count >= min(stratum.min_units, size)
    target = round(keep * sum(len(s.saliency) for s in parts))
    lowest = sum(_rungs(s)[0] for s in parts)
    steps = [b - a for s in parts for a, b in zip(_rungs(s), _rungs(s)[1:], strict=False)]
    assert abs(total(masks) - max(target, lowest)) <= max(steps, default=0) / 2


@ALLOCATIONS
@COMMON
@given(parts=strata(multiples=True), keep=KEEP)
def test_inside_a_stratum_what_stays_is_no_worse_than_what_goes(allocation, parts, keep):
    for mask, s in zip(select(parts, keep_fraction=keep, allocation=allocation), parts, strict=True):
        if mask.all() or not mask.any():
            continue
        assert s.saliency[mask].min() >= s.saliency[~mask].max()
        edge = s.saliency[mask].min()
        stay, go = s.units[mask & (s.saliency == edge)], s.units[~mask & (s.saliency == edge)]
        assert not len(go) or stay.max() < go.min()


def _rungs(stratum):
    """All counts that a stratum may end with, from its floor up."""
    size = len(stratum.saliency)
    block = stratum.multiple if stratum.multiple <= size else 1
    allowed = sorted({*range(0, size + 1, block), size})
    return [count for count in allowed if count >= min(stratum.min_units, size)]


@settings(COMMON, max_examples=400)
@given(parts=strata(multiples=True), keep=KEEP)
def test_uniform_is_webster_s_method_one_seat_after_the_other(parts, keep):
    target = round(keep * sum(len(s.saliency) for s in parts))
    rungs = [_rungs(s) for s in parts]
    counts = [r[0] for r in rungs]
    steps = []
    for i, r in enumerate(rungs):
        steps += [((a + b) / (2 * len(parts[i].saliency)), i, b) for a, b in itertools.pairwise(r)]
    heapq.heapify(steps)
    while steps and sum(counts) < target:
        _, i, b = heapq.heappop(steps)
        if sum(counts) + (b - counts[i]) - target > target - sum(counts):
            break
        counts[i] = b
    masks = select(parts, keep_fraction=keep, allocation="uniform")
    assert [int(mask.sum()) for mask in masks] == counts


@COMMON
@given(parts=strata(), keep=KEEP)
def test_global_is_one_sorted_list_after_the_floors(parts, keep):
    rows = [(-s.saliency[j], i, int(s.units[j]), j) for i, s in enumerate(parts) for j in range(len(s.saliency))]
    expected = [np.zeros(len(s.saliency), bool) for s in parts]
    ranked = sorted(rows)
    for _, i, _, j in ranked:  # the floors: the best of every stratum
        if expected[i].sum() < floors(parts)[i]:
            expected[i][j] = True
    left = max(0, round(keep * len(rows)) - total(expected))
    for _, i, _, j in ranked:
        if left and not expected[i][j]:
            expected[i][j] = True
            left -= 1
    masks = select(parts, keep_fraction=keep, allocation="global")
    assert all((m == e).all() for m, e in zip(masks, expected, strict=True))


@COMMON
@given(parts=strata(multiples=True), cutoff=st.floats(-3, 3))
def test_a_cutoff_removes_only_what_scores_below_it(parts, cutoff):
    for mask, s in zip(select(parts, cutoff=cutoff, normalize="max"), parts, strict=True):
        assert mask[s.saliency >= cutoff].all()
        assert mask.sum() == next(c for c in _rungs(s) if c >= (s.saliency >= cutoff).sum())


@pytest.mark.parametrize("kind", [kind for kind in schedules if kind != "one_shot"])
@COMMON
@given(keep=KEEP, rounds=st.integers(1, 12))
def test_a_schedule_falls_from_below_one_to_exactly_the_goal(kind, keep, rounds):
    from prunus.core.recipes.recipe import Schedule

    shares = keep_fractions(Schedule(kind=kind, rounds=rounds), keep)
    assert len(shares) == rounds
    assert shares[-1] == keep
    assert all(a >= b - 1e-12 for a, b in zip((1.0, *shares), shares, strict=False))


@st.composite
def rows(draw):
    """A stratum whose units lie in rows of any lengths."""
    n = draw(st.integers(1, 30))
    saliency = np.array(draw(st.lists(SALIENCY, min_size=n, max_size=n)), np.float64)
    row = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), np.int64)
    return Stratum("s", saliency, row=row)


@COMMON
@given(part=rows(), keep=KEEP, more=KEEP)
def test_rows_share_what_a_stratum_keeps_and_each_keeps_its_best(part, keep, more):
    low, high = sorted((keep, more))
    (mask,), (wider,) = (select([part], keep_fraction=share) for share in (low, high))
    (plain,) = select([Stratum("s", part.saliency)], keep_fraction=low)
    assert mask.sum() == plain.sum(), "rows change who stays, not how many"
    assert not (mask & ~wider).any(), "a larger keep fraction keeps a superset"
    for number in np.unique(part.row):
        mine = part.row == number
        kept, gone = part.saliency[mine & mask], part.saliency[mine & ~mask]
        assert abs(len(kept) - mask.mean() * mine.sum()) <= 1 + 0.5 * len(np.unique(part.row))
        if len(kept) and len(gone):
            assert kept.min() >= gone.max()


def test_equal_rows_keep_equally_many():
    part = Stratum("s", np.arange(24.0), row=np.arange(24) // 6)
    (mask,) = select([part], keep_fraction=0.5)
    assert mask.reshape(4, 6).sum(1).tolist() == [3, 3, 3, 3]
    (cut,) = select([part], cutoff=12.0)
    assert cut.tolist() == (np.arange(24) >= 12).tolist(), "a cutoff compares with itself alone"


def test_what_is_handed_out_can_not_be_changed_by_one_who_has_it_behind_the_back_of_another():
    shown = list(public_dataclasses("prunus.select"))
    assert len(shown) >= 1
    assert [kind.__name__ for kind in shown if not kind.__dataclass_params__.frozen] == []
