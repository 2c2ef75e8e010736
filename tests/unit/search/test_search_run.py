"""A search is the same for any number of workers, and after any kill; no test example takes part in it."""

import json
import math
import shutil

import pytest

from prunus.core.errors import DataError, OutputError, RecipeError, RunError
from prunus.core.recipes.recipe import Recipe
from prunus.search import run_search, trial
from prunus.search.run_search import search
from prunus.search.study import JOURNAL

RECIPE = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.1, "test": 0.25}},
    "model": {"builder": "mlp", "args": {"width": 8}},
    "train": {"epochs": 1},
    "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "keep_fraction": 0.5},
    "recovery": {"method": "fine_tune", "epochs": 1},
    "seeds": [0],
}
SPACE = {
    "strategy.keep_fraction": {"low": 0.2, "high": 0.9},
    "recovery.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "strategy.criterion": ["magnitude_l2", "magnitude_l1"],
}


def recipe(folder, **asked):
    section = {"space": SPACE, "trials": 10, "batch": 3, **asked}
    return Recipe.model_validate({**RECIPE, "output": str(folder), "search": section})


def made_up(asked):
    """What a trial would give: a smooth function of its settings, in no time."""
    keep, rate = asked.recipe["strategy"]["keep_fraction"], asked.recipe["recovery"]["learning_rate"]
    quality = 1 - (1 - keep) ** 2 - 0.05 * abs(math.log10(rate) + 3)
    share = dict.fromkeys(("macs", "params", "bytes"), keep)
    drop = 1 - quality
    return {
        "state": "done",
        "quality": quality,
        "dense_quality": 1.0,
        "drop": drop,
        "bound": None,
        "gap": 0.0,
        "dense_gap": 0.0,
        "shares": share,
        "rungs": {},
        "macs": keep,
        "seconds": 0.0,
    }


@pytest.fixture
def quick(monkeypatch):
    """Trials that take no time, and nothing to confirm."""
    monkeypatch.setattr(run_search, "run_trial", made_up)
    monkeypatch.setattr(run_search, "confirm", lambda *_, **__: [])


def values_of(folder):
    return [(row["number"], row["values"]) for row in json.loads((folder / "search.json").read_text())["trials"]]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_killed_search_ends_as_one_that_was_never_killed(quick, tmp_path, monkeypatch, sampler):
    search(recipe(tmp_path / "whole", sampler=sampler))
    for place, at in enumerate((1, 5, 8)):
        seen = []

        def killed(asked, at=at, seen=seen):
            seen.append(asked.number)
            if len(seen) == at:
                raise KeyboardInterrupt
            return made_up(asked)

        with monkeypatch.context() as patch:
            patch.setattr(run_search, "run_trial", killed)
            with pytest.raises(KeyboardInterrupt):
                search(recipe(tmp_path / f"killed{place}", sampler=sampler))
        search(recipe(tmp_path / f"killed{place}", sampler=sampler), resume=True)
        assert values_of(tmp_path / f"killed{place}") == values_of(tmp_path / "whole")


def test_a_contract_that_nothing_could_break_or_show_is_refused_before_any_trial(quick, tmp_path):
    with pytest.raises(RecipeError, match=r"search\.contract\.max_drop must be below 1 for accuracy.*got 3"):
        search(recipe(tmp_path / "a", contract={"max_drop": 3}))
    few = RECIPE["data"] | {
        "source": "sklearn:diabetes",
        "split": {"validation": 0.2, "calibration": 0.1, "test": 0.05},
    }
    asked = {"space": SPACE, "trials": 2, "contract": {"metric": "mae", "max_drop": 5}}
    one = Recipe.model_validate({**RECIPE, "data": few, "output": str(tmp_path / "b"), "search": asked})
    with pytest.raises(DataError, match="22 test examples can't tell how mae changes: expected at least 30"):
        search(one)


def test_it_begins_with_the_recipes_own_values_and_gets_better_than_chance(quick, tmp_path):
    found = {
        name: search(recipe(tmp_path / name, sampler=name, trials=45, batch=1)).facts for name in ("tpe", "random")
    }
    assert found["tpe"]["trials"][0]["values"]["strategy.keep_fraction"] == 0.5
    rates = {
        name: sum(abs(math.log10(row["values"]["recovery.learning_rate"]) + 3) < 0.2 for row in facts["trials"][9:])
        for name, facts in found.items()
    }
    assert rates["tpe"] > 2 * rates["random"]


def test_with_a_contract_the_frontier_holds_what_keeps_it(quick, tmp_path):
    facts = search(recipe(tmp_path, trials=30, contract={"metric": "accuracy", "max_drop": 0.1})).facts
    rows = {row["number"]: row for row in facts["trials"]}
    assert facts["frontier"]
    assert all(rows[number]["drop"] <= 0.1 for number in facts["frontier"])
    best = min(row["shares"]["macs"] for row in rows.values() if row["drop"] <= 0.1)
    assert rows[facts["frontier"][0]]["shares"]["macs"] == best


def test_settings_that_do_not_go_together_fail_alone_and_are_told(quick, tmp_path, monkeypatch):
    def some(asked):
        return {"state": "failed", "why": "no"} if asked.number % 2 else made_up(asked)

    monkeypatch.setattr(run_search, "run_trial", some)
    facts = search(recipe(tmp_path)).facts
    assert facts["n"] == {"done": 5, "stopped": 0, "failed": 5}
    monkeypatch.setattr(run_search, "run_trial", lambda _: {"state": "failed", "why": "the training diverged"})
    with pytest.raises(RunError, match="no trial ended, so there is nothing to choose from: the training diverged"):
        search(recipe(tmp_path), overwrite=True)


