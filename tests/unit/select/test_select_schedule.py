"""A schedule is the formula of its paper."""

import pytest

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Schedule
from prunus.select import keep_fractions


def test_one_shot_is_one_round():
    assert keep_fractions(Schedule(), 0.3) == (0.3,)


def test_linear_takes_the_same_from_every_round():
    assert keep_fractions(Schedule(kind="linear", rounds=4), 0.2) == pytest.approx((0.8, 0.6, 0.4, 0.2))


def test_cubic_is_zhu_and_gupta_in_terms_of_sparsity():
    final, rounds = 0.9, 5
    sparsity = [final + (0 - final) * (1 - t / rounds) ** 3 for t in range(1, rounds + 1)]  # their equation 1, s_i = 0
    assert keep_fractions(Schedule(kind="cubic", rounds=rounds), 0.1) == pytest.approx([1 - s for s in sparsity])


@pytest.mark.parametrize("keep", [0.0, 1.01, float("nan")])
def test_the_goal_must_be_a_keep_fraction(keep):
    with pytest.raises(RecipeError, match="keep_fraction"):
        keep_fractions(Schedule(), keep)
