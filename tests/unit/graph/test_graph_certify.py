"""A certificate that can't fail is none: nothing hides behind weights that hold one value only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from prunus.apply import shrink
from prunus.graph import AxisGraph, analyze, certify


class Quiet(nn.Module):
    """Two hidden layers whose effect is scaled by nothing: a head of zeros, or a residual gate at zero."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.head = nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 6), nn.Linear(6, 2)
        self.gate = nn.Parameter(torch.ones(()))
        if how == "head":
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        if how == "gate":
            nn.init.zeros_(self.gate)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gate * torch.relu(self.b(torch.relu(self.norm(self.a(x))))))


def without(graph: AxisGraph, group: str, tensor: str) -> AxisGraph:
    """Plant a fault: a member is forgotten."""
    groups = tuple(
        replace(g, members=tuple(m for m in g.members if m.tensor != tensor)) if g.name == group else g
        for g in graph.groups
    )
    assert groups != graph.groups
    return replace(graph, groups=groups)


@pytest.mark.parametrize("how", ["head", "gate", "plain"])
@pytest.mark.parametrize("forgotten", ["norm.weight", "norm.running_mean", "norm.running_var", "b.weight", "a.bias"])
def test_a_forgotten_member_is_caught_behind_zeros_and_in_constant_scales(how, forgotten):
    model, x = Quiet(how).eval(), torch.randn(5, 3)
    graph = analyze(model, (x,))
    assert certify(model, (x,), graph).groups == graph.groups
    certified = certify(model, (x,), without(graph, "a", forgotten))
    assert "a" in {frozen.name for frozen in certified.frozen}


@pytest.mark.parametrize("how", ["head", "gate"])
def test_a_class_that_cannot_follow_is_noticed_behind_zeros(how):
    class Fixed(Quiet):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.norm(self.a(x)))
            y = y * (1.0 if y.shape[1] == 8 else 2.0)  # the value, not the shape, depends on the size
            return self.head(self.gate * torch.relu(self.b(y)))

    model, x = Fixed(how).eval(), torch.randn(5, 3)
    graph = analyze(model, (x,))
    assert shrink(model, (x,), graph, {"a": torch.arange(8) < 4}).kind == "graph"


def test_the_certificate_leaves_the_model_as_it_was():
    model, x = Quiet("head").eval(), torch.randn(5, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    certify(model, (x,), analyze(model, (x,)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
