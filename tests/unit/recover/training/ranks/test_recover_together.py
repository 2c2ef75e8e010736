"""Two processes that train together do what one does: the oracle is the same training on one process, in double precision."""

import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from ranks_child import GONE_ON, IN_PARTS, OTHER_NUMBER, Recorder, ended, plain, result, sgd, start, stop, trainings
from ranks_child import Case as Training

CHILD = Path(__file__).parents[4] / "ranks_child.py"
NAMES = [name for name, _ in trainings()]


def found_by(folder, sharding, n_ranks=2):
    """Return what rank 0 of two processes (or more) found, which were started once for all tests."""
    with suppress(KeyboardInterrupt):
        kept = {"checkpoint": folder / "of one", "checkpoint_every_s": 0.0}
        result(dict(trainings())[OTHER_NUMBER](), **kept, after_epoch=stop)
    said = ended(start([sys.executable, str(CHILD), str(folder), sharding], n_ranks))
    assert [code for code, _, _ in said] == [0] * n_ranks, said
    return torch.load(folder / "found.pt", weights_only=True) | {"folder": str(folder)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return found_by(tmp_path_factory.mktemp("ddp"), "ddp")


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory):
    return found_by(tmp_path_factory.mktemp("fsdp"), "fsdp")


def check_equal(name, together):
    """Compare with the same training on one process."""
    case = dict(trainings())[name]()
    alone = result(case)
    exact = next(case.model.parameters()).dtype == torch.float64
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-11 if exact else 1e-5)
    assert together["accuracy"] == pytest.approx(alone["accuracy"])
    assert not together["in training mode"]
    for key, value in alone["state"].items():
        torch.testing.assert_close(
            together["state"][key], value, rtol=1e-9 if exact else 1e-3, atol=1e-11 if exact else 1e-5
        )


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_end_with_the_curve_and_the_weights_of_one(name, found):
    check_equal(name, found[name])


@pytest.mark.parametrize("name", IN_PARTS)
def test_two_ranks_that_hold_a_part_of_the_model_each_do_so_too(name, in_parts):
    check_equal(name, in_parts[name])


@pytest.mark.parametrize("which", ["found", "in_parts"])
def test_zeros_hold_on_every_rank_after_a_hundred_steps(which, request):
    # The hook looked after each step at what lies on each rank, and would have ended the run.
    gone = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.8
    assert torch.equal(request.getfixturevalue(which)["masks"]["state"]["3.weight"] == 0, gone)


@pytest.mark.parametrize("which", ["found", "in_parts"])
def test_a_watcher_sees_whole_batches_in_their_order(which, request):
    together, watch = request.getfixturevalue(which)["watched"], Recorder()
    result(Training(plain(), sgd()), watch=watch)
    assert [row.tolist() for row in together["index"]] == [row.tolist() for row in watch.index]
    torch.testing.assert_close(torch.cat(together["outputs"]), torch.cat(watch.outputs), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("which", "name"), [("found", "adamw"), ("found", "masks"), ("in_parts", "average")])
def test_a_training_that_stopped_and_goes_on_is_bit_for_bit_the_undisturbed_one(which, name, request):
    of = request.getfixturevalue(which)
    whole, gone_on = of[name], of[f"{name}, gone on"]
    assert gone_on["loss"] == whole["loss"]
    assert all(torch.equal(gone_on["state"][key], value) for key, value in whole["state"].items())


@pytest.mark.parametrize("which", ["found", "in_parts"])
def test_another_number_of_ranks_goes_on_with_what_is_kept_and_it_is_told(which, request):
    of, told = request.getfixturevalue(which), []
    check_equal(OTHER_NUMBER, of["of one, gone on"])
    said = (
        "the number of ranks was {} and is {}: it goes on after epoch 1 with the same batches and learning rate, and adds up in "
        "another order"
    )
    assert of["told"] == [said.format(1, 2)]
    case = dict(trainings())[OTHER_NUMBER]()
    check_equal(OTHER_NUMBER, result(case, checkpoint=Path(of["folder"]) / "of two", listener=told.append))
    assert [event.message for event in told if event.kind == "note"] == [said.format(2, 1)]


@pytest.mark.nightly
@pytest.mark.parametrize("n_ranks", [3, 4])
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_three_and_four_ranks_do_what_one_does_and_what_they_keep_goes_on_with_one(sharding, n_ranks, tmp_path):
    """Of four ranks one has no row of the last layer, and batches leave a remainder; zeros are looked at on all of them."""
    of = found_by(tmp_path, sharding, n_ranks)
    for name in NAMES if sharding == "ddp" else IN_PARTS:
        check_equal(name, of[name])
    gone = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.8
    assert torch.equal(of["masks"]["state"]["3.weight"] == 0, gone)
    for name in GONE_ON[sharding]:
        assert of[f"{name}, gone on"]["loss"] == of[name]["loss"]
        assert all(torch.equal(of[f"{name}, gone on"]["state"][key], value) for key, value in of[name]["state"].items())
    told = []
    check_equal(OTHER_NUMBER, of["of one, gone on"])
    case = dict(trainings())[OTHER_NUMBER]()
    check_equal(OTHER_NUMBER, result(case, checkpoint=tmp_path / "of two", listener=told.append))
    assert [
        f"the number of ranks was {n_ranks} and is 1" in event.message for event in told if event.kind == "note"
    ] == [True]
