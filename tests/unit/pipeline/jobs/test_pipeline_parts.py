"""Do workers leave what one process leaves, also when one dies, a part fails, or who sent them is killed?"""

import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from prunus.core.errors import DataError, OutputError, RecipeError, RunError
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import measure, run
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs import run_again
from prunus.pipeline.jobs.parts import Crew, Parts
from prunus.pipeline.jobs.run_folder import open_workspace
from prunus.pipeline.jobs.workspace import Workspace
from prunus.ship import bundle_sha256
from recipe_samples import IRIS

sys.path.insert(0, str(Path(__file__).parent))
from parts_work import OpenWork, Work, told

NAMES = ["a", "bcd", "ef"]


@contextmanager
def work_with(folder, hurts, events, workers=2, retries=1):
    folder.mkdir(exist_ok=True)
    crew = Crew(Dispatch(workers=workers), OpenWork(str(folder), hurts), events.append, retries=retries)
    try:
        yield Work(Workspace(folder, events.append), Parts(crew), hurts)
    finally:
        crew.dismiss()


def lines(path):
    return path.read_text().split("\n")[:-1]


def test_parts_are_done_once_by_workers_that_stay_and_what_they_tell_is_told_once_in_order(tmp_path):
    alone, events = [], []
    (tmp_path / "alone").mkdir()
    serial = Work(Workspace(tmp_path / "alone", alone.append), Parts(), {})
    with work_with(tmp_path / "crew", {"bcd": "die once"}, events) as work:
        found = work.squares(NAMES)
        again = work.squares([*NAMES, "ghij", "klm"], together=True)
    assert found == serial.squares(NAMES) == [1.0, 9.0, 4.0]
    assert again == serial.squares([*NAMES, "ghij", "klm"]) == [1.0, 9.0, 4.0, 16.0, 9.0]
    assert told(events)[:3] == told(alone)[:3]
    assert sorted(told(events)) == sorted(told(alone))
    done = [line.split() for line in lines(tmp_path / "crew" / "done")]
    assert sorted(name for _, name in done) == sorted([*NAMES, "bcd", "ghij", "klm"])  # one died with "bcd"
    assert str(os.getpid()) not in {process for process, _ in done}
    assert len(lines(tmp_path / "crew" / "opened")) == 3  # two, and the one after the death
    assert not list((tmp_path / "crew" / ".work").glob("workers*"))
    logged = [line for line in lines(tmp_path / "crew" / "log.jsonl") if '"note"' in line]
    assert len(logged) == 5
    assert work.workspace.seconds.keys() == serial.workspace.seconds.keys()


@pytest.mark.parametrize(
    ("hurt", "kind", "message"),
    [("wrong", DataError, "bcd: wrong data"), ("fails", RunError, r"bcd: it fails \(tried 2 times\)")],
)
def test_a_part_that_fails_is_named_the_others_finish_and_a_resume_does_what_is_missing(tmp_path, hurt, kind, message):
    events = []
    with work_with(tmp_path, {"bcd": hurt}, events, workers=1) as work, pytest.raises(kind, match=message):
        work.squares(NAMES)
    before = len(lines(tmp_path / "done"))
    with work_with(tmp_path, {}, events, workers=1) as work:
        assert work.squares(NAMES) == [1.0, 9.0, 4.0]
    assert [line.split()[1] for line in lines(tmp_path / "done")[before:]] == ["bcd"]


def test_of_several_that_fail_the_first_is_raised_and_the_others_are_warned_of(tmp_path):
    events = []
    hurts = {"ef": "wrong", "bcd": "wrong"}
    with work_with(tmp_path, hurts, events, workers=1) as work, pytest.raises(DataError, match=r"^bcd: wrong data$"):
        work.squares(NAMES)
    assert ("warning", "squares", "ef: wrong data") in told(events)


def test_workers_that_see_another_folder_or_never_get_there_say_so(tmp_path):
    (tmp_path / "here").mkdir()
    crew = Crew(Dispatch(), OpenWork(str(tmp_path / "elsewhere"), {}), lambda event: None)
    with pytest.raises(OutputError, match=r"folder of the work under the same path: .*elsewhere"):
        Work(Workspace(tmp_path / "here"), Parts(crew), {}).squares(NAMES)
    crew.dismiss()
    with (
        work_with(tmp_path / "lost", {}, [], retries=0) as work,
        pytest.raises(RunError, match="didn't come to squares"),
    ):
        work.squares(NAMES, lost=True)


