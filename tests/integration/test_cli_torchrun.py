"""A run on several ranks, started as torchrun starts them: the units that go are those of one process, and the bundle loads."""

import sys
from pathlib import Path

import pytest
import torch

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
    return nn.Sequential(nn.Linear(6, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
"""
RECIPE = """
output: alone
data: {source: "two_ranks:data"}
model: {builder: "two_ranks:net"}
train: {epochs: 2, batch_size: 15, learning_rate: 0.01}
strategy: {granularity: weight, keep_fraction: 0.4, criterion: magnitude_l1, schedule: {kind: linear, rounds: 2}}
recovery: {epochs: 2, batch_size: 15}
evaluation: {bootstrap: 100, latency: {repeats: 5, warm_up: 1, runtime: torch}}
keep_dense: false
seeds: [0]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the recipe lies, with what one process made of it."""
    found = tmp_path_factory.mktemp("two_ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        Path("two_ranks.py").write_text(DATA, encoding="utf-8")
        Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
        assert invoke(["run", "recipe.yaml", "--quiet"]) == 0
    return found


@pytest.mark.parametrize("n_ranks", [2, *(pytest.param(n, marks=pytest.mark.nightly) for n in (3, 4))])
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_several_ranks_end_with_the_plan_of_one_and_only_rank_0_speaks(folder, sharding, n_ranks, monkeypatch):
    monkeypatch.chdir(folder)
    output = f"{sharding}-{n_ranks}"
    command = [sys.executable, "-m", "prunus", "run", "recipe.yaml", "-o", f"output={output}"]
    first, *others = ended(start([*command, "-o", f"runtime.sharding={sharding}"], n_ranks))
    assert [first[0], *(other[0] for other in others)] == [0] * n_ranks, (first, others)
    assert f"bundle {output}/bundle" in first[1]
    assert "can't see" not in first[2]
    assert [other[1:] for other in others] == [("", "")] * (n_ranks - 1)
    alone, together = (load_plan(Path(name)).steps for name in ("alone", output))
    assert len(alone) == len(together) == 2
    for one_step, other_step in zip(alone, together, strict=True):
        for one, other in zip(one_step.decisions, other_step.decisions, strict=True):
            assert (one.stratum, one.keep.tolist()) == (other.stratum, other.keep.tolist())
    kept = sum(int(decision.keep.sum()) for decision in together[-1].decisions)
    one, other = (load_bundle(Path(name) / "bundle").model for name in ("alone", output))
    weights = [value for value in other.parameters() if value.dim() > 1]
    assert sum(int((value != 0).sum()) for value in weights) == kept
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(other(inputs), one(inputs), rtol=1e-3, atol=1e-3)
