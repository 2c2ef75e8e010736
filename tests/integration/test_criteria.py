"""Every criterion that a recipe may name prunes a real model, at every kind of unit that it says it judges."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.cli.app import invoke
from prunus.core.errors import DataError, RecipeError
from prunus.score import NEEDS, check_calibration, criteria

QUIET = {"train": {"epochs": 1, "batch_size": 64}, "recovery": {"method": "none"}}


class Adds(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*stem, nn.Linear(54, 16), nn.Sequential(Adds(16), Adds(16), Adds(16)), nn.Linear(16, 10))


@pytest.fixture(scope="module")
def data():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:400], dtype=torch.float32), torch.tensor(y[:400])


@pytest.fixture(scope="module")
def dense(data):
    return ModelOptimizer(network(), data, train={"epochs": 4}, recovery={"epochs": 0}).fit().model_


CASES = [
    (name, unit) for name in criteria for unit in ("weight", "channel", "block") if unit in criteria[name].granularities
]


@pytest.mark.parametrize(("name", "unit"), CASES)
def test_it_prunes_half_of_its_units(data, dense, name, unit):
    strategy = {"criterion": name, "granularity": unit, "keep_fraction": 0.5, "l1_epochs": 1}
    optimizer = ModelOptimizer(dense, data, strategy=strategy, trained=True, **QUIET).prune()
    (step,) = optimizer.plan_.steps
    kept, total = sum(d.n_kept for d in step.decisions), sum(len(d.unit) for d in step.decisions)
    assert kept == pytest.approx(total / 2, abs=1)
    assert any(len(set(d.saliency.tolist())) > 1 for d in step.decisions)
    assert torch.isfinite(optimizer.predict_outputs(data[0][:5])).all()
    if unit == "weight":
        zeros = sum(int((p == 0).sum()) for p in optimizer.model_.parameters() if p.dim() > 1)
        assert zeros >= total / 2 - 1
    else:
        smaller = sum(p.numel() for p in optimizer.model_.parameters())
        assert smaller < 0.75 * sum(p.numel() for p in dense.parameters())


def test_wanda_keeps_the_same_share_of_every_row(data, dense):
    strategy = {"criterion": "wanda", "granularity": "weight", "keep_fraction": 0.5}
    model = ModelOptimizer(dense, data, strategy=strategy, trained=True, **QUIET).prune().model_
    left = (model[6][1].down.weight != 0).sum(dim=1)
    assert left.tolist() == [12] * 16


def test_pruning_at_initialisation_needs_no_training_first(data):
    strategy = {"criterion": "synflow", "granularity": "weight", "schedule": {"kind": "linear", "rounds": 3}}
    optimizer = ModelOptimizer(network(), data, strategy=strategy, trained=True, **QUIET).prune()
    assert len(optimizer.plan_.steps) == 3


def test_a_criterion_is_refused_where_it_means_nothing(data, dense):
    with pytest.raises(RecipeError, match="'apoz' doesn't judge weights: choose among"):
        ModelOptimizer(dense, data, strategy={"criterion": "apoz", "granularity": "weight"}, trained=True).prune()
    with pytest.raises(DataError, match="output variance needs at least 2 calibration examples: got 1"):
        check_calibration("activation_variance", 1)


def test_the_command_line_runs_one_on_the_digits(small_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    strategy = {"criterion": "wanda", "granularity": "channel", "reduce": "first"}
    path = small_recipe(train={"epochs": 1}, strategy=strategy)
    assert invoke(["run", str(path), "--quiet"]) == 0


def test_the_command_line_lists_them_all_with_what_they_need(capsys):
    invoke(["criteria", "--json"])
    rows = [row for row in json.loads(capsys.readouterr().out) if row["section"] == "strategy"]
    assert [row["name"] for row in rows] == list(criteria)
    for row in rows:
        assert set(filter(None, row["needs"].split(", "))) <= set(NEEDS)
    invoke(["criteria"])
    table = capsys.readouterr().out
    assert all(name in table for name in (*criteria, "input_norm", "curvature"))