SENDS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
sys.path.insert(0, sys.argv[2])
from test_pipeline_parts import work_with
if __name__ == "__main__":
    with work_with(Path(sys.argv[3]), {"a": "takes long", "bcd": "takes long"}, []) as work:
        work.squares(["a", "bcd", "ef"])
"""


def test_workers_end_with_who_sent_them_and_a_resume_goes_on(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "sends.py"
    script.write_text(SENDS)
    marks = [tmp_path / "work" / f"hurt {name}" for name in ("a", "bcd")]
    sender = subprocess.Popen([sys.executable, script, here, here.parents[2], tmp_path / "work"])
    try:
        until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
    finally:
        sender.kill()
        sender.wait()
    workers = [int(mark.read_text()) for mark in marks]
    until(lambda: not any(is_there(worker) for worker in workers))
    with work_with(tmp_path / "work", {}, [], workers=1) as work:
        assert work.squares(NAMES) == [1.0, 9.0, 4.0]


def until(holds, seconds=600):
    """Wait for something that another process does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_there(process):
    with suppress(ProcessLookupError):
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


WHOLE = {
    **IRIS,
    "data": {"source": "sklearn:iris", "split": {"validation": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 6, "depth": 2}},
    "examples": {"epochs": 1, "gate": True, "remove": [{"criterion": "el2n", "keep_fraction": 0.9}]},
    "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5, "allocation": "sensitivity"},
    "recovery": {"epochs": 1},
    "joint": {"data": [0.6], "model": [0.5]},
}


def run_of(folder, seeds, **options):
    """Return what a whole run leaves but for its times, what it told, and the stages that were told to be under way."""
    recipe = make_recipe({**WHOLE, "seeds": seeds, "output": str(folder), **options}, "r")
    events = []
    facts = run(recipe, listener=events.append).model_dump(mode="json")
    assert {key.partition(" / ")[0] for key in facts.pop("timing")["seconds"]} >= {f"seed {seed}" for seed in seeds}
    facts["recipe"].pop("output")
    stages = {event.stage for event in events if event.kind == "progress" and event.total > 1}
    said = [one for one in told(events) if one[1] != "dispatch"]
    return facts, bundle_sha256(folder / "bundle"), said, stages


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_a_run_leaves_the_same_for_one_worker_and_for_two(tmp_path, seeds, monkeypatch):
    """One seed: its layers are measured by workers; several: the seeds are theirs. The gate and the grid are, in both."""
    *alone, _ = run_of(tmp_path / "alone", seeds)
    if len(seeds) > 1:  # who trained a model has looked at its answers, too
        monkeypatch.setattr(measure, "observe", lambda *_: pytest.fail("a model was evaluated here"))
    *several, stages = run_of(tmp_path / "several", seeds, dispatch={"workers": 2})
    assert several == alone
    assert {"gate", "joint"} <= stages
    assert ("seeds" in stages) == (len(seeds) > 1)
    assert ("seed 0 / prune 1 of 1 / losses" in stages) == (len(seeds) == 1)
    assert not (tmp_path / "several" / ".work").exists()


def test_a_latency_is_measured_by_one_process(tmp_path, work_clock):
    events = []
    target = {"target": {"latency": 0.999}, "strategy": {"criterion": "magnitude_l2"}}
    recipe = make_recipe({**IRIS, **target, "output": str(tmp_path / "r"), "dispatch": {"workers": 2}}, "r")
    with (
        open_workspace(recipe, tmp_path / "r", resume=False, overwrite=False, listener=events.append) as workspace,
        open_job(recipe, workspace) as job,
    ):
        assert job.parts == Parts()
    assert "workers would disturb" in told(events)[-1][2]


def test_workers_under_torchrun_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_again, "current", object)
    recipe = make_recipe({**IRIS, "output": str(tmp_path / "r"), "dispatch": {"workers": 2}}, "r")
    with pytest.raises(RecipeError, match="torchrun's processes share every training already: got 2 workers"):
        run(recipe)
