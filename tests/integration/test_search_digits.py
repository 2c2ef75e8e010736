"""A real search on real digits: dense models are shared, bad trials stop, the frontier is confirmed, and the page shows it."""

import json
from pathlib import Path

import pytest
import yaml

from prunus.cli.app import invoke
from prunus.core.recipes.recipe import Recipe
from prunus.search import search, trial
from prunus.search.race import Rival
from prunus.search.trial import Asked, run_trial

RECIPE = """
name: digits
data: {source: "sklearn:digits", split: {validation: 0.2, calibration: 0.1, test: 0.25}}
model: {builder: mlp, args: {width: 16}}
train: {epochs: 4}
strategy: {criterion: magnitude_l2, granularity: channel, keep_fraction: 0.6}
recovery: {method: fine_tune, epochs: 2}
evaluation: {bootstrap: 100, latency: {repeats: 5, warm_up: 1}}
seeds: [0]
search:
  space:
    strategy.keep_fraction: {low: 0.3, high: 0.9}
    recovery.learning_rate: {low: 1.0e-5, high: 1.0e-2, log: true}
  contract: {metric: accuracy, max_drop: 0.1}
  trials: 10
  batch: 5
  confirm: {points: 2, seeds: 1}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "recipe.yaml").write_text(RECIPE + f"output: {folder / 'out'}\n")
    events = []
    recipe = Recipe.model_validate(yaml.safe_load((folder / "recipe.yaml").read_text()))
    return folder, search(recipe, listener=events.append), events, recipe


def test_the_frontier_is_confirmed_on_test_examples_that_chose_nothing(searched):
    _, found, _, recipe = searched
    facts = found.facts
    assert facts["n"]["done"] + facts["n"]["stopped"] == 10
    assert len(facts["confirmed"]) == 2
    for row in facts["confirmed"]:
        assert row["seeds"] == [1]
        assert row["confidence"] == pytest.approx(0.975)
        assert row["n_test"] > 400
        assert (Path(row["bundle"]) / "manifest.json").exists()
        assert row["kept"] == (-row["difference"]["low"] <= 0.1)
    assert recipe.seeds == (0,)


def test_the_dense_model_is_trained_once_for_each_seed(searched):
    folder, _, _, _ = searched
    assert sorted(path.name for path in (folder / "out" / ".dense").glob("*/*")) == ["seed 0", "seed 1"]


def test_a_trial_that_is_done_is_read_and_never_run_again(searched, monkeypatch):
    _, found, _, recipe = searched

    def run(*_):
        raise AssertionError("it was run again")

    monkeypatch.setattr(trial, "open_job", run)
    again = search(recipe, resume=True)
    assert again.facts == found.facts


def test_another_contract_reads_the_same_trials(searched, monkeypatch):
    """Eight settings are by chance whatever is promised, and so are all ten where all keep both promises."""
    _, _, _, recipe = searched
    asked = recipe.search.model_copy(update={"contract": recipe.search.contract.model_copy(update={"max_drop": 0.5})})
    opened = []
    monkeypatch.setattr(trial, "open_workspace", lambda recipe, *_, **__: opened.append(recipe) or pytest.fail("run"))
    found = search(recipe.model_copy(update={"search": asked.model_copy(update={"trials": 8})}), resume=True)
    assert found.facts["contract"]["max_drop"] == 0.5
    assert not opened


def test_a_trial_that_is_behind_is_stopped_and_measured_as_it_stands(searched, tmp_path):
    folder, _, _, recipe = searched
    tree = recipe.model_copy(update={"search": None, "output": str(tmp_path)}).model_dump(mode="json")
    rivals = tuple(Rival(0.0, {"recover 1 of 1, 1": 2.0}) for _ in range(4))
    asked = Asked(
        0, tree, str(tmp_path / "trial"), str(folder / "out" / ".dense"), "accuracy", ("macs",), rivals=rivals
    )
    found = run_trial(asked)
    assert found["state"] == "stopped"
    assert found["rungs"] == {"recover 1 of 1, 1": found["quality"]}
    assert 0 < found["shares"]["macs"] < 1
    assert found["drop"] == pytest.approx(found["dense_quality"] - found["quality"])
    assert run_trial(asked) == found


def test_the_page_and_the_command_say_what_was_found(searched, capsys):
    folder, found, _, _ = searched
    page = found.page.read_text()
    assert "pruned − dense" in page
    assert "<script" not in page
    assert invoke(["search", str(folder / "recipe.yaml"), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frontier"] == found.facts["frontier"]
    assert invoke(["search", str(folder / "recipe.yaml"), "--resume", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "10 trials: " in said
    assert f"page {found.page}" in said
    assert invoke(["search", str(folder / "recipe.yaml")]) == 7
