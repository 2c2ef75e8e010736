"""Recipes that adjust after a cut, and criteria that make good what they remove."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.cli.app import invoke
from prunus.core.errors import RecipeError
from prunus.models.builtin import cnn
from prunus.report import load_record

FAST = {"train": {"epochs": 8, "batch_size": 32}}


@pytest.fixture(scope="module")
def data():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:600], dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y[:600])


def pruned(data, recovery=None, **strategy) -> ModelOptimizer:
    torch.manual_seed(0)
    model = cnn(input_shape=(1, 8, 8), n_outputs=10, width=8)
    settings = {"recovery": {"method": "none", **(recovery or {})}, "strategy": {"keep_fraction": 0.4, **strategy}}
    return ModelOptimizer(model, data, **settings, **FAST).fit().prune()


def accuracy(optimizer: ModelOptimizer, data) -> float:
    x, y = data
    return float((optimizer.predict_outputs(x).argmax(dim=1) == y).float().mean())


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_least_squares_gives_quality_back_without_training(data, granularity):
    strategy = {"criterion": "magnitude_l2", "granularity": granularity}
    plain = pruned(data, **strategy)
    adjusted = pruned(data, {"adjust": ["batch_norm", "bias", "least_squares"]}, **strategy)
    sizes = [sum(p.numel() for p in each.model_.parameters()) for each in (plain, adjusted)]
    assert sizes[0] == sizes[1]
    assert accuracy(adjusted, data) > accuracy(plain, data)
    for name, mask in adjusted.candidate_.masks.items():
        assert not adjusted.model_.get_parameter(name)[~mask].any()


def test_sparsegpt_prunes_every_layer_to_its_share_and_beats_magnitude(data):
    swept = pruned(data, criterion="sparsegpt", granularity="weight", schedule={"kind": "linear", "rounds": 2})
    for name, mask in swept.candidate_.masks.items():
        weight = swept.model_.get_parameter(name)
        assert int(mask.sum()) == round(0.4 * weight.numel())
        assert not weight[~mask].any()
    assert [step.criterion for step in swept.plan_.steps] == ["sparsegpt"] * 2
    assert accuracy(swept, data) > accuracy(pruned(data, criterion="magnitude_l2", granularity="weight"), data)


def test_sparsegpt_judges_single_weights_in_their_layers_only(data):
    with pytest.raises(RecipeError, match="'sparsegpt' doesn't judge channels"):
        pruned(data, criterion="sparsegpt", granularity="channel")
    with pytest.raises(RecipeError, match="sparsegpt chooses inside each layer"):
        pruned(data, criterion="sparsegpt", granularity="weight", allocation="global")


def test_a_plan_that_is_replayed_makes_good_what_its_maker_made_good(small_recipe, tmp_path, monkeypatch):
    small_recipe(
        strategy={"criterion": "sparsegpt", "granularity": "weight", "keep_fraction": 0.3},
        recovery={"method": "none", "adjust": ["bias"]},
    )
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", "r.yaml", "--quiet"]) == 0
    assert invoke(["apply", "out/plan", "--quiet"]) == 0
    first, again = ((tmp_path / folder / "bundle" / "model.safetensors") for folder in ("out", "out-applied"))
    assert first.read_bytes() == again.read_bytes()


def test_a_record_says_what_was_adjusted_the_same_for_the_same_seed(small_recipe, tmp_path, monkeypatch):
    small_recipe(recovery={"method": "none", "adjust": ["batch_norm", "least_squares", "bias"]})
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", "r.yaml", "--quiet"]) == 0
    first = load_record(tmp_path / "out" / "record.json")
    assert invoke(["run", "r.yaml", "--quiet", "--overwrite"]) == 0
    again = load_record(tmp_path / "out" / "record.json")
    assert [check.kind for check in first.adjustments[0].checks] == ["least_squares", "bias", "batch_norm"]
    assert first.adjustments[0].after == "prune 1 of 1"
    for check in first.adjustments[0].checks:
        assert (check.after <= check.before) == (check.verdict != "taken back")
    assert first.model_copy(update={"timing": {}}) == again.model_copy(update={"timing": {}})


class Attention(nn.Module):
    """One attention that takes its scale from the head dimension, of which the last third does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.dim = 2, 6
        self.qkv, self.o, self.out = nn.Linear(8, 36), nn.Linear(12, 8), nn.Linear(8, 3)
        with torch.no_grad():
            for values in (self.qkv.weight.view(3, 2, 6, 8), self.qkv.bias.view(3, 2, 6)):
                values[:2] *= 3
                values[:, :, 4:] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        return self.out((x + self.o(y)).mean(1))


def test_least_squares_leaves_queries_multiplied_that_make_good_for_a_smaller_head_dimension():
    torch.manual_seed(0)
    model, x, y = Attention().eval(), torch.randn(400, 5, 8), torch.arange(400) % 3
    optimizer = ModelOptimizer(
        model,
        (x, y),
        strategy={"criterion": "magnitude_l2", "granularity": ["head_dim"], "keep_fraction": 4 / 6},
        recovery={"method": "none", "adjust": ["least_squares"]},
        trained=True,
    )
    small = optimizer.prune().model_
    assert (type(small), small.dim) == (Attention, 4)
    assert torch.allclose(small(x), model(x), atol=1e-4)
