"""Is a round's evidence the same to the bit, whoever added up its pieces, and does a run that was stopped add up none twice?"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from prunus.core.recipes.execution.dispatch_section import Dispatch
from prunus.pipeline.cut import shared_evidence
from prunus.pipeline.cut.shared_evidence import SharedEvidence
from prunus.pipeline.jobs.parts import Parts
from prunus.pipeline.jobs.workspace import Workspace
from prunus.score.evidence.pieces import added

sys.path.insert(0, str(Path(__file__).parent))
from evidence_runs import left_by

TWO_ROUNDS = {"criterion": "grasp", "schedule": {"kind": "linear", "rounds": 2}}
ROUNDS = [f"seed 0 / prune {number} of 2" for number in (1, 2)]
BOTH_PASSES = {f"{name} / {what}" for name in ROUNDS for what in ("evidence", "second pass")}


def test_a_run_leaves_the_same_whoever_adds_up_the_pieces(tmp_path, monkeypatch):
    """grasp goes through the examples twice, and two rounds make workers come to their pieces by what was decided before."""
    alone, _ = left_by(tmp_path / "alone", TWO_ROUNDS)
    monkeypatch.setattr(shared_evidence, "WORTH_S", 0.0)
    several, stages = left_by(tmp_path / "several", TWO_ROUNDS, dispatch={"workers": 2})
    assert several == alone
    assert stages >= BOTH_PASSES
    assert not (tmp_path / "several" / ".work").exists()


class Stopped(Exception):
    pass


class Work:
    """Pieces that are counted as they are added up; ``stops`` is the number of one that isn't."""

    def __init__(self, folder, stops=None, parts=None):
        if folder is not None:
            folder.mkdir(exist_ok=True)
        self.stops, self.done, self.folder = stops, [], folder
        self.job = SimpleNamespace(workspace=Workspace(folder), parts=parts or Parts())

    def sums_of(self, number):
        if number == self.stops:
            raise Stopped
        self.done.append(number)
        return {"a/x": torch.tensor([0.1 * number, 1e8]), "a/y": torch.tensor(number)}

    def gathered(self):
        return SharedEvidence(self.job, "prune 1")("evidence", 6, self.sums_of, added)

    def held(self):
        return sorted(path.name for path in (self.folder / ".work").iterdir())


def test_pieces_that_were_added_up_before_a_stop_stay_and_what_came_of_all_stays_instead_of_them(tmp_path):
    stopped = Work(tmp_path / "work", stops=3)
    with pytest.raises(Stopped):
        stopped.gathered()
    assert stopped.held() == [f"prune 1 _ evidence {number} of 6.safetensors" for number in (1, 2, 3)]
    resumed = Work(tmp_path / "work")
    found, whole = resumed.gathered(), Work(None).gathered()
    assert resumed.done == [3, 4, 5]
    assert all(torch.equal(found[name], value) for name, value in whole.items())
    assert resumed.held() == ["prune 1 _ evidence.safetensors"]
    again = Work(tmp_path / "work")
    assert torch.equal(again.gathered()["a/x"], found["a/x"])
    assert again.done == []


def test_a_piece_that_was_damaged_is_added_up_again(tmp_path):
    stopped = Work(tmp_path / "work", stops=2)
    with pytest.raises(Stopped):
        stopped.gathered()
    path = tmp_path / "work" / ".work" / "prune 1 _ evidence 2 of 6.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    resumed = Work(tmp_path / "work")
    resumed.gathered()
    assert resumed.done == [1, 2, 3, 4, 5]


class Asked(Parts):
    """Parts with workers that are never sent: it is only noted that they were asked."""

    def each(self, workspace, stage, names, do, **options):
        self.crew.calls.append((stage, list(names)))


@pytest.mark.parametrize(
    ("seconds", "workers", "asked"), [(7.0, 2, False), (7.0, 4, True), (9.0, 2, True), (90.0, 1, False)]
)
def test_workers_are_asked_where_that_saves_more_than_twenty_seconds(tmp_path, monkeypatch, seconds, workers, asked):
    clock, calls = [0.0], []
    crew = SimpleNamespace(dispatch=Dispatch(workers=workers), calls=calls)
    monkeypatch.setattr(shared_evidence, "perf_counter", lambda: clock[0])
    work = Work(tmp_path / "work", parts=Asked(crew=crew))

    def slow(number):
        clock[0] += seconds
        return {"x": torch.ones(1)}

    work.sums_of = slow
    work.gathered()
    names = [f"prune 1 / evidence {number} of 6" for number in range(1, 7)]
    assert calls == ([("prune 1 / evidence", names)] if asked else [])
