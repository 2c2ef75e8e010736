"""Operations on each element by itself, and those that keep every axis."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from graph_cases import Net, P, between, holds, images, rows, tokens

POINTWISE = {
    name: getattr(functional, name)
    for name in (
        [
            "relu",
            "gelu",
            "silu",
            "tanh",
            "relu6",
            "elu",
            "selu",
            "celu",
            "leaky_relu",
            "mish",
            "logsigmoid",
            "softsign",
            "tanhshrink",
            "hardtanh",
            "hardswish",
        ]
    )
} | {
    "abs": torch.abs,
    "clamp": lambda x: x.clamp(-1, 1),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "power": lambda x: x**2,
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "addcmul": lambda x: torch.addcmul(x, x, x),
    "in place": lambda x: x.mul_(2).add_(1),
    "lerp": lambda x: torch.lerp(x, x * 2, 0.3),
    "scalar minus": lambda x: 1 - x,
    "larger of two": lambda x: torch.max(x, -x),
    "dropout": lambda x: functional.dropout(x, 0.5, training=False),
    "one slope for all": lambda x: functional.prelu(x, torch.tensor([0.2])),
    "fake quantisation": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -128, 127),
    "bucket numbers": lambda x: x * torch.bucketize(x, torch.linspace(-1, 1, 5)),
    "nan_to_num": torch.nan_to_num,
    "detour through double": lambda x: x.double().to(x.dtype),
    "ones": lambda x: x * torch.ones_like(x),
    "renorm of rows": lambda x: torch.renorm(x, 2, 0, 1.0),
    "complex product": lambda x: torch.view_as_real(torch.polar(x.abs(), x) * 1j)[..., 0],
}


@pytest.mark.parametrize("name", POINTWISE)
def test_an_elementwise_operation_keeps_its_axes(name):
    holds(between(POINTWISE[name]), rows(), {"a": 8})


NORMALISING = {
    "softmax": lambda x: x.softmax(-1),
    "log softmax": lambda x: x.log_softmax(-1),
    "layer norm without parameters": lambda x: functional.layer_norm(x, x.shape[-1:]),
    "root mean square norm": lambda x: functional.rms_norm(x, x.shape[-1:]),
    "standardised": lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True),
    "logsumexp": lambda x: x - x.logsumexp(-1, keepdim=True),
}


@pytest.mark.parametrize("name", NORMALISING)
def test_a_normalisation_over_an_axis_keeps_it_as_reordering_commutes_with_it(name):
    holds(between(NORMALISING[name]), rows(), {"a": 8}, masks=False)


def test_broadcasting_aligns_from_the_right():
    net = Net(
        lambda net, x: net.b(net.a(x) * net.g.p + net.h.p), a=nn.Linear(8, 6), g=P(6), h=P(5, 1), b=nn.Linear(6, 2)
    )
    graph = holds(net, tokens(), {"a": 6})
    assert {m.tensor for m in graph.group("a").members} == {"a.weight", "a.bias", "g.p", "b.weight"}


def test_a_slope_per_channel_goes_with_its_channel():
    net = Net(lambda net, x: net.b(net.p(net.a(x))), a=nn.Conv2d(3, 8, 1), p=nn.PReLU(8), b=nn.Conv2d(8, 2, 1))
    assert ("p.weight", 0) in {(m.tensor, m.dim) for m in holds(net, images(), {"a": 8}).group("a").members}


def test_a_gate_by_its_own_half_couples_the_halves():
    net = Net(lambda net, x: net.b(functional.glu(net.a(x))), a=nn.Linear(3, 8), b=nn.Linear(4, 2))
    (index,) = [m.index for m in holds(net, rows(), {"a": 4}).group("a").members if m.tensor == "a.bias"]
    assert index.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (lambda x: x * torch.arange(8), "values depend on the position (arange)"),
        (lambda x: x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), "constant"),
        (lambda x: (x[:, :, None] * x[:, None, :]).tril().sum(-1), "triangle (tril)"),
    ],
)
def test_what_depends_on_the_position_freezes_its_axis(operation, why):
    net = between(operation)
    graph = holds(net, rows(), {}, knows=True)
    assert why in next(f.reason for f in graph.frozen if f.name == "a")
