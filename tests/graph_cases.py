"""A small network around one operation, and what must hold for whatever the rule of that operation says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graph_zoo import randomize
from prunus.apply import shrink
from prunus.graph import AxisGraph, analyze, certify

__all__ = ["Net", "P", "between", "holds", "images", "masked", "rows", "tokens"]


class Net(nn.Module):
    """Layers by name, and a forward that is given as a function of the network and its inputs."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, *inputs: Tensor, **kwargs: Any) -> Any:
        return self.function(self, *inputs, **kwargs)


class P(nn.Module):
    """A bare parameter, ``net.name.p``."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.randn(*shape))


def between(operation: Callable[[Tensor], Tensor], out: int = 8) -> Net:
    """Put an operation on eight hidden features between two linear layers."""
    return Net(lambda net, x: net.b(operation(net.a(x))), a=nn.Linear(3, 8), b=nn.Linear(out, 2))


def rows(n: int = 2) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1))


def images(n: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, 8, 8, generator=torch.Generator().manual_seed(1))


def tokens(n: int = 2) -> Tensor:
    return torch.randn(n, 5, 8, generator=torch.Generator().manual_seed(1))


def masked(net: nn.Module, graph: AxisGraph, keep: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of the network in which every parameter's slices of the units that go are zero: what a cut must equal."""
    copied = copy.deepcopy(net)
    states = dict(copied.named_parameters())
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                if member.is_parameter:
                    states[member.tensor].index_fill_(member.dim, member.index[~keep[group.name]].reshape(-1), 0.0)
    return copied


def holds(net: nn.Module, x: Tensor, groups: Mapping[str, int], *, masks: bool = True, knows: bool = True) -> AxisGraph:
    """Check the groups that are found, their certificate, and that a smaller network is a masked one.

    Args:
        groups: layer and size of every group that must be offered, and no others; a second one of a layer has any ``#`` behind it.
        masks: no normalisation crosses a group, so that zeroing all slices of a unit is the same as dropping it.
        knows: every operation has a rule, and the trace needs no values.
    """
    randomize(net)
    graph = analyze(net, (x,))
    found = sorted((group.name.partition("#")[0], group.size) for group in graph.groups)
    expected = sorted((name.partition("#")[0], size) for name, size in groups.items())
    assert found == expected, f"{found=}, frozen: {[(f.name, f.reason) for f in graph.frozen]}"
    assert not knows or graph.notes == ()
    assert all(frozen.reason for frozen in graph.frozen)
    certified = certify(net, (x,), graph, tolerance=1e-6)
    assert certified.groups == graph.groups
    keep = {group.name: torch.arange(group.size) % 2 == 0 for group in graph.groups}
    with torch.no_grad():
        small = shrink(net, (x,), graph, keep, prefer="graph").model(x)
        assert torch.isfinite(small).all()
        if masks and groups:
            expected = masked(net, graph, keep)(x)
            assert torch.allclose(small, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    return graph
