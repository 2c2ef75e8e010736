"""Two processes that train together do what one does: the oracle is the same training on one process, in double precision."""

import sys
from pathlib import Path

import pytest
import torch

from ranks_child import Case as Training
from ranks_child import Recorder, ended, plain, result, sgd, start, trainings

CHILD = Path(__file__).parents[4] / "ranks_child.py"
NAMES = [name for name, _ in trainings()]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What rank 0 of two processes found, in one pair of processes for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    said = ended(start([sys.executable, str(CHILD), str(folder), "ddp"]))
    assert [code for code, _, _ in said] == [0, 0], said
    return torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_end_with_the_curve_and_the_weights_of_one(name, found):
    case = dict(trainings())[name]()
    alone, together = result(case), found[name]
    exact = next(case.model.parameters()).dtype == torch.float64
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-11 if exact else 1e-5)
    assert together["accuracy"] == pytest.approx(alone["accuracy"])
    for key, value in alone["state"].items():
        torch.testing.assert_close(
            together["state"][key], value, rtol=1e-9 if exact else 1e-3, atol=1e-11 if exact else 1e-5
        )


def test_zeros_hold_on_every_rank_after_a_hundred_steps(found):
    # The hook looked after each step on both ranks, and would have ended the run.
    gone = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.8
    assert torch.equal(found["masks"]["state"]["3.weight"] == 0, gone)


def test_a_watcher_sees_whole_batches_in_their_order(found):
    watch = Recorder()
    result(Training(plain(), sgd()), watch=watch)
    assert [row.tolist() for row in found["watched"]["index"]] == [row.tolist() for row in watch.index]
    torch.testing.assert_close(torch.cat(found["watched"]["outputs"]), torch.cat(watch.outputs), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["adamw", "masks"])
def test_a_training_that_stopped_and_goes_on_is_bit_for_bit_the_undisturbed_one(name, found):
    whole, gone_on = found[name], found[f"{name}, gone on"]
    assert gone_on["loss"] == whole["loss"]
    assert all(torch.equal(gone_on["state"][key], value) for key, value in whole["state"].items())
