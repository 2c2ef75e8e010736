"""Do workers of a Ray cluster leave what one process leaves?"""

import sys
from pathlib import Path

import pytest
import ray

from flower_examples import CLEAN, recipe
from flower_examples import told as told_of_table
from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.pipeline import clean_examples
from prunus.pipeline.jobs.parts import Crew, Parts
from prunus.pipeline.jobs.workspace import Workspace
from ray_clusters import RAY_MARKS, loopback_cluster

sys.path.insert(0, str(Path(__file__).parent))
from parts_work import OpenWork, Work, told
from test_pipeline_parts import NAMES, lines, run_of

pytestmark = RAY_MARKS


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    with loopback_cluster(2) as found:
        ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
        yield


def test_parts_are_done_on_the_nodes_and_one_whose_worker_dies_again(tmp_path):
    alone, events = [], []
    (tmp_path / "alone").mkdir()
    (tmp_path / "ray").mkdir()
    found = Work(Workspace(tmp_path / "alone", alone.append), Parts(), {}).squares(NAMES)
    hurts = {"bcd": "die once"}
    crew = Crew(Dispatch(backend="ray", workers=2), OpenWork(str(tmp_path / "ray"), hurts), events.append)
    try:
        assert Work(Workspace(tmp_path / "ray", events.append), Parts(crew), hurts).squares(NAMES) == found
    finally:
        crew.dismiss()
    assert [one for one in told(events) if one[1] != "dispatch"] == told(alone)
    assert sorted(line.split()[1] for line in lines(tmp_path / "ray" / "done")) == sorted([*NAMES, "bcd"])


def test_a_run_leaves_the_same_for_one_process_and_for_two_nodes(tmp_path):
    *alone, _ = run_of(tmp_path / "alone", [0, 1])
    *several, stages = run_of(tmp_path / "several", [0, 1], dispatch={"backend": "ray", "workers": 2})
    assert several == alone
    assert {"seeds", "gate", "joint"} <= stages


def test_folds_that_tell_wrong_labels_say_the_same_on_two_nodes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone, events = told_of_table(clean_examples(recipe("alone", CLEAN))), []
    found = clean_examples(recipe("nodes", CLEAN, {"backend": "ray", "workers": 2}), listener=events.append)
    assert told_of_table(found) == alone
    by_node = [event.facts["by_node"] for event in events if "by_node" in event.facts]
    assert sum(by_node[0].values()) == 3, "each of three folds was trained once"
