"""Axes are told by what operations do with them."""

from __future__ import annotations

import torch
from torch import nn

from graph_cases import Net, P, tokens
from prunus.graph import analyze


def kinds(net, x):
    return {(group.kind, group.size) for group in analyze(net, (x,)).groups}


def test_attention_has_heads_head_dimensions_a_width_and_an_mlp():
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    net = Net(lambda net, x: net.o(net.m(net.a(x))), a=nn.Linear(8, 12), m=layer, o=nn.Linear(12, 2))
    assert kinds(net, tokens()) == {("head", 3), ("head_dim", 4), ("width", 12), ("mlp", 20)}


def test_a_state_that_goes_round_is_hidden():
    net = Net(lambda net, x: net.o(net.r(x)[0]), r=nn.GRU(8, 6, batch_first=True), o=nn.Linear(6, 2))
    assert kinds(net, tokens()) == {("hidden", 6)}


def test_experts_that_are_weighed_lie_outermost_in_their_tensors():
    def forward(net, x):
        hidden = torch.einsum("btd,edh->ebth", x, net.up.p).relu()
        out = torch.einsum("ebth,ehd->ebtd", hidden, net.down.p)
        return net.o(torch.einsum("bte,ebtd->btd", net.gate(x).softmax(-1), out))

    net = Net(forward, gate=nn.Linear(8, 4), up=P(4, 8, 6), down=P(4, 6, 8), o=nn.Linear(8, 2))
    assert ("expert", 4) in kinds(net, tokens())


def test_convolutions_have_channels_and_residual_ones_a_width():
    def forward(net, x):
        x = net.a(x)
        return net.o((x + net.c(net.b(x).relu())).mean((2, 3)))

    net = Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 5, 1), c=nn.Conv2d(5, 8, 1), o=nn.Linear(8, 2))
    assert kinds(net, torch.randn(2, 3, 4, 4)) == {("width", 8), ("channel", 5)}


def test_an_approximation_that_adds_a_power_of_the_same_thing_is_no_residual():
    def forward(net, x):
        y = net.a(x)
        return net.o(torch.tanh(y + 0.1 * y**3))

    net = Net(forward, a=nn.Linear(8, 6), o=nn.Linear(6, 2))
    assert kinds(net, tokens()) == {("mlp", 6)}
