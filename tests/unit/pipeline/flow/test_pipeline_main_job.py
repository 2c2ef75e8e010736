"""A plan answers each stage with the steps of its kind, in their order, whatever the stage is called."""

import pytest

from prunus.core.errors import PlanError, UnknownNameError
from prunus.core.recipes.recipe import Recipe
from prunus.core.types import Plan, Step
from prunus.pipeline import run
from prunus.pipeline.flow.plan_of_run import decide_from


def plan_of(*kinds):
    steps = [
        Step({"example": "remove", "feature": "replace"}.get(kind, "prune"), kind, f"{n}", ())
        for n, kind in enumerate(kinds)
    ]
    return Plan(tuple(steps), 0, {}, {})


def test_a_replay_goes_by_what_is_asked_for_and_not_by_a_name():
    decide = decide_from(plan_of("example", "example", "feature", "channel", "weight"))
    asked = [("example", "x"), ("feature", "x"), ("prune", "seed 0 / judge examples"), ("prune", "judge features")]
    found = [[step.criterion for step in decide(kind, name, None)] for kind, name in asked]
    assert found == [["0", "1"], ["2"], ["3"], ["4"]]
    with pytest.raises(PlanError, match="the plan has no step left for it"):
        decide("prune", "x", None)


def test_steps_for_data_that_are_not_asked_for_are_passed_over():
    decide = decide_from(plan_of("example", "feature", "channel"))
    assert [step.criterion for step in decide("prune", "x", None)] == ["2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": {"criterion": "tailor"}},
        {"model": {"builder": "cn"}},
        {"examples": {"remove": [{"criterion": "forgeting", "keep_fraction": 0.5}]}},
    ],
    ids=["criterion", "builder", "example criterion"],
)
def test_a_name_that_means_nothing_is_told_before_any_data_are_read(monkeypatch, tmp_path, wrong):
    def read(*_):
        raise AssertionError("the data were read")

    monkeypatch.setattr("prunus.pipeline.flow.open_job.prepared_for", read)
    recipe = {"data": {"source": "sklearn:digits"}, "model": {"builder": "cnn"}, "output": str(tmp_path / "out")}
    with pytest.raises(UnknownNameError, match=r"did you mean '(taylor|cnn|forgetting)'\?"):
        run(Recipe.model_validate(recipe | wrong))
