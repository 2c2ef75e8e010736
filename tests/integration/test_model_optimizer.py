"""The facade: every method of the mission, on a model that is only an object."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from prunus import ModelOptimizer, load_bundle
from prunus.core.errors import ModelError, RecipeError
from prunus.core.types import Plan
from prunus.data import prepare_arrays

FAST = {"train": {"epochs": 8, "batch_size": 32}, "recovery": {"epochs": 4, "batch_size": 32}}
UNTRAINED = {"data_options": {"check_weights": False}}  # how well it answers doesn't matter there
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


@pytest.mark.parametrize("average", [{"kind": "swa", "last": 2}, {"kind": "ema", "decay": 0.9}])
@pytest.mark.parametrize("method", ["fine_tune", "distil"])
def test_zeros_survive_an_averaged_recovery(data, average, method):
    strategy = {"criterion": "magnitude_l1", "granularity": "weight", "keep_fraction": 0.3}
    recovery = {"method": method, "epochs": 3, "average": average, "precision": "bfloat16", "accumulate": 2}
    optimizer = ModelOptimizer(network(), data, strategy=strategy, trained=True, recovery=recovery).prune()
    for decision in optimizer.plan_.steps[0].decisions:
        weight = dict(optimizer.model_.named_parameters())[decision.stratum].detach().flatten()
        assert torch.equal(weight != 0, torch.from_numpy(decision.keep))


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


def test_examples_that_were_split_already_are_taken_as_they_are(data):
    prepared = prepare_arrays(data[0][:300], data[1][:300])
    optimizer = ModelOptimizer(network(), prepared, strategy="magnitude_l2", trained=True, recovery={"method": "none"})
    optimizer.prune(keep_fraction=0.5)
    assert prepared.fingerprint in optimizer.plan_.fingerprints.values()
    assert optimizer.evaluate()["test"].n == len(prepared.test)


def test_a_wrong_setting_is_named_like_in_a_recipe(data):
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        ModelOptimizer(network(), data, train={"epoch": 3})
    with pytest.raises(RecipeError, match="needs a strategy"):
        ModelOptimizer(network(), data, trained=True).fit().prune(keep_fraction=0.5)
    with pytest.raises(RecipeError, match="less than or equal to 1"):
        ModelOptimizer(network(), data, strategy="taylor", trained=True).fit().prune(keep_fraction=2)


def confidence(outputs, batch):
    """A loss under which the ranking of units differs from cross-entropy's."""
    return outputs.softmax(dim=1)[torch.arange(len(outputs)), batch.targets].neg().mean()


def test_a_loss_or_a_step_of_one_s_own_is_what_trains_and_what_taylor_reads(data):
    def step(model, batch):
        return confidence(model(batch.inputs), batch)

    plans = []
    scaled = {"data_options": {"standardize": True, "check_weights": False}}  # so that no unit is dead
    for options in ({}, {"loss": confidence}, {"training_step": step}):
        optimizer = ModelOptimizer(
            network(), data, strategy="taylor", trained=True, **scaled, recovery={"epochs": 1}, **options
        )
        plans.append(optimizer.prune(keep_fraction=0.5).plan_)
    saliency = [plan.steps[0].decisions[0].saliency for plan in plans]
    assert (saliency[1] == saliency[2]).all()
    assert not (saliency[0] == saliency[1]).any()
    trained = [
        ModelOptimizer(network(), data, train={"epochs": 3}, **options).fit()
        for options in ({"loss": confidence}, {"training_step": step})
    ]
    parameters = (optimizer.model_.parameters() for optimizer in trained)
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))


def test_distilling_with_a_step_of_one_s_own_mixes_it_with_the_teacher(data):
    calls = []

    def step(model, batch):
        calls.append(model.training)
        return confidence(model(batch.inputs), batch)

    recovery = {"method": "distil", "epochs": 1, "distil": {"weight": 0.9}}
    optimizer = ModelOptimizer(
        network(), data, strategy="magnitude_l2", train={"epochs": 8}, recovery=recovery, training_step=step
    )
    optimizer.prune(keep_fraction=0.5)
    assert optimizer.evaluate()["test"].value("accuracy") > 0.7
    assert any(calls)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"loss": 3}, RecipeError, "loss must be a function .* got int"),
        ({"training_step": "mine"}, RecipeError, "training_step must be a function .* got str"),
        ({"loss": lambda outputs, batch: outputs}, ModelError, r"must be one number.*got \(2, 10\)"),
        ({"loss": lambda outputs, batch: outputs.argmax()}, ModelError, "has no gradient"),
        ({"training_step": lambda model, batch: 0.5}, ModelError, "must be one number.*got float"),
        ({"training_step": lambda model: 0.5}, ModelError, "training_step failed: TypeError"),
        ({"loss": confidence, "training_step": confidence}, RecipeError, "got loss and training_step"),
        ({"loss": confidence, "train": {"label_smoothing": 0.1}}, RecipeError, "label_smoothing belongs"),
    ],
)
def test_what_can_t_be_minimised_is_refused_at_once(data, options, error, words):
    with pytest.raises(error, match=words):
        ModelOptimizer(network(), data, **options)


