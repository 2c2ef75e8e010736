"""The same things on a GPU, where there is one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus import ModelOptimizer, load_recipe, run
from prunus.apply import follow_class, shrink
from prunus.graph import analyze, certify
from prunus.recover import sparsegpt_prune
from prunus.scale import prune_layerwise
from prunus.ship import load_bundle

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Block(nn.Module):
    """Attention that takes its scale from the head dimension, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.dim = 4, 16
        self.norm, self.qkv, self.o = nn.LayerNorm(64), nn.Linear(64, 192), nn.Linear(64, 64)
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        x = x + self.o(y)
        return x + self.down(functional.gelu(self.up(x)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = nn.Linear(8, 64), nn.Sequential(Block(), Block()), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x.flatten(1, -2))).mean(1))


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().eval().cuda()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_recipe_runs_from_the_data_to_a_bundle_that_answers_on_the_processor(
    small_recipe, tmp_path, monkeypatch, precision
):
    monkeypatch.chdir(tmp_path)
    path = small_recipe(
        train={"epochs": 8, "precision": precision},
        recovery={"method": "distil", "epochs": 4, "precision": precision, "adjust": ["least_squares", "batch_norm"]},
        runtime={"device": "cuda"},
    )
    record = run(load_recipe(path))
    row = record.comparison[0]
    assert row.dense > 0.85
    assert row.pruned > 0.8
    bundle = load_bundle(tmp_path / "out" / "bundle")
    assert next(bundle.model.parameters()).device.type == "cpu"
    assert bundle.model.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("criterion", ["magnitude_l2", "taylor", "fisher", "wanda", "activation_mean", "bn_scale"])
def test_a_criterion_cuts_the_same_units_as_on_the_processor(criterion):
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    data = torch.tensor(x, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y)
    from prunus.models.builtin import cnn

    torch.manual_seed(0)
    model = cnn((1, 8, 8), 10, width=16)
    plans = []
    for device in ("cpu", "cuda"):
        optimizer = ModelOptimizer(
            copy.deepcopy(model),
            data,
            strategy={"criterion": criterion, "keep_fraction": 0.5},
            recovery={"method": "none", "adjust": ["least_squares"]},
            trained=True,
            data_options={"check_weights": False},
            runtime={"device": device},
        ).prune()
        assert next(optimizer.model_.parameters()).device.type == device
        plans.append(optimizer.plan_)
    for here, there in zip(*(plan.steps[0].decisions for plan in plans), strict=True):
        assert (here.keep == there.keep).mean() > 0.9


def test_groups_are_proved_and_the_class_follows_on_a_gpu(encoder):
    x = torch.randn(4, 1, 8, 8, device="cuda")
    graph = follow_class(encoder, (x,), certify(encoder, (x,), analyze(encoder, (x,))))
    assert {group.kind for group in graph.groups} == {"width", "head", "head_dim", "mlp"}
    shrunk = shrink(encoder, (x,), graph, {g.name: torch.arange(g.size) < (3 * g.size) // 4 for g in graph.groups})
    assert (shrunk.kind, shrunk.model(x).device.type) == ("eager", "cuda")
    assert shrunk.folded


def test_a_share_of_the_macs_is_met_on_a_gpu(encoder):
    optimizer = ModelOptimizer(
        encoder,
        (torch.randn(400, 1, 8, 8), torch.arange(400) % 10),
        strategy="taylor",
        target={"macs": 0.5},
        recovery={"method": "none", "adjust": ["least_squares"]},
        trained=True,
        data_options={"check_weights": False},
        runtime={"device": "cuda"},
    ).prune()
    assert optimizer.model_(torch.zeros(2, 1, 8, 8).cuda()).shape == (2, 10)


def test_a_share_of_the_latency_is_met_on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10)).cuda()
    optimizer = ModelOptimizer(
        model,
        (torch.randn(400, 64), torch.arange(400) % 10),
        strategy="magnitude_l2",
        target={"latency": 0.5},
        recovery={"method": "none"},
        trained=True,
        data_options={"check_weights": False},
        runtime={"device": "cuda"},
        evaluation={"latency": {"batch_size": 4096, "repeats": 20}},
    ).prune()
    assert sum(p.numel() for p in optimizer.model_.parameters()) < 0.7 * sum(p.numel() for p in model.parameters())
    (table,) = (tmp_path / "prunus").iterdir()
    assert torch.cuda.get_device_name() in table.read_text()


@pytest.mark.parametrize("amount", [{"keep_fraction": 0.5}, {"n_m": (2, 4)}], ids=["half", "2:4"])
@pytest.mark.parametrize("criterion", ["magnitude", "wanda", "sparsegpt"])
def test_layer_by_layer_it_prunes_as_on_the_processor(encoder, criterion, amount):
    batches = [torch.randn(16, 1, 8, 8) for _ in range(4)]
    here, there = copy.deepcopy(encoder).cpu(), copy.deepcopy(encoder)
    prune_layerwise(here, batches, criterion=criterion, **amount)
    prune_layerwise(there, [batch.cuda() for batch in batches], criterion=criterion, **amount)
    for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        assert ((one != 0) == (other != 0).cpu()).float().mean() > 0.99, name


def test_sparsegpt_is_the_same_on_both():
    torch.manual_seed(0)
    weight, rows = torch.randn(96, 128), torch.randn(512, 128)
    gram = rows.t() @ rows
    here, there = (sparsegpt_prune(weight.to(d), gram.to(d), n_m=(2, 4))[0].cpu() for d in ("cpu", "cuda"))
    assert torch.allclose(here, there, atol=1e-3)
