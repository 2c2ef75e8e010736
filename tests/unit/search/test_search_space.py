"""A space varies what a recipe may say, and nothing that settings are judged by."""

import pytest

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.recipe_file import make_recipe
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
        ({"strategy.keep_fractoin": [0.5]}, r"'strategy.keep_fractoin': did you mean 'strategy.keep_fraction'\?"),
        ({"stratgy.keep_fraction": [0.5]}, r"'stratgy.keep_fraction': did you mean 'strategy.keep_fraction'\?"),
        ({"strategy/keep_fraction": [0.5]}, r"'strategy/keep_fraction': did you mean 'strategy.keep_fraction'\?"),
        ({"strategy.sparsity": [0.5]}, r"'strategy.sparsity': did you mean 'strategy.keep_fraction'\?"),
        ({"model.argz.width": [8]}, r"'model.argz.width': did you mean 'model.args.width'\?"),
        ({"strategy.schedule.round": [8]}, r"did you mean 'strategy.schedule.rounds'\?"),
        ({"learning_rate": [0.1]}, r"did you mean 'train.learning_rate' or 'recovery.learning_rate'\?"),
        ({"prune.amount": [0.1]}, r"unknown key 'prune.amount': expected a key of data, model, train, .*, recovery$"),
        ({"strategy.quite_odd": [1]}, r"unknown key 'strategy.quite_odd': choose one of: allocation, .*, criterion, "),
        ({".width": [1]}, r"a key reads section.key, like strategy.keep_fraction: got '.width'"),
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


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"strategy.keep_fraction": 0.5},
            "search.space: strategy.keep_fraction: expected {low: ..., high: ...} or a list of values, got 0.5",
        ),
        (
            {"strategy.keep_fraction": []},
            "search.space: strategy.keep_fraction: an empty list leaves nothing to try: give values, or take the key away",
        ),
        (
            {"recovery.epochs": [1, 2, 1]},
            "search.space: recovery.epochs: every value may be given once: got 1 twice",
        ),
        (
            {"strategy": {"keep_fraction": [0.5]}},
            (
                "search.space: strategy: the keys of a space are written with dots: expected strategy.keep_fraction: ..., got a "
                "section"
            ),
        ),
        (
            {"recovery.epochs": {"min": 1, "max": 3}},
            "search.space: recovery.epochs: a range has no key 'min': did you mean 'low'?",
        ),
        (
            {"recovery.epochs": {"low": 1, "high": 3, "stepp": 1}},
            "search.space: recovery.epochs: a range has no key 'stepp': did you mean 'step'?",
        ),
        (
            {"recovery.epochs": {"high": 3}},
            "search.space: recovery.epochs: a range needs both low and high: add low, or give a list of values",
        ),
        (
            {"recovery.epochs": {"values": [1, 2]}},
            "search.space: recovery.epochs: give the list itself: expected recovery.epochs: [...], got a section values",
        ),
        (
            {"recovery.epochs": {"low": 3, "high": 1}},
            "search.space.recovery.epochs: low must be below high: got 3 and 1",
        ),
        (
            ["recovery.epochs"],
            (
                "search.space: expected keys of the recipe and what each may be, like strategy.keep_fraction: {low: 0.2, high: 0.9}"
                ": got ['recovery.epochs']"
            ),
        ),
        ({1: [2]}, "search.space: a key is a word, like strategy.keep_fraction: got 1"),
    ],
)
def test_a_space_that_is_none_says_what_a_space_is(keys, message):
    with pytest.raises(RecipeError) as refused:
        make_recipe({**BASE, "search": {"space": keys}})
    assert str(refused.value) == f"recipe: {message}"


def test_a_space_is_read_again_as_it_was_written():
    asked = {"space": {"recovery.epochs": {"low": 1, "high": 3}, "strategy.keep_fraction": [0.5, 1, True]}}
    made = make_recipe({**BASE, "search": asked})
    assert make_recipe(made.model_dump(mode="json")) == made
    assert Recipe.model_validate(made.model_dump()) == made


def test_without_a_section_it_says_what_to_add():
    with pytest.raises(RecipeError, match=r"got no section search; add search: {space:"):
        Space.of(Recipe.model_validate(BASE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "a logarithmic scale begins above zero"),
        ({"low": 1, "high": 9, "step": 0}, "a step is above zero"),
        ([], "an empty list leaves nothing to try"),
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