def test_a_folder_of_another_search_or_of_something_else_is_left_alone(quick, tmp_path):
    search(recipe(tmp_path / "a"))
    with pytest.raises(OutputError, match="holds a search already: add --resume"):
        search(recipe(tmp_path / "a"))
    other = recipe(tmp_path / "a").model_copy(update={"name": "other"})
    with pytest.raises(OutputError, match=r"the search of another recipe \(name differs\)"):
        search(other, resume=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match=r"holds no search \(mine.txt\)"):
        search(recipe(tmp_path / "b"), overwrite=True)
    assert (tmp_path / "b" / "mine.txt").read_text() == "x"


def test_more_trials_go_on_where_fewer_ended(quick, tmp_path):
    search(recipe(tmp_path / "a", trials=6))
    search(recipe(tmp_path / "a", trials=10), resume=True)
    search(recipe(tmp_path / "b", trials=10))
    assert values_of(tmp_path / "a") == values_of(tmp_path / "b")


@pytest.mark.parametrize(
    "storage",
    ["sqlite:////nowhere/at/all/study.db", "nosuchdatabase://host/study", "nosuchdatabase://me:hunter2@host/study"],
)
def test_a_storage_that_cannot_be_opened_is_one_line(quick, tmp_path, storage):
    with pytest.raises(OutputError, match=r"search.storage: can't open the study in \S+: got \w+: ") as found:
        search(recipe(tmp_path / "a", storage=storage))
    assert "\n" not in str(found.value)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"metric": "rmse"}, "rmse"),
        ({"metric": "f1_macro", "contract": {"metric": "accuracy"}}, "must be one, since the promise is a bound on it"),
    ],
)
def test_a_metric_that_cannot_be_is_told_before_anything_is_trained(quick, tmp_path, asked, message):
    with pytest.raises(RecipeError, match=message):
        search(recipe(tmp_path, **asked))


def test_a_metric_that_one_seed_has_no_number_for_is_left_out_and_the_trial_stands(tmp_path, monkeypatch):
    whole = trial.value_of

    def some(task, name, seen):
        return math.nan if name == "f1_macro" and len(losses) > 1 else whole(task, name, seen)

    losses = []
    original = trial.fit_dense
    monkeypatch.setattr(trial, "fit_dense", lambda job, seed: losses.append(seed) or original(job, seed))
    monkeypatch.setattr(trial, "value_of", some)
    tree = {**RECIPE, "seeds": [0, 1], "evaluation": {"metrics": ["accuracy", "f1_macro"]}}
    asked = trial.Asked(0, tree, str(tmp_path / "trial"), str(tmp_path / "shared"), "accuracy", ("macs",))
    found = trial.run_trial(asked)
    assert found["state"] == "done"
    assert found["quality"] == sum(row["quality"] for row in found["seeds"]) / 2
    assert trial.read_result(tmp_path / "trial", "f1_macro") is None


def test_when_the_time_is_up_no_batch_begins(quick, tmp_path):
    with pytest.raises(RunError, match="no trial began in the time given"):
        search(recipe(tmp_path, minutes=1e-9))


@pytest.mark.parametrize(
    "sampler", ["tpe", *(pytest.param(one, marks=pytest.mark.nightly) for one in ("nsga2", "random"))]
)
def test_a_search_goes_on_the_same_from_every_line_of_its_account(quick, tmp_path, sampler):
    asked = {"sampler": sampler, "trials": 5, "contract": {"metric": "accuracy", "max_drop": 0.1}, "warm_starts": 0}
    search(recipe(tmp_path / "whole", **asked))
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)
    assert len(lines) > 20
    for n in range(len(lines)):
        folder = tmp_path / "cut"
        shutil.copytree(tmp_path / "whole", folder)
        (folder / "search.json").unlink()
        (folder / "trials").mkdir()
        (folder / JOURNAL).write_bytes(b"".join(lines[:n]))
        search(recipe(folder, **asked), resume=True)
        assert values_of(folder) == values_of(tmp_path / "whole"), f"after {n} lines"
        shutil.rmtree(folder)


def test_an_account_with_values_that_nobody_could_draw_is_refused(quick, tmp_path):
    search(recipe(tmp_path / "a", trials=2))
    journal = tmp_path / "a" / JOURNAL
    whole = journal.read_text()
    assert '"strategy.keep_fraction":0.5' in whole
    for changed in ('"strategy.keep_fraction":0.99', '"strategy.keep_fraction":1e308'):
        journal.write_text(whole.replace('"strategy.keep_fraction":0.5', changed))
        with pytest.raises(
            OutputError, match=r"trial 0 of the study prunus-\w+ has values that search\.space can't give"
        ):
            search(recipe(tmp_path / "a", trials=3), resume=True)


def test_a_lock_of_a_process_that_was_killed_holds_nobody_up(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search(recipe("a", trials=4))
    (tmp_path / "a" / f"{JOURNAL}.lock").symlink_to(f"a/{JOURNAL}")
    search(recipe("a", trials=6), resume=True)
    assert len(values_of(tmp_path / "a")) == 6
