"""Strata that one number stands for keep one and the same share, whoever shares out the budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prunus.core.types import Stratum
from prunus.select import allocations, climb, cost_aware, floor_counts, one_less, select
from prunus.select.joint_strata import Merged

STEPS = 6


def strata(seed: int = 0, *, joint: str = "heads"):
    draw = np.random.default_rng(seed)
    return [
        Stratum("alone", draw.random(10), shape=(10.0, 4.0)),
        Stratum("width", draw.random(24), joint=joint, multiple=4, shape=(24.0, 4.0)),
        Stratum("heads", draw.random(6), joint=joint, shape=(6.0, 4.0)),
        Stratum("pooled", draw.random(48), joint=joint, multiple=8, shape=(48.0, 4.0)),
    ]


def shares(keep):
    return [mask.sum() / len(mask) for mask in keep]


class Product:
    """A cost with coupled sizes, as that of a model is."""

    def total(self, counts):
        alone, width, heads, pooled = (float(n) for n in counts)
        return alone * width + 4 * width * heads + pooled

    def part(self, group, counts):
        return self.total(counts)

    def neighbours(self, group):
        return {0, 1, 2, 3}


@pytest.mark.parametrize("name", [name for name in allocations if name != "sensitivity"])
def test_all_of_a_joint_keep_the_same_share_in_whole_steps(name):
    for fraction in (0.2, 0.5, 0.77):
        _, *joint = shares(select(strata(), keep_fraction=fraction, allocation=name, normalize="mean"))
        assert len(set(joint)) == 1
        assert joint[0] * STEPS == round(joint[0] * STEPS)


def test_every_stratum_of_a_joint_keeps_its_own_best():
    given = strata(1)
    for stratum, mask in zip(given, select(given, keep_fraction=0.5), strict=True):
        assert stratum.saliency[mask].min() > stratum.saliency[~mask].max()


def test_without_joints_nothing_changes():
    given = strata(joint="")
    merged = Merged.of(given)
    assert merged.is_plain
    assert list(merged.strata) == given


def test_floors_and_multiples_of_each_hold_for_all():
    given = strata()
    given[2] = Stratum("heads", given[2].saliency, joint="heads", min_units=2)
    assert floor_counts(given).tolist() == [1, 8, 2, 16]
    given[3] = Stratum("pooled", given[3].saliency, joint="heads", multiple=16)
    kept = {int(select(given, keep_fraction=share)[2].sum()) for share in np.linspace(0.35, 1, 20)}
    assert kept == {2, 4, 6}


def test_counts_by_cost_meet_the_limit_and_no_step_up_does():
    given, cost = strata(2), Product()
    counts = cost_aware(given, cost, 400.0)
    assert cost.total(counts) <= 400.0
    share = counts[2]
    assert counts.tolist() == [counts[0], 4 * share, share, 8 * share]
    for alone, heads in ((counts[0] + 1, share), (counts[0], share + 1)):
        assert alone > 10 or heads > 6 or cost.total([alone, 4 * heads, heads, 8 * heads]) > 400.0


def test_the_way_up_and_the_steps_down_keep_the_joint():
    given, cost = strata(3), Product()
    low, high = floor_counts(given), np.array([10, 24, 6, 48])
    for counts in itertools.chain(climb(given, cost, low, high), one_less(given, high)):
        assert counts.tolist() == [counts[0], 4 * counts[2], counts[2], 8 * counts[2]]


def test_errors_that_add_up_are_added_over_a_joint():
    given = [
        Stratum(n, np.array(s), joint="j", additive=True) for n, s in (("a", [3.0, 1.0]), ("b", [4.0, 2.0, 1.0, 1.0]))
    ]
    (merged,) = Merged.of(given).strata
    assert merged.saliency.sum() == pytest.approx(4.0 + 8.0)
    assert merged.saliency[:2].sum() == pytest.approx(3.0 + 6.0)  # the better half of both


def test_losses_measured_at_the_same_shares_are_added():
    curve = np.array([[1.0, 0.0], [0.5, 0.2]])
    given = [
        Stratum(n, np.zeros(4), joint="j", losses=f * curve)
        for n, f in (("a", np.array([1.0, 1.0])), ("b", np.array([1.0, 3.0])))
    ]
    (merged,) = Merged.of(given).strata
    np.testing.assert_allclose(merged.losses, [[1.0, 0.0], [0.5, 0.8]])
