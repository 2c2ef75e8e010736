"""Selection refuses what it can't judge, and settles ties."""

import numpy as np
import pytest

from prunus.core.errors import RecipeError, RunError, UnknownNameError
from prunus.core.types import Stratum
from prunus.select import allocations, normalizations, select, top

LAYER = Stratum("conv1", np.array([0.5, 0.1, 0.9, 0.3]))


@pytest.mark.parametrize("value", [0, 0.0, -0.1, 1.5, float("nan"), float("inf"), True, "half"])
def test_a_keep_fraction_outside_its_range_is_refused_with_what_came(value):
    with pytest.raises(RecipeError, match=r"keep_fraction must be in \(0, 1\].*got"):
        select([LAYER], keep_fraction=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_cutoff_must_be_finite(value):
    with pytest.raises(RecipeError, match="cutoff must be a finite number"):
        select([LAYER], cutoff=value)


@pytest.mark.parametrize("amounts", [{}, {"keep_fraction": 0.5, "cutoff": 0.1}])
def test_there_is_exactly_one_amount(amounts):
    with pytest.raises(RecipeError, match="exactly one of keep_fraction and cutoff"):
        select([LAYER], **amounts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("amount", [{"keep_fraction": 0.5}, {"cutoff": 0.2}])
def test_a_saliency_that_is_not_finite_is_refused_by_stratum_and_unit(bad, amount):
    broken = Stratum("conv2", np.array([1.0, bad, 2.0]), np.array([10, 11, 12]))
    with pytest.raises(RunError, match=r"'conv2'.*unit 11 \(1 of 3"):
        select([LAYER, broken], **amount)


def test_unknown_names_list_the_near_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'uniform'"):
        select([LAYER], keep_fraction=0.5, allocation="unifrm")
    with pytest.raises(UnknownNameError, match="unknown normalization"):
        select([LAYER], keep_fraction=0.5, normalize="median")


def test_keeping_nothing_is_an_error_not_an_empty_model():
    free = Stratum("a", np.arange(10.0), min_units=0)
    with pytest.raises(RunError, match=r"keeps none: use at least 0.1"):
        select([free], keep_fraction=0.01)
    with pytest.raises(RunError, match="the highest saliency is 9"):
        select([free], cutoff=50.0)


def test_a_floor_stands_against_a_cutoff():
    assert select([Stratum("a", np.arange(4.0), min_units=2)], cutoff=50.0)[0].tolist() == [False, False, True, True]


def test_a_cutoff_reads_the_saliency_as_it_is_whatever_the_normalization():
    assert select([LAYER], cutoff=0.3, normalize="max")[0].tolist() == [True, False, True, True]


@pytest.mark.parametrize("settings", [{"multiple": 0}, {"min_units": -1}])
def test_a_floor_or_multiple_that_makes_no_sense_is_refused(settings):
    with pytest.raises(RecipeError, match="stratum 'a' needs multiple >= 1 and min_units >= 0"):
        select([Stratum("a", np.arange(4.0), **settings)], keep_fraction=0.5)


@pytest.mark.parametrize("allocation", [name for name in allocations if name != "sensitivity"])
def test_empty_strata_are_no_trouble_to_any_allocation(allocation):
    masks = select([Stratum("none", np.zeros(0)), LAYER], keep_fraction=0.5, allocation=allocation)
    assert [len(mask) for mask in masks] == [0, 4]


def test_no_strata_and_empty_strata_are_no_trouble():
    assert select([], keep_fraction=0.5) == []
    masks = select([Stratum("none", np.zeros(0)), LAYER], keep_fraction=0.5, allocation="global", normalize="max")
    assert [len(m) for m in masks] == [0, 4]
    assert masks[1].tolist() == [True, False, True, False]


def test_ties_are_settled_by_the_unit_number():
    assert top(np.zeros(4), np.array([9, 2, 7, 5]), 2).tolist() == [False, True, False, True]


def test_where_rows_tie_for_the_last_place_the_better_unit_takes_it():
    part = Stratum("s", np.array([5.0, 1.0, 9.0, 2.0]), row=np.array([0, 0, 1, 1]))
    (mask,) = select([part], keep_fraction=0.25)
    assert mask.tolist() == [False, False, True, False]


def test_a_normalised_global_ranking_does_not_empty_the_layer_with_small_weights():
    large, small = Stratum("large", np.array([100.0, 90, 80, 70])), Stratum("small", np.array([0.4, 0.3, 0.2, 0.1]))
    raw = select([large, small], keep_fraction=0.5, allocation="global", normalize="none")
    even = select([large, small], keep_fraction=0.5, allocation="global", normalize="mean")
    assert [int(m.sum()) for m in raw] == [3, 1]  # the floor of one is all that is left of the small layer
    assert [int(m.sum()) for m in even] == [2, 2]


@pytest.mark.parametrize(("normalize", "kept"), [("mean", [2, 3]), ("max", [3, 2])])
def test_negative_saliencies_are_scaled_by_their_modulus(normalize, kept):
    strata = [Stratum("a", np.array([-30.0, -20, -1, 1])), Stratum("b", np.array([-0.5, -0.4, 0.1, 0.2]))]
    # By the largest absolute value the fifth place is between -20/30 and -0.4/0.5, by the mean one between -20/13 and -0.4/0.3.
    masks = select(strata, keep_fraction=5 / 8, allocation="global", normalize=normalize)
    assert [int(m.sum()) for m in masks] == kept
    assert all(m.tolist() == sorted(m.tolist()) for m in masks)


def test_a_stratum_of_zeros_has_no_scale_and_stays_at_the_bottom():
    strata = [Stratum("zeros", np.zeros(3), min_units=0), Stratum("some", np.array([1.0, 2.0, 3.0]))]
    for normalize in ("none", "mean", "max"):
        masks = select(strata, keep_fraction=0.5, allocation="global", normalize=normalize)
        assert [m.tolist() for m in masks] == [[False] * 3, [True] * 3]


def test_a_million_weights_are_chosen_exactly():
    generator = np.random.default_rng(0)
    strata = [Stratum("a", generator.random(700_000)), Stratum("b", generator.random(300_001))]
    for allocation in ("uniform", "global"):
        masks = select(strata, keep_fraction=0.123, allocation=allocation)
        assert sum(int(m.sum()) for m in masks) == round(0.123 * 1_000_001)
    assert int(select(strata, keep_fraction=0.123)[0].sum()) in (86100, 86099, 86101)


@pytest.mark.parametrize("count", range(-1, 7))
def test_the_top_is_that_of_a_sorted_list(count):
    saliency, units = np.array([2.0, 1.0, 2.0, 3.0, 1.0]), np.array([4, 3, 2, 1, 0])
    best = sorted(range(5), key=lambda i: (-saliency[i], units[i]))[: max(count, 0)]
    assert np.flatnonzero(top(saliency, units, count)).tolist() == sorted(best)


def test_nothing_at_all_has_no_top_and_no_highest_saliency():
    assert top(np.zeros(0), np.zeros(0, int), 0).tolist() == []
    assert [len(mask) for mask in select([Stratum("none", np.zeros(0))], cutoff=1.0)] == [0]
    assert select([], cutoff=1.0) == []


def test_the_cutoff_itself_stays_and_the_multiple_is_filled_up():
    part = Stratum("a", np.array([4.0, 3.0, 2.0, 1.0, 0.0]), multiple=2, min_units=0)
    kept = [int(select([part], cutoff=cutoff)[0].sum()) for cutoff in (4.0, 3.0, 2.5, 2.0, 0.5, 0.0)]
    assert kept == [2, 2, 2, 4, 4, 5]


def test_the_share_that_would_keep_one_is_named():
    with pytest.raises(RunError, match=r"keep_fraction 0.001 of 250 units keeps none: use at least 0.004"):
        select([Stratum("a", np.zeros(250), min_units=0)], keep_fraction=0.001)


def test_a_mean_is_over_all_units_and_nothing_is_scaled_by_nothing():
    assert normalizations["mean"](np.array([4.0, -2.0])).tolist() == [4 / 3, -2 / 3]
    assert normalizations["mean"](np.array([8.0])).tolist() == [1.0]
    assert normalizations["max"](np.array([4.0, -8.0])).tolist() == [0.5, -1.0]
    for name in ("mean", "max", "none"):
        assert normalizations[name](np.zeros(0)).tolist() == []
        assert normalizations[name](np.array([1e-310, 0.0])).tolist() == [1e-310, 0.0]


def test_the_first_of_several_is_named():
    broken = Stratum("conv2", np.array([1.0, np.nan, 2.0, np.inf]), np.array([10, 11, 12, 13]))
    with pytest.raises(RunError, match=r"got nan for unit 11 \(2 of 4 are not\)"):
        select([broken], keep_fraction=0.5)
