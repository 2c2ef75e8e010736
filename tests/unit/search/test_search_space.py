"""A space varies what a recipe may say, and nothing that settings are judged by."""

import pytest

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Recipe
from prunus.search.space import Space

BASE = {
    "data": {"source": "sklearn:digits"},
    "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
    "recovery": {"epochs": 3},
}


def space(keys, **more):
    return Space.of(Recipe.model_validate({**BASE, **more, "search": {"space": keys}}))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"strategy.keep_fractoin": [0.5]}, r"unknown key 'strategy.keep_fractoin': did you mean 'keep_fraction'"),
        (
            {"strategy.keep_fraction": {"low": 0.5, "high": 1.5}},
            r"search.space.strategy.keep_fraction: .*less than or equal to 1",
        ),
        (
            {"strategy.criterion": ["taylor", "tailor"]},
            r"strategy.criterion: unknown criterion.*did you mean 'taylor'",
        ),
        ({"recovery.epochs": {"low": 0.5, "high": 2.5}}, r"search.space.recovery.epochs: .*integer"),
        ({"data.test": ["a.csv"]}, r"data.test can't vary"),
        ({"data.split.test": [0.1, 0.5]}, r"data.split.test can't vary, since settings are judged by data.split"),
        ({"contract": [None]}, r"contract can't vary"),
        ({"seeds": [[1], [2]]}, r"seeds can't vary"),
    ],
)
def test_a_key_that_is_wrong_or_fixed_is_named_before_anything_runs(keys, message):
    with pytest.raises(RecipeError, match=message):
        space(keys)


def test_without_a_section_it_says_what_to_add():
    with pytest.raises(RecipeError, match=r"got no section search; add search: {space:"):
        Space.of(Recipe.model_validate(BASE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "a logarithmic scale begins above zero"),
        ({"low": 1, "high": 9, "step": 0}, "a step is above zero"),
        ([], "at least 1"),
    ],
)
def test_a_range_that_holds_nothing_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({**BASE, "search": {"space": {"recovery.epochs": values}}})


def test_lists_and_mappings_are_values_too_and_come_back_as_they_were():
    found = space({"strategy.granularity": ["channel", ["channel", "head"]], "recovery.average": [{"kind": "ema"}]})
    drawn = {"strategy.granularity": '["channel", "head"]', "recovery.average": '{"kind": "ema"}'}
    values = found.values(drawn)
    assert values == {"strategy.granularity": ["channel", "head"], "recovery.average": {"kind": "ema"}}
    made = found.recipe(values)
    assert made.strategy.granularity == ("channel", "head")
    assert made.recovery.average.kind == "ema"


def test_numbers_are_whole_where_both_ends_are():
    found = space({"recovery.epochs": {"low": 1, "high": 4}, "strategy.keep_fraction": {"low": 0.2, "high": 1}})
    kinds = {key: type(kind).__name__ for key, kind in found.distributions().items()}
    assert kinds == {"recovery.epochs": "IntDistribution", "strategy.keep_fraction": "FloatDistribution"}


def test_the_recipes_own_values_are_a_point_as_far_as_they_are_in_the_space():
    keys = {
        "strategy.keep_fraction": {"low": 0.2, "high": 0.9},
        "strategy.criterion": ["taylor", "wanda"],
        "recovery.epochs": {"low": 5, "high": 9},
        "recovery.method": ["distil"],
    }
    assert space(keys).own_point() == {"strategy.keep_fraction": 0.5, "strategy.criterion": "taylor"}
