"""What ranks tell each other, over a store in memory: whoever can't take part is named in one line."""

import re

import pytest
import torch.distributed as dist

from prunus.core.code.place import Place
from prunus.core.errors import RunError
from prunus.recover.training.ranks import meeting as meetings
from prunus.recover.training.ranks.meeting import Meeting, is_lost


@pytest.fixture
def two():
    store = dist.HashStore()
    return [Meeting(Place(rank, 2, rank, 2, host=f"node{rank}"), store) for rank in range(2)]


def test_ranks_with_the_same_versions_and_data_go_on(two):
    two[1].report({"fingerprint": "a" * 64})
    two[0].check_reports("a" * 64)


@pytest.mark.parametrize("name", ["torch", "prunus"])
def test_another_version_is_named_with_its_rank_and_machine(two, name, monkeypatch):
    real = meetings.versions
    monkeypatch.setattr(meetings, "versions", lambda: {**real(), name: "0.0.1"})
    two[1].report({"fingerprint": "a"})
    monkeypatch.setattr(meetings, "versions", real)
    with pytest.raises(
        RunError, match=re.escape(f"rank 1 on node1 has {name} 0.0.1, rank 0 has {real()[name]}: install")
    ):
        two[0].check_reports("a")


def test_a_rank_that_lacks_the_data_is_named_with_what_it_says(two):
    two[1].report({"error": "data.source: no file train.csv"})
    with pytest.raises(RunError, match=r"rank 1 on node1 can't take part: data\.source: no file train\.csv"):
        two[0].check_reports("a")


def test_a_rank_with_other_data_is_named(two):
    two[1].report({"fingerprint": "b" * 64})
    with pytest.raises(
        RunError, match=r"rank 1 on node1 has other data \(fingerprint bbbbbbbbbbbb, rank 0 has aaaaaaaaaaaa\)"
    ):
        two[0].check_reports("a" * 64)


def test_words_come_in_their_order_and_the_end_ends_every_wait(two):
    two[0].call()
    assert two[1].await_call()
    two[0].say(True)
    assert two[1].hear()
    two[0].say(False)
    assert not two[1].hear()
    two[1].store.set("left/1", "1")
    two[0].end()
    assert two[1].ended
    assert not two[1].await_call()
    assert not two[1].hear()


def test_the_first_failure_is_what_is_told(two):
    two[0].store.set("end", "1")
    assert two[1].fail("no memory")
    assert two[0].failure() == "rank 1 on node1 failed: no memory"


def test_a_closed_connection_is_told_from_a_fault_of_the_model():
    assert is_lost(RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection reset by peer"))
    assert not is_lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost(RunError("seed 0: timed out, says prunus itself"))
