"""prune with recovery: the cut model is trained on data of which some chose its epoch, and others tell how it went."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import prunus
from prunus.core.errors import DataError, PrunusError, RecipeError, RunError
from prunus.core.events import Event, silent

N = 600
SMALL = {"criterion": "magnitude_l2", "allocation": "uniform", "adjust": (), "keep_fraction": 0.4}


def fitted(steps: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        x = torch.randn(N, 6)
        y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
        model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval(), x, y


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    return fitted(60)


def cut(trained: Any, recovery: Any, **named: Any) -> Any:
    model, x, y = trained
    return prunus.prune(model, x[:2], recovery=recovery, **{"data": (x, y), "listener": silent, **SMALL, **named})


def test_the_cut_model_is_trained_and_the_dense_one_is_not(trained):
    model = trained[0]
    before = copy.deepcopy(model.state_dict())
    found = cut(trained, 4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    told = found.recovered
    assert (told.epochs, told.steps, len(told.validation)) == (4, 4 * -(-told.n_train // 64), 5)
    assert told.after < 0.8 * told.before
    assert told.validation[told.taken] == min(told.validation)
    assert told.control is None
    assert "the dense model has had no more training" in repr(found)
    assert found.plan.steps[0].settings["recovery"]["taken"] == told.taken
    json.dumps(dict(found.plan.steps[0].settings["recovery"]))


def test_no_example_is_in_two_parts(trained):
    told = cut(trained, 1).recovered
    assert told.n_train + told.n_validation + told.n_test < N
    assert told.n_test == round(0.2 * N)


def test_own_parts_are_taken_as_they_are(trained):
    _, x, y = trained
    told = cut(trained, 1, data={"train": (x[:400], y[:400]), "test": (x[400:], y[400:])}).recovered
    assert told.n_test == 200


def test_a_training_that_makes_it_worse_is_not_taken(trained):
    found = cut(trained, {"epochs": 2, "learning_rate": 30.0, "clip_norm": None}, keep_fraction=0.9)
    assert found.recovered.taken == 0
    assert found.recovered.after == found.recovered.before
    plain = cut(trained, None, keep_fraction=0.9)
    assert all(map(torch.equal, found.model.parameters(), plain.model.parameters()))
    assert "no epoch helped" in repr(found)


def test_the_same_call_gives_the_same_model(trained):
    one, two = cut(trained, 2), cut(trained, 2)
    assert all(map(torch.equal, one.model.parameters(), two.model.parameters()))


def test_a_plan_is_trained_again_when_that_is_asked(trained):
    one = cut(trained, 2)
    two = cut(trained, 2, plan=one.plan)
    assert all(map(torch.equal, one.model.parameters(), two.model.parameters()))
    assert cut(trained, None, plan=one.plan).recovered is None


def test_without_labels_it_learns_the_dense_model_s_answers(trained):
    _, x, _ = trained
    found = cut(trained, {"epochs": 6, "learning_rate": 1e-2}, data=x)
    assert found.recovered.loss == "the distance to the dense model's answers"
    assert found.recovered.dense == 0
    assert found.recovered.after < 0.7 * found.recovered.before


@pytest.mark.parametrize("data", ["loader", "set"])
def test_data_sets_and_loaders_are_read_when_they_are_needed(trained, data):
    _, x, y = trained
    given = TensorDataset(x, y)
    told = cut(trained, 2, data=DataLoader(given, batch_size=50, shuffle=True) if data == "loader" else given).recovered
    assert told.after < told.before


def test_steps_take_part_of_an_epoch_or_whole_ones(trained):
    few = cut(trained, {"steps": 3}).recovered
    assert (few.epochs, few.steps, few.n_train) == (1, 3, 3 * 64)
    many = cut(trained, {"steps": 9}).recovered
    assert (many.epochs, many.steps) == (2, 12)


def test_a_dense_control_is_trained_for_as_long():
    told = cut(fitted(5), {"epochs": 5, "learning_rate": 1e-2, "control": "same_budget"}).recovered
    assert told.control < told.dense / 2
    assert f"{told.control:.4g} after as long" in str(told)


def test_it_distils_where_that_is_asked(trained):
    told = cut(trained, {"epochs": 3, "method": "distil"}).recovered
    assert told.method == "distil"
    assert told.after < told.before


def test_an_average_of_the_last_epochs_may_be_what_is_taken(trained):
    told = cut(trained, {"epochs": 4, "average": {"kind": "swa", "last": 2}}).recovered
    assert len(told.validation) == 5
    assert told.validation[told.taken] == min(told.validation)


def test_a_given_loss_is_minimised_where_no_task_is_known(trained):
    model, x, _ = trained

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs[:, :2] - targets).abs().mean()

    told = cut(trained, {"epochs": 3, "learning_rate": 1e-2}, data=(x, model(x)[:, :2].detach()), loss=loss).recovered
    assert told.after < told.before


def test_the_contract_is_tested_on_the_trained_model(trained):
    contract = {"metric": "accuracy", "max_drop": 0.12}
    found = cut(trained, {"epochs": 5, "learning_rate": 1e-2}, contract=contract)
    assert found.test.kept
    assert found.test.n == found.recovered.n_test
    assert not cut(trained, {"steps": 1, "learning_rate": 1e-9}, contract=contract).test.kept


def test_progress_is_told(trained):
    told: list[Event] = []
    cut(trained, 2, listener=told.append)
    ticks = [(one.done, one.total) for one in told if one.stage == "prune / recover" and one.kind == "progress"]
    assert ticks == [(1, 2), (2, 2)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


@pytest.mark.parametrize(
    ("recovery", "named", "error", "words"),
    [
        (0, {}, RecipeError, "recovery.epochs: expected greater than or equal to 1, got 0"),
        (True, {}, RecipeError, "recovery: expected a number of epochs, or keys .* got True"),
        ("two", {}, RecipeError, "recovery: expected a number of epochs, or keys .* got 'two'"),
        ({"epoch": 3}, {}, RecipeError, "unknown key 'recovery.epoch': did you mean 'epochs'"),
        ({"method": "lora"}, {}, RecipeError, "recovery.method: expected 'fine_tune' or 'distil', got 'lora'"),
        ({"epochs": 1, "steps": 5}, {}, RecipeError, "give epochs or steps, not both: got 1 and 5"),
        ({"adjust": ["bias"]}, {}, RecipeError, "recovery.adjust: prune has an argument for it"),
        (1, {"data": None}, DataError, "recovery trains on examples: got no data"),
        (1, {"data": Stream()}, DataError, "again and again: got a stream"),
        (1, {"data": (torch.randn(3, 6), torch.tensor([0, 1, 2]))}, PrunusError, "data: "),
        (
            {"epochs": 2, "optimizer": "sgd", "learning_rate": 1e30, "clip_norm": None},
            {},
            RunError,
            "prune / recover: ",
        ),
    ],
)
def test_what_can_not_be_trained_is_refused_in_one_line(trained, recovery, named, error, words):
    with pytest.raises(error, match=words) as caught:
        cut(trained, recovery, **named)
    assert "\n" not in str(caught.value)
