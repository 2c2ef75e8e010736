"""Masks, layer-wise budgets and schedules, from the data to the pruned model."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import ModelError, RecipeError, RunError
from prunus.core.events import silent
from prunus.core.files.plan_file import load_plan, save_plan
from prunus.core.units import as_mask
from prunus.pipeline.cut import sensitivity
from prunus.pipeline.jobs.workspace import Workspace
from prunus.recover import default_loss
from prunus.select import allocations, tile
from prunus.tasks import Classification

FAST = {"train": {"epochs": 4, "batch_size": 32}, "recovery": {"epochs": 1, "batch_size": 32}, "seeds": [0]}
STILL = {**FAST, "recovery": {"epochs": 1, "batch_size": 100, "learning_rate": 1e-12, "weight_decay": 0.0}}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [nn.Unflatten(1, (4, 2, 1)), nn.Conv2d(4, 8, (2, 1)), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.fixture(scope="module")
def data():
    x = torch.randn(160, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, :2] > 0).long() @ torch.tensor([1, 2])


def optimizer(data, options=FAST, **strategy) -> ModelOptimizer:
    return ModelOptimizer(network(), data, strategy={"criterion": "magnitude_l1", **strategy}, **options)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}


@pytest.mark.parametrize("unit", ["1:2", "2:4", "3:4"])
def test_n_of_m_keeps_exactly_n_of_every_m_inputs_and_training_holds_it(data, unit):
    pruned = optimizer(data, granularity=unit).prune()
    n, m = map(int, unit.split(":"))
    for name, weight in weights(pruned.model_).items():
        groups = weight.flatten()[torch.from_numpy(tile(tuple(weight.shape), as_mask(unit), name=name))]
        assert ((groups != 0).sum(dim=1) == n).all()
    (step,) = pruned.plan_.steps
    assert (step.granularity, step.n_kept * m) == (unit, step.n_units * n)
    assert {len(d.unit) for d in step.decisions} == {64, 128}, "one row per weight"


def test_blocks_stay_or_go_as_one_and_the_plan_has_a_row_for_each(data, tmp_path):
    pruned = optimizer(data, granularity="4x2", keep_fraction=0.5, reduce="mean").prune()
    (step,) = pruned.plan_.steps
    assert [len(d.unit) for d in step.decisions] == [8, 16, 8]
    assert step.n_kept == 16
    for decision in step.decisions:
        weight = pruned.model_.get_parameter(decision.stratum).detach()
        blocks = weight.flatten()[torch.from_numpy(tile(tuple(weight.shape), as_mask("4x2")))]
        assert torch.equal((blocks != 0).all(dim=1), torch.from_numpy(decision.keep))
        assert torch.equal((blocks != 0).any(dim=1), torch.from_numpy(decision.keep))
    save_plan(pruned.plan_, tmp_path / "plan")
    again = load_plan(tmp_path / "plan")
    assert [d.keep.tolist() for d in again.steps[0].decisions] == [d.keep.tolist() for d in step.decisions]


@pytest.mark.parametrize("allocation", list(allocations))
@pytest.mark.parametrize("unit", ["weight", "4x2", "channel"])
def test_every_allocation_spends_the_budget_over_rounds_and_the_same_seed_gives_the_same_plan(data, allocation, unit):
    options = {**FAST, "train": {"epochs": 1}, "recovery": {"method": "none"}}
    settings = {"granularity": unit, "keep_fraction": 0.4, "allocation": allocation}
    schedule = {"kind": "geometric", "rounds": 2}
    plans = [optimizer(data, options, **settings, schedule=schedule).prune().plan_ for _ in range(2)]
    first, last = plans[0].steps
    assert first.n_kept == round(0.4**0.5 * first.n_units)
    assert last.n_units == first.n_kept
    assert last.n_kept == round(0.4 * first.n_units)
    same = [
        np.array_equal(a.keep, b.keep)
        for one, other in zip(plans[0].steps, plans[1].steps, strict=True)
        for a, b in zip(one.decisions, other.decisions, strict=True)
    ]
    assert all(same)


def test_channels_go_before_n_of_m_where_the_widths_still_divide(data):
    pruned = optimizer(data, granularity=["channel", "2:4"], keep_fraction=0.5, round_to=4).prune()
    assert [step.granularity for step in pruned.plan_.steps] == ["channel", "2:4"]
    assert tuple(pruned.model_[6].weight.shape) == (4, 8)
    assert all((w.flatten() != 0).float().mean() == 0.5 for w in weights(pruned.model_).values())
    with pytest.raises(ModelError, match=r"4\.weight: 2:4 need a number of inputs that 4 divides: got 5"):
        optimizer(data, granularity=["channel", "2:4"], keep_fraction=0.65).prune()


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_after_each_round_what_is_left_has_its_early_weights(data, unit, epoch):
    schedule = {"kind": "geometric", "rounds": 2, "rewind_to": epoch}
    pruner = optimizer(data, STILL, granularity=unit, keep_fraction=0.5, schedule=schedule)
    early = {0: network()}
    with pytest.MonkeyPatch.context() as patch:
        keep = Workspace.keep_state
        patch.setattr(
            Workspace,
            "keep_state",
            lambda self, name, model: (early.update({epoch: copy.deepcopy(model)}), keep(self, name, model)),
        )
        pruner.fit()
    pruner.prune()
    dense, last = early[epoch], pruner.plan_.steps[-1]
    moved = torch.equal(weights(pruner.dense_)["4.weight"], weights(dense)["4.weight"])
    assert not moved, "the dense model was trained on"
    kept = {d.stratum: torch.from_numpy(d.unit[d.keep]) for d in last.decisions}
    for name, weight in weights(pruner.model_).items():
        expected = dense.get_parameter(name).detach()
        if unit == "weight":
            mask = torch.zeros(expected.numel(), dtype=torch.bool)
            mask[kept[name]] = True
            expected = expected * mask.view_as(expected)
        else:
            rows, columns = {"1.weight": ("1", None), "4.weight": ("4", "1"), "6.weight": (None, "4")}[name]
            expected = expected if rows is None else expected[kept[rows]]
            expected = expected if columns is None else expected[:, kept[columns]]
        assert torch.allclose(weight, expected, atol=1e-7)


def test_going_back_to_an_epoch_that_nobody_saw_is_refused(data):
    given = ModelOptimizer(
        network(), data, strategy={"schedule": {"rewind_to": 2}}, **FAST
    )  # fmt: skip
    given.dense_ = network()
    with pytest.raises(RunError, match="weights at epoch 2 were not kept"):
        given.prune()


def test_pruning_during_the_training_shares_its_epochs_out_and_holds_the_zeros(data):
    schedule = {"kind": "cubic", "rounds": 2, "during": "train"}
    record_of = optimizer(data, granularity="weight", keep_fraction=0.25, schedule=schedule)
    record = record_of.run()
    assert {name: len(curve.loss) for name, curve in record.curves.items()} == {
        "train": 4,
        "train 1 of 3": 1,
        "train 2 of 3": 1,
        "train 3 of 3": 2,
        "recover 2 of 2": 1,
    }
    n_kept = sum(int((w != 0).sum()) for w in weights(record_of.model_).values())
    assert n_kept == round(0.25 * 256)


@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_sensitivity_is_the_loss_with_one_layer_alone_cut(data, unit):
    options = {**FAST, "recovery": {"method": "none"}}
    pruner = optimizer(data, options, granularity=unit, allocation="sensitivity", sensitivity_steps=[0.5]).fit()
    job = pruner._job
    before = copy.deepcopy(pruner.dense_.state_dict())
    pruner.prune()
    assert all(torch.equal(value, before[name]) for name, value in pruner.dense_.state_dict().items())
    losses = pruner.plan_.steps[0].settings["losses"]
    assert set(losses) == ({"1", "4"} if unit == "channel" else {"1.weight", "4.weight", "6.weight"})
    for name, points in losses.items():
        strategy = {"granularity": unit, "keep_fraction": 0.5}
        if unit == "weight":
            strategy["exclude"] = [other for other in ("1", "4", "6") if f"{other}.weight" != name]
            alone = optimizer(data, options, **strategy)
        else:
            alone = optimizer(
                data, options, **strategy, layers=[{"match": {"1": "6", "4": "1"}[name], "keep_fraction": 1}]
            )
        alone.dense_ = pruner.dense_
        model = alone.prune().model_  # cut for real
        (batch,) = job.data.calibration.batches(1000)
        with torch.no_grad():
            expected = [float(default_loss(Classification())(m(batch.inputs), batch)) for m in (pruner.dense_, model)]
        assert points[0] == [1.0, pytest.approx(expected[0], rel=1e-5)]
        assert points[1] == [0.5, pytest.approx(expected[1], rel=1e-5)]


def test_losses_that_a_killed_run_measured_are_not_measured_again(data, tmp_path, monkeypatch):
    pruner = optimizer(data, allocation="sensitivity", granularity="weight").fit()
    job = replace(pruner._job, workspace=Workspace(tmp_path, silent))
    (tmp_path / ".work").mkdir()
    model = pruner.dense_
    from prunus.core.types import Stratum

    strata = [Stratum(name, w.flatten().abs().double().numpy()) for name, w in weights(model).items()]
    zeroed = {
        s.name: lambda gone, name=s.name: [(model.get_parameter(name), None, torch.from_numpy(np.flatnonzero(gone)))]
        for s in strata
    }
    arguments = {"shares": (0.5, 0.1), "stage": "seed 0 / prune 1 of 1"}
    first = sensitivity.measure_losses(job, model, strata[:2], zeroed, **arguments)
    calls = []
    real = sensitivity._loss
    monkeypatch.setattr(sensitivity, "_loss", lambda *given: (calls.append(given[2]), real(*given))[1])
    again = sensitivity.measure_losses(job, model, strata, zeroed, **arguments)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert calls == ["seed 0 / prune 1 of 1: 6.weight alone"] * 2


def test_a_schedule_that_needs_a_training_refuses_a_trained_model(data):
    strategy = {"schedule": {"kind": "linear", "rounds": 4, "during": "train"}}
    trained = ModelOptimizer(network(), data, strategy=strategy, trained=True, **FAST)
    with pytest.raises(RecipeError, match="4 cuts"):
        trained.prune()
