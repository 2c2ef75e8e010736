"""A target is met, a contract is kept or said not to be, and no test example has a say in it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.cli.app import invoke
from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.types import Measurement
from prunus.evaluate import Latency, measure_cost
from prunus.pipeline import target_search as search_module
from prunus.pipeline.costing import cost_targets as costing_module
from prunus.pipeline.costing import latency_targets as latency_module
from prunus.pipeline.cut import one_round as cut_module
from prunus.pipeline.flow.seed_run import run_seed

QUICK = {
    "train": {"epochs": 3, "batch_size": 32},
    "recovery": {"epochs": 1, "batch_size": 32},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 16, "runtime": "torch"}},
    "data_options": {"split": {"validation": 0.4, "calibration": 0.15, "test": 0.15}},
}


def data(n=900):
    """Three clouds that hardly overlap: nearly everything can go."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    return torch.randn(n, 8, generator=draw) * 0.6 + 2.5 * nn.functional.one_hot(y, 8), y


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def optimizer(target=None, contract=None, **more):
    settings = {**QUICK, "strategy": {"criterion": "taylor"}, "seeds": [0], **more}
    return ModelOptimizer(network(), data(), target=target, contract=contract, **settings)


@pytest.mark.parametrize("kind", ["params", "macs", "bytes"])
def test_a_share_of_the_cost_is_met_from_below_and_closely(kind):
    made = optimizer({kind: 0.4}).fit().prune()
    inputs = (torch.zeros(2, 8),)
    costs = [measure_cost(model, inputs) for model in (made.dense_, made.model_)]
    field = {"params": "parameters", "macs": "macs", "bytes": "memory_bytes"}[kind]
    share = getattr(costs[1], field) / getattr(costs[0], field)
    assert 0.35 < share <= 0.4


def test_what_hangs_together_is_found_out_once_for_the_floor_and_the_cut(monkeypatch):
    seen = []

    def watched(model, *args, **options):
        seen.append(model)
        return analysed(model, *args, **options)

    analysed = search_module.prunable_graph
    for module in (search_module, cut_module):
        monkeypatch.setattr(module, "prunable_graph", watched)
    optimizer({"params": 0.4}, strategy={"criterion": "taylor", "schedule": {"kind": "linear", "rounds": 2}}).prune()
    assert len(seen) == len({id(model) for model in seen}) == 3, "the model before its training, trained, and cut"


def test_a_stream_counts_by_the_weights_it_runs_through(monkeypatch):
    seen = {}
    best = costing_module.cost_aware

    def watched(strata, cost, limit):
        seen.update({len(s.saliency): s.n_weights for s in strata})
        return best(strata, cost, limit)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
            self.up = nn.ModuleList(nn.Linear(16, width) for width in (20, 24))
            self.down = nn.ModuleList(nn.Linear(width, 16) for width in (20, 24))

        def forward(self, x):
            x = self.stem(x)
            for up, down in zip(self.up, self.down, strict=True):
                x = x + down(torch.relu(up(x)))
            return self.head(x)

    monkeypatch.setattr(costing_module, "cost_aware", watched)
    settings = {**QUICK, "strategy": "magnitude_l2", "seeds": [0], "recovery": {"method": "none"}, "trained": True}
    settings["data_options"] = {"check_weights": False}  # how well it answers doesn't matter here
    ModelOptimizer(Residual(), data(), target={"macs": 0.5}, **settings).prune()
    assert seen == {16: 6, 20: 2, 24: 2}


def test_a_contract_is_tested_on_validation_examples_and_kept_with_confidence():
    record = optimizer({"params": 0.3}, {"metric": "accuracy", "max_drop": 0.03, "confidence": 0.9}).run()
    (search,) = record.searches
    delivered = search.result
    assert delivered is not None
    assert delivered.verdict == "kept"
    assert delivered.test.bound <= 0.03
    assert delivered.test.n == search.n_validation == record.data.n["validation"]
    assert delivered.share <= 0.3
    assert delivered.share == record.cost["pruned"].parameters / record.cost["dense"].parameters
    tested = [row for row in search.candidates if row.test is not None]
    assert [row.share for row in tested] == sorted((row.share for row in tested), reverse=True)


def test_as_small_as_the_contract_allows_goes_on_until_something_fails():
    contract = {"max_drop": 0.05, "max_candidates": 5}
    search = optimizer("smallest", contract).run().searches[0]
    assert search.asked is None
    assert search.delivered is not None
    assert search.result.share == min(row.share for row in search.candidates if row.verdict == "kept")
    assert len(search.candidates) <= 5


