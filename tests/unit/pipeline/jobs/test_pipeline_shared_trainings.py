"""Before any training of several ranks it is told which of them doesn't see the run's folder."""

from threading import Thread
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from prunus.core.code.place import Place
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline.jobs import shared_trainings
from prunus.pipeline.jobs.workspace import LOG, Workspace
from prunus.recover import leading
from prunus.recover.training.ranks.meeting import Meeting

RECIPE = {"data": {"source": "sklearn:iris"}, "model": {"builder": "mlp"}}
DATA = SimpleNamespace(fingerprint="a" * 64)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Return a function that lets rank 1 look for the run's folder at a place, and returns what rank 0 tells."""
    monkeypatch.setattr(shared_trainings, "_known", lambda data: {})

    def tell(looked_at, folder=tmp_path / "run"):
        events, store = [], dist.HashStore()
        zero, one = (Meeting(Place(rank, 2, rank, 2, host=f"node{rank}"), store) for rank in range(2))
        recipe = make_recipe({**RECIPE, "output": str(looked_at)})
        monkeypatch.setattr(shared_trainings, "open_meeting", lambda *_, **__: one)
        monkeypatch.setattr(shared_trainings, "follow_trainings", lambda meeting: True)
        follower = Thread(
            target=shared_trainings.follow_trainings_of, args=(lambda: recipe, lambda *_: DATA, one.place)
        )
        workspace = Workspace(folder, events.append)
        if folder is not None:
            folder.mkdir(exist_ok=True)
        workspace.note("x", "é" * 2000)
        follower.start()
        with leading(zero):
            shared_trainings.share_trainings(recipe, DATA, workspace)
        follower.join()
        return [event.message for event in events if event.kind == "warning"]

    return tell


def test_a_rank_that_sees_it_is_not_named(told, tmp_path):
    assert told(tmp_path / "run") == []


@pytest.mark.parametrize("held", [None, "", "another run's"])
def test_a_rank_that_sees_none_or_another_is_named(told, tmp_path, held):
    if held is not None:
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / LOG).write_text(held * 2000)
    (said,) = told(tmp_path / "own")
    assert said.startswith(f"rank 1 on node1 can't see {tmp_path / 'run'} as it is on node0")


def test_where_nothing_is_kept_there_is_nothing_to_see(told, tmp_path):
    assert told(tmp_path / "own", folder=None) == []


def test_one_that_waits_for_what_is_shown_hears_the_end():
    store = dist.HashStore()
    zero, one = (Meeting(Place(rank, 2, rank, 2, host=f"node{rank}"), store) for rank in range(2))
    one.store.set("left/1", "1")
    zero.end()
    assert one.shown() is None
