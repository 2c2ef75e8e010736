"""No graph that a stranger could write crashes the process, hangs it, or reads memory that isn't its own."""

from __future__ import annotations

import ctypes
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from graph_fuzz import guarded, outcomes
from prunus.ship.graph_files.allowed_operations import allowed_names, operation

SEEN = (Path(__file__).parents[2] / "graph_operations.txt").read_text().split()


def test_random_graphs_are_refused_or_run_in_their_limits():
    found = list(outcomes(list(range(400))))
    said = Counter(said for _, said, _ in found)
    assert len(found) == 400
    assert {one.split(" ")[0] for one in said} <= {"ran", "refused", "failed"}, [
        one for one in found if one[1].startswith(("crash", "hung", "another"))
    ]
    assert said["ran"] > 100, "a fuzzer that gets nothing through the door tests the door only"
    assert said["refused when followed"] > 50
    ran = {name for _, said, called in found if said == "ran" for name in called}
    assert {f"operator.{way}" for way in ("add", "mul", "floordiv", "mod", "truediv", "pow")} <= ran


def test_one_value_beyond_a_guarded_tensor_ends_the_process_that_reads_it():
    x = guarded([3], torch.float32)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(x.data_ptr(), 12)
        ctypes.string_at(x.data_ptr() + 12, 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSEGV


@pytest.mark.parametrize("name", SEEN)
def test_what_models_consist_of_may_be_named(name):
    assert operation(name)


def test_nothing_on_the_list_resizes_or_gives_sizes_by_values():
    packets = {name.split(".")[0] for name in allowed_names()}
    assert not packets & {
        "as_strided",
        "set_",
        "resize_",
        "nonzero",
        "masked_select",
        "_embedding_bag",
        "empty",
        "item",
        "_reshape_alias",
    }
