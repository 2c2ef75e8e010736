"""A search by workers, from its warm starts to what it confirms, finds what one process finds, to the bit."""

from pathlib import Path

import pytest

from prunus.core.errors import ModelError, RecipeError
from prunus.core.recipes.recipe import Recipe
from prunus.search import confirmed_ahead, search
from prunus.ship import bundle_sha256
from workers_here import workers_here

TREE = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.1, "test": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 8, "depth": 2}},
    "train": {"epochs": 2},
    "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.6, "allocation": "sensitivity"},
    "recovery": {"epochs": 1},
    "evaluation": {"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
    "seeds": [0],
    "search": {
        "space": {"strategy.keep_fraction": {"low": 0.3, "high": 0.9}, "recovery.learning_rate": [1e-4, 1e-2]},
        "contract": {"metric": "accuracy", "max_drop": 0.2},
        "trials": 4,
        "warm_starts": 2,
        "confirm": {"points": 2, "seeds": 2},
    },
}


def recipe(folder, **dispatch):
    return Recipe.model_validate({**TREE, "output": str(folder), "dispatch": dispatch or None})


def found_in(folder, facts):
    """Return all that a search found and left but for its times and its own folder."""
    (drops,) = folder.glob(".dense/sensitivity */drops.json")
    rows = [dict(row) for row in facts["confirmed"]]
    bundles = [bundle_sha256(Path(row.pop("bundle"))) for row in rows]
    folders = [Path(row.pop("folder")) for row in rows]
    plans = [(one / "plan" / "units.parquet").read_bytes() for one in folders]
    trials = [{key: value for key, value in row.items() if key != "seconds"} for row in facts["trials"]]
    for row in (*trials, *rows):
        row["shares"].pop("latency", None)
    dense = sorted(path.relative_to(folder).as_posix() for path in folder.glob(".dense/[0-9a-f]*/seed *"))
    return drops.read_bytes(), trials, rows, bundles, plans, [one.name for one in folders], facts["recommended"], dense


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "out"
    return found_in(folder, search(recipe(folder)).facts)


def test_one_process_and_two_workers_find_the_same(alone, tmp_path, monkeypatch):
    events = []
    with workers_here(monkeypatch) as sent:
        found = found_in(tmp_path, search(recipe(tmp_path), workers=2, listener=events.append).facts)
    assert found == alone
    # Who asked for it trained nothing that it confirms.
    assert not [one for one in events if one.kind == "progress" and one.stage.startswith(("seed 1", "seed 2"))]
    parts = [(task.stage, task.name) for task in sent if hasattr(task, "stage")]
    assert {stage for stage, _ in parts} == {
        "seed 0 / prune 1 of 1 / losses", "confirm / trainings 1", "confirm / trainings 2",
    }  # fmt: skip
    confirmed = [name for stage, name in parts if stage.startswith("confirm")]
    numbers = [row["number"] for row in found[2]]
    assert sorted(confirmed) == sorted(f"setting {number}, seed {seed}" for number in numbers for seed in (1, 2))
    first = [name for stage, name in parts if stage == "confirm / trainings 1"]
    assert first == [f"setting {numbers[0]}, seed {seed}" for seed in (1, 2)]  # the others have their dense models


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Ray's own
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("backend", ["local", "ray"])
def test_processes_of_their_own_find_the_same(alone, tmp_path, backend):
    folder = tmp_path / "out"
    assert found_in(folder, search(recipe(folder, backend=backend, workers=2)).facts) == alone


def test_a_training_that_fails_is_named_and_a_resume_does_what_is_missing(alone, tmp_path, monkeypatch):
    def fails(job, seed):
        if seed == 2:
            raise ModelError("it can't be built")
        return real(job, seed)

    real = confirmed_ahead.own_seed
    with monkeypatch.context() as patched, workers_here(monkeypatch):
        patched.setattr(confirmed_ahead, "own_seed", fails)
        with pytest.raises(ModelError, match=r"^setting \d+, seed 2: it can't be built$"):
            search(recipe(tmp_path), workers=2)
    with workers_here(monkeypatch):
        assert found_in(tmp_path, search(recipe(tmp_path), workers=2, resume=True).facts) == alone


def test_workers_below_one_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="expected workers >= 1: got 0"):
        search(recipe(tmp_path), workers=0)
