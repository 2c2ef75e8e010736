"""The facade: every method of the mission, on a model that is only an object."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from prunus import ModelOptimizer, load_bundle
from prunus.core.errors import RecipeError
from prunus.core.types import Plan

FAST = {"train": {"epochs": 8, "batch_size": 32}, "recovery": {"epochs": 4, "batch_size": 32}}
QUICK = {"evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch"}}}


@pytest.fixture(scope="module")
def data():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 10))


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_fit_prune_evaluate_predict(data):
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = ModelOptimizer(model, data, strategy="taylor", metrics=["f1_macro", "accuracy"], **FAST).fit()
    dense = n_parameters(optimizer.model_)
    optimizer.prune(keep_fraction=0.25)
    assert optimizer.model_[0].out_features == 24
    assert n_parameters(optimizer.model_) < 0.3 * dense
    quality = optimizer.evaluate()
    assert set(quality) == {"train", "test"}
    assert [m.name for m in quality["test"].metrics] == ["f1_macro", "accuracy"]
    assert quality["test"].value("accuracy") > 0.9
    labels = optimizer.predict(data[0][:200])
    assert sum(int(a) == int(b) for a, b in zip(labels, data[1][:200], strict=True)) > 180
    probabilities = optimizer.postprocess(optimizer.predict_outputs(data[0][:3])).probabilities
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(3))
    assert isinstance(optimizer.plan_, Plan)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the given model was changed"


def test_a_cutoff_removes_what_scores_below_it(data):
    strategy = {"criterion": "magnitude_l1", "granularity": "weight"}
    optimizer = ModelOptimizer(network(), data, strategy=strategy, **FAST).fit().prune(cutoff=0.1)
    for decision in optimizer.plan_.steps[0].decisions:
        assert ((decision.saliency >= 0.1) == decision.keep).all()
        weight = dict(optimizer.model_.named_parameters())[decision.stratum].detach().flatten()
        assert (weight[torch.from_numpy(~decision.keep)] == 0).all(), "a mask did not survive the recovery"


def test_averaging_reports_the_spread_over_seeds_before_and_after(data):
    optimizer = ModelOptimizer(network(), data, strategy="magnitude_l2", **FAST).fit()
    state = {k: v.clone() for k, v in optimizer.model_.state_dict().items()}
    variance = optimizer.reduce_variance(kind="swa", last=3)
    assert len(variance.before) == len(variance.after) == 3
    assert variance.deviation_before >= 0
    assert "seeds" in str(variance)
    assert any(not torch.equal(v, state[k]) for k, v in optimizer.model_.state_dict().items())
    with pytest.raises(RecipeError, match="two seeds"):
        ModelOptimizer(network(), data, seeds=[0], **FAST).fit().reduce_variance()


def test_run_does_it_all_for_every_seed_and_saves_what_loads_again(data, tmp_path):
    optimizer = ModelOptimizer(network(), TensorDataset(*data), strategy="gradient", seeds=[0, 1], **FAST, **QUICK)
    record = optimizer.run()
    assert record.seeds == [0, 1]
    assert record.comparison[0].n_seeds == 2
    optimizer.save(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle", builder=network)
    assert torch.allclose(bundle.predict(data[0][:5]), optimizer.predict_outputs(data[0][:5]), atol=1e-5)


def test_a_trained_model_is_not_trained_again(data):
    model = network()
    optimizer = ModelOptimizer(model, data, strategy="random", trained=True).fit()
    assert all(torch.equal(a, b) for a, b in zip(optimizer.model_.parameters(), model.parameters(), strict=True))


def test_a_wrong_setting_is_named_like_in_a_recipe(data):
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        ModelOptimizer(network(), data, train={"epoch": 3})
    with pytest.raises(RecipeError, match="needs a strategy"):
        ModelOptimizer(network(), data, trained=True).fit().prune(keep_fraction=0.5)
    with pytest.raises(RecipeError, match="less than or equal to 1"):
        ModelOptimizer(network(), data, strategy="taylor", trained=True).fit().prune(keep_fraction=2)
