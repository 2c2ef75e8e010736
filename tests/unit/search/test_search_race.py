"""A trial that is behind is stopped, and what is cheap is never measured against what is dear."""

import pytest
from torch import nn

from prunus.search.race import Behind, Rival, Runner


def runner(qualities, *, cost=1.0, higher=True, at="recover 1 of 1, 2"):
    rivals = [Rival(macs, {at: quality}) for macs, quality in qualities]
    return Runner(rivals, higher, quality=lambda model: 0.5, cost=lambda model: cost)


def look(one, done=2):
    one.look("seed 0 / recover 1 of 1", nn.Identity(), done)


def test_a_trial_below_the_median_of_those_that_cost_no_more_is_stopped():
    one = runner([(1.0, 0.4), (0.9, 0.6), (0.5, 0.7), (0.2, 0.8)])
    with pytest.raises(Behind, match=r"after 2 epochs of recover 1 of 1 it had 0.5, and half of 4 trials"):
        look(one)
    assert one.rungs == {"recover 1 of 1, 2": 0.5}


@pytest.mark.parametrize(
    "one",
    [
        runner([(1.0, 0.4), (1.0, 0.4), (1.0, 0.6), (1.0, 0.6)]),  # at the median
        runner([(1.1, 0.9)] * 4),  # they cost more
        runner([(1.0, 0.9)] * 3),  # too few
        runner([(1.0, 0.9)] * 4, at="recover 1 of 1, 4"),  # seen at another epoch
        runner([(1.0, 0.1)] * 4),
        runner([(1.0, 0.9)] * 4, higher=False),
    ],
    ids=["at the median", "dearer", "too few", "another epoch", "worse", "an error"],
)
def test_other_trials_go_on(one):
    look(one)


def test_it_is_looked_at_after_one_two_four_epochs():
    one = runner([])
    for done in range(1, 10):
        look(one, done)
    assert list(one.rungs) == [f"recover 1 of 1, {done}" for done in (1, 2, 4, 8)]


def test_for_an_error_low_is_better():
    with pytest.raises(Behind):
        look(runner([(1.0, 0.1)] * 4, higher=False))
