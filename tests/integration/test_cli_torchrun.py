"""A run on two ranks, started as torchrun starts them: the units that go are those of one process, and the bundle loads."""

import sys
from pathlib import Path

from prunus.cli.app import invoke
from prunus.core.files.plan_file import load_plan
from prunus.ship import load_bundle
from ranks_child import ended, start

DATA = """
import torch
from torch import nn

def data():
    draw = torch.Generator().manual_seed(0)
    inputs, weights = torch.randn(101, 6, generator=draw), torch.randn(6, 3, generator=draw)
    return torch.utils.data.TensorDataset(inputs, (inputs @ weights).argmax(1))

def net():
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
"""
RECIPE = """
output: alone
data: {source: "two_ranks:data"}
model: {builder: "two_ranks:net"}
train: {epochs: 2, batch_size: 15, learning_rate: 0.01}
strategy: {granularity: weight, keep_fraction: 0.4, criterion: magnitude_l1}
recovery: {epochs: 2, batch_size: 15}
evaluation: {bootstrap: 100, latency: {repeats: 5, warm_up: 1, runtime: torch}}
keep_dense: false
seeds: [0]
"""


def test_two_ranks_end_with_the_plan_of_one_and_only_rank_0_speaks(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two_ranks.py").write_text(DATA, encoding="utf-8")
    Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "prunus", "run", "recipe.yaml", "-o", "output=together"]
    first, second = ended(start(command))
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "bundle together/bundle" in first[1]
    assert second[1:] == ("", "")
    assert invoke(["run", "recipe.yaml", "--quiet"]) == 0
    alone, together = (load_plan(Path(name)).steps[0] for name in ("alone", "together"))
    for one, other in zip(alone.decisions, together.decisions, strict=True):
        assert (one.stratum, one.keep.tolist()) == (other.stratum, other.keep.tolist())
    kept = sum(int(decision.keep.sum()) for decision in together.decisions)
    weights = [value for value in load_bundle(Path("together/bundle")).model.parameters() if value.dim() > 1]
    assert sum(int((value != 0).sum()) for value in weights) == kept
