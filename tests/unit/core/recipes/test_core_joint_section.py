"""Is a grid that means nothing refused in one line that says what to do?"""

import pytest

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Joint
from prunus.core.recipes.recipe_file import make_recipe

BASE = {"data": {"source": "sklearn:iris"}, "strategy": {"keep_fraction": 0.5}}


def recipe(**more):
    return make_recipe({**BASE, "joint": {}, **more})


def test_shares_go_from_all_down_each_once_and_all_is_always_among_them():
    joint = recipe(joint={"data": [0.3, 0.8, 0.3], "model": [1, 0.5]}).joint
    assert joint.data == (1.0, 0.8, 0.3)
    assert joint.model == (1.0, 0.5)
    assert recipe().joint == Joint()
    assert make_recipe(BASE).joint is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"joint": {"data": [0.5, 0]}}, r"joint\.data\.1: expected greater than 0, got 0"),
        ({"joint": {"share": [0.5]}}, r"unknown key 'joint\.share'"),
        ({"joint": {"max_drop": 0}}, r"joint\.max_drop: expected greater than 0"),
        ({"strategy": None}, r"joint\.model needs a strategy.*joint\.model: \[1\]"),
        ({"strategy": {"cutoff": 0.1}}, "a cutoff says by itself how much goes"),
        ({"strategy": {"granularity": "2:4"}}, "granularity 2:4 says by itself how much goes"),
        (
            {"strategy": {"keep_fraction": 0.5, "layers": [{"match": "a", "keep_fraction": 0.9}]}},
            r"strategy\.layers have amounts of their own",
        ),
        ({"features": {}}, "joint and features both decide on the validation examples"),
    ],
)
def test_what_cannot_vary_is_refused(more, said):
    with pytest.raises(RecipeError, match=said) as caught:
        recipe(**more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", [{"strategy": None}, {"strategy": {"cutoff": 0.1}}])
def test_the_data_alone_may_vary(more):
    assert recipe(joint={"model": [1]}, **more).joint.model == (1.0,)


def test_with_a_target_the_shares_are_of_its_cost():
    assert recipe(strategy={}, target={"macs": 0.5}).joint is not None
