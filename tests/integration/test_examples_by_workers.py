"""Do workers find of training examples what one process finds, to the bit, and is nothing trained twice after a stop?"""

import json
from pathlib import Path

import pytest

from flower_examples import CLEAN, recipe, told
from prunus.cli.app import invoke
from prunus.pipeline import clean_examples, score_examples, select_examples
from prunus.pipeline.jobs.run_folder import recipe_text
from workers_here import workers_here


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


TWO = {"workers": 2}
TWICE, QUICKLY = {"clean": {"rounds": 2}, "epochs": 30}, {"train": {"epochs": 1, "learning_rate": 0.02}}


class Stopped(Exception):
    pass


def test_what_was_trained_before_a_stop_stays_and_a_process_of_its_own_trains_the_rest(monkeypatch):
    alone = told(clean_examples(recipe("alone", CLEAN)))
    events = []

    def stops(event):
        events.append(event)
        if event.kind == "progress" and event.stage.endswith("/ folds") and event.done == 2:
            raise Stopped

    with workers_here(monkeypatch), pytest.raises(Stopped):
        clean_examples(recipe("shared", CLEAN, TWO), listener=stops)
    held = list(Path("shared").rglob("*answers.safetensors"))
    assert len(held) == 2
    written = {path: path.stat().st_mtime_ns for path in held}
    events.clear()

    def keeps(event):
        events.append(event)
        assert {path: path.stat().st_mtime_ns for path in held if path.exists()} in (written, {})

    found = clean_examples(recipe("shared", CLEAN, TWO), resume=True, listener=keeps)
    assert [event.done for event in events if event.kind == "progress" and event.stage.endswith("/ folds")] == [3]
    assert told(found) == alone


@pytest.mark.parametrize(
    ("command", "examples", "changes", "stages"),
    [
        # The second round's folds hang on the first's; so do those of a pruned model on what it was cut to.
        (clean_examples, TWICE, QUICKLY, {"judge examples / folds", "judge examples / again / folds"}),
        (
            clean_examples,
            {"clean": {"rounds": 1}, "scorer": {"model": "pruned", "keep_fraction": 0.5, "sample": 20}},
            {"strategy": {"criterion": "magnitude_l2"}},
            {"judge examples / folds"},
        ),
        (select_examples, {"clean": {"rounds": 1, "wrong": "drop"}}, {"seeds": [0]}, {"judge examples / folds", "gate"}),
        (select_examples, {"clean": {"rounds": 1, "wrong": "drop"}}, {"seeds": [0, 1]}, {"seeds", "gate"}),
        (score_examples, {}, {"seeds": [0, 1]}, {"record examples"}),
    ],
)  # fmt: skip
def test_a_command_about_examples_finds_the_same_for_one_worker_and_for_two(
    command, examples, changes, stages, monkeypatch
):
    alone = told(command(recipe("alone", examples, **changes)))
    with workers_here(monkeypatch) as sent:
        assert told(command(recipe("shared", examples, TWO, **changes))) == alone
    assert {task.stage.removeprefix("seed 0 / ") for task in sent} == stages


def planned(folder):
    """Return what a plan says but for where it lies."""
    facts = json.loads((folder / "plan.json").read_text())
    assert facts.pop("sha256")
    facts["recipe"].pop("output")
    return facts, (folder / "units.parquet").read_bytes()


SEARCH = {
    "strategy": {"criterion": "taylor"},
    "contract": {"max_drop": 0.1, "max_candidates": 3},
    "recovery": {"epochs": 1},
}


@pytest.mark.parametrize(
    ("how", "stage"),
    [
        ({"strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5, "allocation": "sensitivity"}}, "losses"),
        (SEARCH, "candidates"),
    ],
)
def test_a_plan_is_the_same_for_one_worker_and_for_two(how, stage, monkeypatch):
    made = recipe("alone", {}, model={"builder": "mlp", "args": {"width": 8, "depth": 2}}, **how)
    Path("r.yaml").write_text(recipe_text(made))
    assert invoke(["plan", "r.yaml", "--quiet"]) == 0
    with workers_here(monkeypatch) as sent:
        assert invoke(["plan", "r.yaml", "--quiet", "-o", "output=shared", "--workers", "2"]) == 0
    assert sent
    assert all(stage in task.stage for task in sent)
    alone, shared = (planned(Path(name) / "plan") for name in ("alone", "shared"))
    assert shared == alone
