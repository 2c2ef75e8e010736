"""Refitted readers give what least squares on the inputs gives, for as long as it lasts; a cut keeps them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import prunus
from prunus import ModelOptimizer
from prunus.core.events import silent
from prunus.graph import analyze
from prunus.pipeline.cut.refitted import refitted
from prunus.score import gather
from recover_stand_ins import TensorExamples


def moments_of(model: nn.Module, inputs: Tensor) -> tuple[Any, Any]:
    graph = analyze(model, (inputs[:2],))
    names = sorted({name for group in graph.groups for name in group.parameters(model)})
    data = TensorExamples(inputs, torch.zeros(len(inputs)))
    return graph.groups, gather(model, names, data, lambda outputs, _: outputs.sum(), ("weight", "inverse_gram"))


def network(*, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3, bias=bias)).eval()


@pytest.mark.parametrize("bias", [True, False])
def test_readers_do_as_well_without_some_units_as_least_squares_on_their_inputs(bias: bool) -> None:
    model, inputs = network(bias=bias), torch.randn(400, 5, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (group,), evidence = moments_of(model, inputs)
    gone = torch.arange(12) % 3 == 0
    with torch.no_grad():
        wanted, hidden = model(inputs), model[1](model[0](inputs))[:, ~gone]
        design = torch.cat([hidden, torch.ones(400, 1)], dim=1) if bias else hidden
        best = design @ torch.linalg.lstsq(design, wanted).solution
        with refitted(model, [group], {group.name: gone.numpy()}, evidence):
            refit = (model(inputs) - wanted).square().sum()
        with refitted(model, [group], {group.name: gone.numpy()}, None):
            zeros = (model(inputs) - wanted).square().sum()
    least = (best - wanted).square().sum()
    assert least <= refit <= 1.05 * least, "but for the damping it is the least error"
    assert refit < 0.5 * zeros
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_is_refitted_in_its_own(dtype: torch.dtype) -> None:
    model, x = network().to(dtype), torch.randn(120, 5, dtype=dtype)
    asked: Any = {
        "data": x,
        "keep_fraction": 0.5,
        "criterion": "magnitude_l2",
        "allocation": "uniform",
        "listener": silent,
    }
    small = prunus.prune(model, x[:2], adjust=("least_squares",), **asked)
    zeros = prunus.prune(model, x[:2], adjust=(), **asked)
    assert small.plan.steps[0].settings["refitted"]
    assert small.model[0].weight.dtype == dtype
    assert small.distance is not None
    assert zeros.distance is not None
    assert small.distance < zeros.distance


def test_a_convolution_reads_several_inputs_of_each_unit_and_two_groups_may_meet_in_one_reader() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.read = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(8, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.read(torch.cat([self.left(x).relu(), self.right(x).relu()], dim=1))
            return found

    torch.manual_seed(1)
    model = Joined().eval()
    with torch.no_grad():  # the units of one half say what those of the other say
        model.right.weight.copy_(model.left.weight)
        model.right.bias.copy_(model.left.bias)
    inputs = torch.randn(60, 1, 8, 8)
    groups, evidence = moments_of(model, inputs)
    gone = {groups[0].name: torch.tensor([True, True, False, False]).numpy()}
    gone |= {groups[1].name: torch.tensor([False, False, True, True]).numpy()}
    with torch.no_grad():
        wanted = model(inputs)
        with refitted(model, groups, gone, evidence):
            assert torch.dist(model(inputs), wanted) < 0.03 * torch.linalg.vector_norm(wanted)


def test_a_weight_that_is_looked_up_or_tied_stays_as_it_is() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.inner = nn.Embedding(9, 6), nn.Linear(6, 6)

        def forward(self, ids: Tensor) -> Tensor:
            found: Tensor = self.inner(self.embed(ids)) @ self.embed.weight.T
            return found

    torch.manual_seed(2)
    model, ids = Tied().eval(), torch.randint(0, 9, (50, 4))
    graph = analyze(model, (ids[:2],))
    names = sorted({name for group in graph.groups for name in group.parameters(model)})
    data = TensorExamples(ids, torch.zeros(50))
    evidence = gather(model, names, data, lambda outputs, _: outputs.sum(), ("weight", "inverse_gram"))
    before = model.embed.weight.clone()
    gone = {group.name: (torch.arange(group.size) == 0).numpy() for group in graph.groups}
    with refitted(model, graph.groups, gone, evidence, zeroed=False):
        assert torch.equal(model.embed.weight, before)


class Encoder(nn.Module):
    """Torch's own transformer: no layer is called for queries, keys and values, so nothing but the cut can refit them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.embed, self.body = nn.Linear(4, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.embed(x)).mean(dim=1))
        return found


def test_the_projections_of_attention_are_refitted_before_the_cut_and_a_plan_does_it_again_to_the_bit() -> None:
    torch.manual_seed(3)
    model, x = Encoder().eval(), torch.randn(160, 6, 4)
    asked: Any = {
        "data": x,
        "target": {"macs": 0.6},
        "criterion": "magnitude_l2",
        "allocation": "uniform",
        "listener": silent,
    }
    plain = prunus.prune(model, x[:2], adjust=("bias",), **asked)
    refit = prunus.prune(model, x[:2], adjust=("least_squares",), **asked)
    assert not plain.plan.steps[0].settings["refitted"]
    assert refit.plan.steps[0].settings["refitted"]
    assert refit.distance is not None
    assert plain.distance is not None
    assert refit.distance < 0.7 * plain.distance
    again = prunus.prune(model, x[:2], adjust=("least_squares",), plan=refit.plan, **asked)
    assert all(torch.equal(a, b) for a, b in zip(refit.model.parameters(), again.model.parameters(), strict=True))


def test_units_that_say_the_same_go_for_nothing_and_nothing_needs_to_be_adjusted() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].weight[4:], model[0].bias[4:] = model[0].weight[:4], model[0].bias[:4]
    x, y = torch.randn(200, 5), torch.randint(0, 3, (200,))
    optimizer = ModelOptimizer(
        model, (x, y), strategy="reconstruction", target={"macs": 0.5}, recovery={"method": "none"}, trained=True
    )
    small = optimizer.prune().model_
    assert small[0].out_features == 4
    with torch.no_grad():
        assert torch.dist(small(x), model(x)) < 0.03 * torch.linalg.vector_norm(model(x))


def test_a_reader_of_inputs_that_never_move_is_no_problem() -> None:
    model, x = network(), torch.randn(120, 5)
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    small = prunus.prune(model, x[:2], data=x, keep_fraction=0.5, listener=silent)
    assert small.distance == pytest.approx(0, abs=1e-6)


def test_where_rounding_is_all_that_the_moments_hold_a_reader_keeps_its_weights() -> None:
    model, x = network(), torch.randn(400, 5)
    with torch.no_grad():
        model[0].weight.mul_(1e-5)
        model[0].bias.fill_(3000.0)
    (group,), evidence = moments_of(model, x)
    before = model[2].weight.clone()
    gone = {group.name: (torch.arange(12) == 0).numpy()}
    with refitted(model, [group], gone, evidence, zeroed=False):
        assert bool(model[2].weight.isfinite().all())
    assert torch.equal(model[2].weight, before)
