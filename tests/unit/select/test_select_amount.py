"""A share of a stratum becomes the nearest count that its multiple and its floor allow."""

import numpy as np
import pytest

from prunus.core.types import Stratum
from prunus.select.amount import Ladder, closest

SIZES = range(1, 14)


def ladder_of(size, multiple, floor=0):
    return Ladder.of([Stratum("s", np.zeros(size), min_units=floor, multiple=multiple)])


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5])
def test_the_nearest_rung_is_that_of_brute_force_and_half_way_goes_up(multiple):
    for size in SIZES:
        for floor in (0, 1, min(3, size)):
            ladder = ladder_of(size, multiple, floor)
            rungs = np.arange(int(ladder.first[0]), int(ladder.last[0]) + 1)
            counts = np.minimum(rungs * int(ladder.block[0]), size)
            for sixteenth in range(17):
                away = np.abs(counts * 16 - size * sixteenth)
                nearest = rungs[np.flatnonzero(away == away.min())[-1]]
                assert int(ladder.nearest(sixteenth / 16)[0]) == nearest, (size, floor, sixteenth)


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5])
def test_a_rung_s_threshold_lies_half_way_between_it_and_the_one_below(multiple):
    for size in SIZES:
        ladder = ladder_of(size, multiple)
        for rung in range(1, int(ladder.last[0]) + 1):
            below, here = (int(ladder.counts(np.array([n]))[0]) for n in (rung - 1, rung))
            assert ladder.threshold(0, rung) == pytest.approx((below + here) / 2 / size)


@pytest.mark.parametrize("totals", [[3], [4, 8, 12], [0, 1, 7], [2, 3, 5, 11]])
def test_the_closest_total_is_that_of_brute_force_and_of_two_the_higher(totals):
    for target in range(15):
        away = [abs(total - target) for total in totals]
        assert totals[closest(target, np.array(totals))] == max(
            total for total, far in zip(totals, away, strict=True) if far == min(away)
        )
        assert closest(target, np.array(totals)) >= 0
