"""Every kind of unit can be asked for, in order, with amounts of their own for some layers, and is shipped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer, load_bundle
from prunus.core.errors import RecipeError, RunError

FAST = {"train": {"epochs": 2, "batch_size": 64}, "recovery": {"epochs": 1, "batch_size": 64}}


class Reader(nn.Module):
    """A digit's rows are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
        self.body = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(x.view(-1, 8, 8))).mean(1))


def build() -> nn.Module:
    return Reader()


@pytest.fixture(scope="module")
def data():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:600], dtype=torch.float32), torch.tensor(y[:600])


def pruned(data, **strategy) -> ModelOptimizer:
    torch.manual_seed(0)
    return ModelOptimizer(Reader(), data, strategy={"criterion": "magnitude_l2", **strategy}, **FAST).fit().prune()


def test_blocks_and_mlps_go_one_after_the_other(data, tmp_path):
    rules = [{"match": "body.layers.1.linear1", "keep_fraction": 0.25}]
    optimizer = pruned(data, granularity=["block", "mlp"], keep_fraction=0.5, layers=rules)
    steps = optimizer.plan_.steps
    assert [step.granularity for step in steps] == ["block", "mlp"]
    layers = optimizer.model_.body.layers
    assert len(layers) == 2
    assert [layer.linear1.out_features for layer in layers] == [16, 8]
    assert optimizer.model_.embed.out_features == 16, "no width was asked for"
    optimizer.save(tmp_path / "bundle")
    again = load_bundle(tmp_path / "bundle", builder=build).model.eval()
    x = data[0][:4]
    assert torch.equal(again(x), optimizer.model_.eval()(x))


def test_heads_that_the_class_can_not_lose_alone_leave_the_traced_computation(data):
    """torch's attention wants heads x head dimension to be its width."""
    optimizer = pruned(data, granularity="head", keep_fraction=0.5)
    assert optimizer.candidate_.kind == "graph"
    sizes = {name: tuple(value.shape) for name, value in optimizer.model_.named_parameters()}
    assert sizes["body.layers.0.self_attn.out_proj.weight"] == (16, 8)
    assert len(optimizer.predict(data[0][:7])) == 7


def test_blocks_that_leave_before_the_class_is_lost_ship_too(data, tmp_path):
    optimizer = pruned(data, granularity=["block", "head"], keep_fraction=0.5)
    assert optimizer.candidate_.kind == "graph"
    names = {name.split(".")[2] for name, _ in optimizer.model_.named_parameters() if name.startswith("body.layers.")}
    assert names == {"0", "1"}, "two of four blocks left"
    optimizer.save(tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.kind == "graph"
    expected = optimizer.predict_outputs(data[0][:7])
    assert torch.allclose(bundle.predict(data[0][:7]), expected, atol=1e-6)
    assert expected.std() > 0


def test_what_isnt_there_is_said_with_what_is(data):
    with pytest.raises(RunError, match=r"no expert that can be pruned; it has .*head.*mlp.*width"):
        pruned(data, granularity="expert")


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"granularity": ["weight", "head"]}, "weight last"),
        ({"granularity": []}, "must name a unit"),
        ({"layers": [{"match": "no.such*", "keep_fraction": 0.5}]}, r"strategy\.layers\.0\.match: 'no\.such\*' fits no layer"),
        ({"cutoff": 0.1, "layers": [{"match": "*", "keep_fraction": 0.5}]}, "doesn't go with a cutoff"),
    ],
)  # fmt: skip
def test_a_strategy_that_contradicts_itself_is_refused(data, strategy, words):
    with pytest.raises(RecipeError, match=words):
        pruned(data, **strategy)


def test_layers_can_have_widths_in_multiples_of_their_own(data):
    rules = [{"match": "body.layers.0.*", "round_to": 8, "keep_fraction": 0.7}, {"match": "*linear1", "min_units": 30}]
    optimizer = pruned(data, granularity="mlp", keep_fraction=0.5, layers=rules)
    widths = [layer.linear1.out_features for layer in optimizer.model_.body.layers]
    assert widths[0] in (16, 24)
    assert widths[1:] == [30, 30, 30]


def test_the_sensitivity_of_blocks_is_measured_without_them(data):
    options = {**FAST, "recovery": {"method": "none"}}
    strategy = {"granularity": "block", "allocation": "sensitivity", "sensitivity_steps": [0.5], "keep_fraction": 0.5}
    torch.manual_seed(0)
    optimizer = (
        ModelOptimizer(Reader(), data, strategy={"criterion": "magnitude_l2", **strategy}, **options).fit().prune()
    )
    (points,) = optimizer.plan_.steps[0].settings["losses"].values()
    (batch,) = optimizer._job.data.calibration.batches(1000)
    with torch.no_grad():
        loss = nn.functional.cross_entropy(optimizer.model_(batch.inputs), batch.targets)
    assert points[1] == [0.5, pytest.approx(float(loss), rel=1e-5)]