@pytest.mark.parametrize(("modules", "words"), [((), "compared after 0"), (("2",), "compared after 2")])
def test_distilling_features_says_where_and_runs_through_the_facade(data, modules, words):
    told = []
    recovery = {"method": "distil", "epochs": 1, "distil": {"features": 1.0, "modules": modules}}
    optimizer = ModelOptimizer(
        network(), data, strategy="magnitude_l2", trained=True, recovery=recovery, listener=told.append, **UNTRAINED
    )
    optimizer.prune(keep_fraction=0.5)
    assert any(words in event.message for event in told if event.kind == "note")
    assert not any(module._forward_hooks for module in (*optimizer.model_.modules(), *optimizer.dense_.modules()))


def test_where_there_are_no_features_to_compare_the_run_says_so_and_goes_on(data):
    told = []
    recovery = {"method": "distil", "epochs": 1, "distil": {"features": 1.0}}
    model = nn.Linear(64, 10)
    strategy = {"criterion": "magnitude_l2", "granularity": "weight"}
    optimizer = ModelOptimizer(
        model, data, strategy=strategy, trained=True, recovery=recovery, listener=told.append, **UNTRAINED
    )
    optimizer.prune()
    assert any("nothing to compare inside" in event.message for event in told)


def test_adapters_recover_a_pruned_model_through_the_facade(data):
    pytest.importorskip("peft")
    for granularity in ("weight", "channel"):
        strategy = {"criterion": "magnitude_l2", "granularity": granularity, "keep_fraction": 0.4}
        recovery = {"method": "lora", "epochs": 5, "lora": {"rank": 4}, "learning_rate": 0.01}
        optimizer = ModelOptimizer(network(), data, strategy=strategy, train={"epochs": 8}, recovery=recovery).fit()
        optimizer.prune()
        assert [type(module) for module in optimizer.model_] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert optimizer.evaluate()["test"].value("accuracy") > 0.85
        if granularity == "weight":
            for decision in optimizer.plan_.steps[0].decisions:
                weight = dict(optimizer.model_.named_parameters())[decision.stratum].detach().flatten()
                assert torch.equal(weight != 0, torch.from_numpy(decision.keep))


class Tied(nn.Module):
    """Names with characters that patterns read otherwise, a part in a part, and a weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.ModuleDict({"a[0]": nn.Sequential(nn.Linear(64, 24), nn.ReLU()), "a0": nn.Linear(24, 16)})
        self.one, self.two, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.two.weight = self.one.weight

    def forward(self, x):
        x = self.rows["a0"](self.rows["a[0]"](x))
        return self.last(torch.relu(self.two(torch.relu(self.one(x)))))


def test_what_a_predicate_excludes_stays_whole(data):
    def shapes(exclude):
        torch.manual_seed(0)
        optimizer = ModelOptimizer(
            Tied(), data, strategy="magnitude_l2", exclude=exclude, trained=True, **FAST, **UNTRAINED
        )
        model = optimizer.prune(keep_fraction=0.5).model_
        return [model.rows["a[0]"][0].out_features, model.rows["a0"].out_features, model.last.in_features]

    assert shapes(lambda name, module: False) == [12, 8, 8]
    assert shapes(lambda name, module: name == "rows.a[0]") == [24, 8, 8]
    assert shapes(lambda name, module: name == "two") == [12, 16, 16], "the tied weight goes by the name of the other"
    assert shapes(lambda name, module: isinstance(module, nn.Linear) and module.out_features == 24) == [24, 8, 8]


def test_a_predicate_goes_with_patterns_and_needs_a_strategy(data):
    widths = [64, 32, 24, 16, 10]
    layers = [nn.Linear(*sizes) for sizes in itertools.pairwise(widths)]
    model = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))[:-1]
    strategy = {"criterion": "magnitude_l2", "exclude": ["0"]}
    optimizer = ModelOptimizer(
        model, data, strategy=strategy, exclude=lambda name, _: name == "6", trained=True, **FAST, **UNTRAINED
    )
    kept = optimizer.prune(keep_fraction=0.5).model_
    assert [kept[i].out_features for i in (0, 2, 4)] == [32, 12, 16]
    with pytest.raises(RecipeError, match="needs a strategy: got None"):
        ModelOptimizer(network(), data, exclude=lambda name, module: True)
