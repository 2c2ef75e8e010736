"""prune with a task and with a contract: what is promised is tested on examples that chose nothing, or nothing is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import prunus
from prunus.core.errors import DataError, PrunusError, RecipeError
from prunus.core.events import silent
from prunus.data import Batches
from prunus.evaluate import noninferiority, observe
from prunus.pipeline.auto.promise import taught
from prunus.tasks import Agreement

N = 1400
ACCURACY = {"metric": "accuracy", "max_drop": 0.03}


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        x = torch.randn(N, 6)
        y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
        model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(150):
            rows = torch.randperm(N)[:256]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval(), x, y


def cut(trained: Any, **named: Any) -> Any:
    model, x, y = trained
    return prunus.prune(model, x[:2], listener=silent, **{"data": (x, y), **named})


def test_the_smallest_model_that_keeps_the_contract_is_found_and_tested_on_other_examples(trained):
    found = cut(trained, contract=ACCURACY)
    assert found.test.kept
    assert found.after.macs < 0.8 * found.before.macs
    assert found.test.n == N - 256, "all that had no part in the choice"
    assert found.test.confidence == pytest.approx(1 - 0.05 / 3), "three tests share the error"
    assert "accuracy drops by less than 0.03" in repr(found)
    model, x, y = trained
    drop = float((model(x).argmax(1) == y).double().mean() - (found.model(x).argmax(1) == y).double().mean())
    assert drop < 0.03


def test_where_the_contract_is_not_kept_nothing_is_cut_and_it_says_so(trained):
    model, x, _ = trained
    found = cut(trained, contract=ACCURACY, keep_fraction=0.05)
    assert not found.test.kept
    assert (found.after.macs, found.kind, found.distance) == (found.before.macs, "eager", None)
    assert torch.equal(found.model(x), model(x))
    assert found.model is not model
    step = found.plan.steps[0]
    assert step.n_kept == step.n_units
    assert "no cut was shown to keep accuracy within 0.03" in repr(found)


def test_without_labels_the_dense_model_s_answers_are_what_is_kept(trained):
    model, x, _ = trained
    found = cut(trained, data=x, contract={"metric": "agreement", "max_drop": 0.1}, keep_fraction=0.6)
    assert found.test.dense == 1.0
    assert found.test.n_gained == 0
    rows = Batches([(x, None)])
    with torch.no_grad():
        answers = taught(model, rows, batch_size=64)
        again = noninferiority(
            *(observe(one, answers, Agreement()) for one in (model, found.model)),
            Agreement(), metric="agreement", max_drop=0.1, confidence=0.95,
        )  # fmt: skip
    assert again.pruned == pytest.approx(found.test.pruned, abs=0.03)


def test_a_named_task_says_what_is_minimised(trained):
    assert cut(trained, task="classification").objective == "the loss of classification"


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        ({"data": None, "contract": ACCURACY}, DataError, "a contract is shown on examples: got no data"),
        ({"data": torch.randn(700, 6), "contract": ACCURACY}, RecipeError, "'accuracy' needs labels.*choose agreement"),
        ({"contract": {"metric": "accuracy", "max_drop": 0.001}}, DataError, "expected at least 2995 beside the 256"),
        ({"contract": {"max_drop": 3}}, RecipeError, r"contract\.max_drop must be below 1 for accuracy.*got 3"),
        ({"contract": {"metric": "mae"}}, RecipeError, "contract.metric: 'mae' measures regression"),
        ({"contract": {"metrik": "accuracy"}}, RecipeError, "unknown key 'contract.metrik': did you mean 'metric'?"),
        ({"contract": {"max_drop": "a bit"}}, RecipeError, "contract.max_drop: expected a valid number.*got 'a bit'"),
        ({"contract": "accuracy"}, RecipeError, "contract: expected a mapping, like .*got 'accuracy'"),
        ({"data": torch.randn(30, 6), "task": "classification"}, DataError, "task classification needs targets"),
        ({"task": "segmentation"}, PrunusError, "segmentation: expected masks"),
        ({"task": "clasification"}, PrunusError, "unknown task: got 'clasification'.*classification"),
    ],
)
def test_what_can_not_be_promised_or_measured_is_refused_in_one_line(trained, named, error, words):
    with pytest.raises(error, match=words) as caught:
        cut(trained, **named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [0, 1, 7, 13, 20])
def test_dividing_batches_loses_nothing_and_takes_from_every_batch(n):
    rows = torch.arange(20.0)
    parts = [(rows[:3], rows[:3]), (rows[3:13], rows[3:13]), (rows[13:], rows[13:])]
    one, other = Batches(parts).divided(n, seed=1)
    assert (len(one), len(other)) == (n, 20 - n)
    seen = torch.cat([b.inputs for part in (one, other) for b in part.batches(4)])
    assert seen.sort().values.tolist() == rows.tolist()
    if n == 13:
        assert all(len(b.inputs) >= 1 for b in one.batches(100))
        assert [len(inputs) for inputs, _ in one._parts] == [2, 6, 5]


def test_the_worst_class_may_be_part_of_the_promise_and_is_named(trained):
    asked = {**ACCURACY, "harm": {"worst_class": 0.05}}
    found = cut(trained, contract=asked, keep_fraction=0.9)
    assert found.test.kept
    assert len(found.test.worst.classes) == 4
    assert found.test.worst.bound == max(one.bound for one in found.test.worst.classes) <= 0.05
    assert f"the least sure one, {found.test.worst.name}" in repr(found)


def test_a_class_that_loses_too_much_keeps_everything_whole_though_the_mean_is_good(trained):
    model, x, y = trained
    rare = (y != 3) | (torch.arange(N) % 3 == 0)  # class 3 is a tenth, and the cut is made where it hurts that alone
    asked = {"metric": "accuracy", "max_drop": 0.9, "harm": {"worst_class": 0.06}}
    found = cut((model, x[rare], y[rare]), contract=asked, keep_fraction=0.1)
    assert found.test.bound <= 0.9
    assert not found.test.worst.kept
    assert found.after.macs == found.before.macs
    assert "no cut was shown to keep every class within 0.06" in repr(found)


def test_a_class_too_small_to_show_it_is_refused_before_anything_is_cut(trained):
    model, x, y = trained
    few = (y != 3) | (torch.arange(N) < 60)
    asked = {**ACCURACY, "harm": {"worst_class": 0.05}}
    with pytest.raises(DataError, match=r"contract\.harm: 1 of 4 classes.*at least 59.*small: leave_out"):
        cut((model, x[few], y[few]), contract=asked)
    left = cut(
        (model, x[few], y[few]),
        contract={**asked, "harm": {"worst_class": 0.05, "small": "leave_out"}},
        keep_fraction=0.9,
    )
    assert left.test.worst.left_out == ("3",)
    assert "nothing is promised about 3" in repr(left)


def test_agreement_with_the_dense_model_has_no_worst_class(trained):
    _, x, _ = trained
    with pytest.raises(RecipeError, match=r"contract\.harm"):
        cut(trained, data=x, contract={"metric": "agreement", "max_drop": 0.05, "harm": {"worst_class": 0.05}})