def test_where_nothing_keeps_the_contract_the_dense_model_stays_and_that_is_said(monkeypatch):
    """Every candidate loses what it learnt, so that none can keep it."""
    original = search_module.recover

    def forget(job, seed, dense, candidate, *rest, **options):
        facts = original(job, seed, dense, candidate, *rest, **options)
        with torch.no_grad():
            for parameter in candidate.model.parameters():
                parameter.zero_()
        return facts

    monkeypatch.setattr(search_module, "recover", forget)
    made = optimizer({"params": 0.5}, {"max_drop": 0.03, "max_candidates": 3})
    record = made.run()
    (search,) = record.searches
    assert search.delivered is None
    assert [row.verdict for row in search.candidates].count("not shown") == 1, "one look, then it is over"
    assert record.cost["pruned"] == record.cost["dense"]
    assert torch.equal(made.model_[0].weight, made.dense_[0].weight)
    from prunus.report.page.searches import outcome

    assert "no smaller model was found that keeps the contract" in outcome(search)


class Forbidden:
    """A test set that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test set was asked for its {name}")


def test_no_decision_reads_the_test_examples():
    made = optimizer({"params": 0.4}, {"max_drop": 0.05})
    job = made._job
    blind = replace(job, data=replace(job.data, test=Forbidden()))
    seen = run_seed(job, 0, job.workspace.decided)
    unseen = run_seed(blind, 0, blind.workspace.decided)
    assert unseen.search == seen.search
    assert unseen.search["delivered"] is not None
    for one, other in zip(seen.pruned.model.parameters(), unseen.pruned.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_latency_is_measured_in_the_runtime_that_is_named(work_clock, tmp_path):
    wide = nn.Sequential(nn.Linear(8, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 3))
    made = ModelOptimizer(
        wide, data(), target={"latency": 0.6}, strategy="magnitude_l2", seeds=[0],
        **QUICK | {"train": {"epochs": 1}, "recovery": {"method": "none"}},
    )  # fmt: skip
    record = made.run()
    (search,) = record.searches
    assert (search.cost, search.runtime) == ("latency", "torch")
    assert record.latency.runtime == "torch eager"
    # Timed anew in the end, beside the dense model: what was asked for, up to what the search calls near.
    assert search.result.share == pytest.approx(0.6, rel=0.035)
    assert record.latency.speedup.value == pytest.approx(1 / search.result.share)
    assert record.latency.speedup.low == record.latency.speedup.high, "this clock runs alike in all rounds"
    assert made.model_[2].in_features < 512
    (kept,) = (tmp_path / "prunus").glob("latency-torch-*.json")
    assert any(key.startswith("linear 16x") for key in json.loads(kept.read_text())["milliseconds"])


def test_killed_and_resumed_is_never_killed(tmp_path, small_recipe, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x, y = data(600)
    np.savez(tmp_path / "clouds.npz", x=x.numpy(), y=y.numpy())
    path = small_recipe(
        data={"source": "clouds.npz", "split": {"validation": 0.3, "calibration": 0.2, "test": 0.2}},
        model={"builder": "mlp", "args": {"width": 16}},
        target={"macs": 0.5},
        contract={"max_drop": 0.2},
        strategy={"criterion": "taylor"},
    )
    assert invoke(["run", str(path), "--quiet", "--json"]) == 0
    whole = json.loads((tmp_path / "out" / "record.json").read_text())
    original, calls = search_module.recover, []

    def die(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(search_module, "recover", die)
    assert invoke(["run", str(path), "--quiet", "--overwrite"]) != 0
    assert not (tmp_path / "out" / "record.json").exists()
    monkeypatch.setattr(search_module, "recover", original)
    assert invoke(["run", str(path), "--quiet", "--resume"]) == 0
    again = json.loads((tmp_path / "out" / "record.json").read_text())
    for record in (whole, again):
        record.pop("timing")
    assert again == whole
    assert len(again["searches"][0]["candidates"]) == 2
    # What was found is a plan like any other: it is carried out without a search.
    assert invoke(["apply", "out", "--recipe", str(path), "--quiet"]) == 0
    applied = json.loads((tmp_path / "out-applied" / "record.json").read_text())
    assert applied["layers"] == whole["layers"]
    assert applied["searches"] == []
    capsys.readouterr()


@pytest.mark.parametrize(
    ("sections", "code", "words"),
    [
        ({"target": {"macs": 0.5}}, 3, "target and strategy.keep_fraction both say how much goes"),
        ({"contract": {"max_drop": 0.1}}, 3, "contract and strategy.keep_fraction both say how much goes"),
        ({"target": {"macs": 0.5}, "strategy": {"cutoff": 0.1}}, 3, "target and strategy.cutoff both say how much goes"),
        ({"target": {"macs": 0.5, "params": 0.5}, "strategy": {}}, 3, "exactly one of latency, params, macs, bytes"),
        ({"target": {"macs": 0}, "strategy": {}}, 3, "target.macs"),
        ({"target": "smallest", "strategy": {}}, 3, "give a contract"),
        ({"target": {"latency": 0.5}, "strategy": {"granularity": "weight"}}, 3, "zeros save no time"),
        ({"target": {"macs": 0.5}, "strategy": {"granularity": "block"}}, 3, "one granularity of widths"),
        ({"contract": {"max_drop": 0.01}, "strategy": None}, 3, "needs a strategy"),
        ({"contract": {"max_drop": 0}, "strategy": {}}, 3, "contract.max_drop"),
        ({"contract": {"max_drop": 1.5}, "strategy": {}}, 3, "max_drop must be below 1"),
        ({"contract": {"max_drop": 0.1, "harm": {"worst_group": 3}}, "strategy": {}}, 3, "worst_group must be below 1"),
        ({"contract": {"metric": "acuracy", "max_drop": 0.1}, "strategy": {}}, 3, "did you mean 'accuracy'"),
        (
            {"contract": {"metric": "f1_macro", "max_drop": 0.1}, "strategy": {}, "evaluation": {"metrics": ["accuracy"]}},
            3,
            "contract.metric must be one that is evaluated (accuracy): got 'f1_macro'",
        ),
        ({"contract": {"max_drop": 0.001}, "strategy": {}}, 4, "expected at least 2995, got"),
        (
            {"contract": {"metric": "mae", "max_drop": 5}, "strategy": {}, "data": {"source": "sklearn:diabetes", "split": {
                "validation": 0.05, "calibration": 0.1, "test": 0.1}}},
            4,
            "expected at least 30, got 22; raise data.split.validation",
        ),
        ({"target": {"params": 0.001}, "strategy": {}}, 3, "below the floor"),
        ({"strategy": {"allocation": "cost"}}, 3, "allocation cost needs a target"),
    ],
)  # fmt: skip
def test_a_contradiction_is_one_line(tmp_path, small_recipe, monkeypatch, capsys, sections, code, words):
    monkeypatch.chdir(tmp_path)
    got = invoke(["run", str(small_recipe(**sections)), "--quiet"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert got == code
    assert len(lines) == 1
    assert words in lines[0]


def test_a_contract_and_features_do_not_share_the_validation_examples():
    with pytest.raises(RecipeError, match="decide on the validation examples"):
        optimizer({"params": 0.5}, {"max_drop": 0.1}, features={"tolerance": 0.1}).run()


def test_too_few_validation_examples_say_how_many_are_needed():
    with pytest.raises(DataError, match=r"expected at least 299, got \d+; raise data\.split\.validation"):
        optimizer({"params": 0.5}, {"max_drop": 0.01}, data_options={"split": {"validation": 0.1}}).run()


def test_a_contract_alone_means_the_smallest():
    tree = {"data": {"source": "sklearn:digits"}, "strategy": {}, "contract": {"max_drop": 0.05}}
    assert make_recipe(tree).target.smallest == "params"


@pytest.mark.parametrize("contract", [None, {"max_drop": 0.2}])
def test_a_model_that_is_not_measurably_faster_is_never_delivered_for_a_latency(monkeypatch, contract):
    """A planted timer: while the search goes on fewer parameters are said to be faster; timed again, they aren't."""

    def by_size(costing, model):
        n = [sum(p.numel() for p in one.parameters()) for one in (costing._dense, model)]
        return 0.1 + 0.9 * n[1] / n[0]

    monkeypatch.setattr(latency_module.Timed, "share", by_size)
    speed = {"low": 0.97}

    def timer(models, inputs, config, **options):
        times = {name: Measurement("ms", 1.0, 1.0, 1.0) for name in models}
        return Latency("torch", 16, 5, 1, 1, "wall", times, Measurement("speedup", 1.05, speed["low"], 1.1))

    monkeypatch.setattr(latency_module, "measure_latency", timer)
    monkeypatch.setattr(latency_module.LatencyTable, "save", lambda table: None)
    made = optimizer({"latency": 0.6}, contract).fit().prune()
    assert parameters(made.model_) == parameters(made.dense_)
    speed["low"] = 1.01
    assert parameters(optimizer({"latency": 0.6}, contract).fit().prune().model_) < parameters(made.dense_)


def parameters(model):
    return sum(p.numel() for p in model.parameters())
