"""Views and copies that refine, reorder, join and cut axes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from graph_cases import Net, P, between, holds, images, rows, tokens


def written(x):
    y = torch.zeros(x.shape[0], 8, dtype=x.dtype)
    y[:, :4] = x[:, 4:]
    y[:, 4:] = x[:, :4]
    return y


def turned(x):
    return torch.view_as_real(torch.view_as_complex(x.view(-1, 4, 2)) * 1j).flatten(1)


SHAPES = {
    "there and back": (lambda x: x.view(-1, 2, 4).transpose(1, 2).transpose(1, 2).flatten(1), {"a": 2, "a#2": 4}),
    "shuffle": (lambda x: x.view(-1, 2, 4).transpose(1, 2).reshape(-1, 8), {"a": 2, "a#2": 4}),
    "two readings": (lambda x: (x.view(-1, 2, 4) * 2).reshape(-1, 4, 2).flatten(1), {"a": 2, "a#2": 2, "a#3": 2}),
    "halves swapped": (lambda x: torch.cat(x.chunk(2, -1)[::-1], -1), {"a": 4, "a#2": 4}),
    "halves added to themselves": (lambda x: torch.cat([x[:, :4] + x[:, 4:]] * 2, 1), {"a": 4}),
    "uneven parts": (lambda x: torch.cat([x[:, 5:], x[:, :5]], 1), {"a": 5, "a#2": 3}),
    "split in three": (lambda x: torch.cat(x.split([1, 2, 5], 1)[::-1], 1), {"a": 2, "a#2": 5}),
    "rotated halves": (lambda x: x + torch.cat([-x[:, 4:], x[:, :4]], 1), {"a": 4}),
    "zero part": (lambda x: torch.cat([x[:, :4], torch.zeros(x.shape[0], 4, dtype=x.dtype)], 1), {"a": 4, "a#2": 4, "b#2": 4}),
    "padding": (lambda x: functional.pad(x[:, :6], (1, 1)), {"a": 6, "a#2": 2}),
    "stack and sum": (lambda x: torch.stack([x, x * 2], -1).sum(-1), {"a": 8}),
    "stack, then flatten": (lambda x: torch.stack([x[:, :4], x[:, 4:]], -1).flatten(1), {"a": 4}),
    "taken apart": (lambda x: torch.stack(x.view(-1, 2, 4).unbind(1), 1).flatten(1), {"a#2": 4}),
    "expanded": (lambda x: x[:, :, None].expand(-1, -1, 3).mean(-1), {"a": 8}),
    "outer product with itself": (lambda x: (x[:, :, None] * x[:, None, :]).sum(-1), {"a": 8}),
    "diagonal": (lambda x: torch.diagonal(x[:, :, None] * x[:, None, :], dim1=1, dim2=2), {"a": 8}),
    "on a diagonal": (lambda x: torch.diag_embed(x).sum(-1), {"a": 8}),
    "repeated": (lambda x: x.repeat(1, 2).view(-1, 2, 8).mean(1), {"a": 8}),
    "entries repeated": (lambda x: x.repeat_interleave(2, 1).view(-1, 8, 2).mean(2), {"a": 8}),
    "transposed": (lambda x: x.T.swapaxes(0, 1), {"a": 8}),
    "squeezed": (lambda x: x[:, None, :, None].squeeze(), {"a": 8}),
    "written in place": (written, {"a": 4, "a#2": 4}),
    "every second": (lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1), {"a": 4}),
    "rolled over the batch": (lambda x: x.roll(1, 0), {"a": 8}),
    "as pairs of real and imaginary": (turned, {"a": 4}),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_change_of_shape_refines_its_axes(name):
    operation, groups = SHAPES[name]
    holds(between(operation), rows(), groups)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (lambda x: x.flip(-1), "order matters (flip)"),
        (lambda x: x.roll(1, 1), "order matters (roll)"),
        (lambda x: x * x[:, 0, None], "one entry of it is picked (select)"),
        (lambda x: torch.diagonal(x[:, :, None] * x[:, None, :], 1, 1, 2).repeat(1, 8)[:, :8], "diagonal"),
    ],
)
def test_what_cuts_across_or_depends_on_the_order_freezes(operation, why):
    net = between(operation)
    assert any(why in frozen.reason for frozen in holds(net, rows(), {}).frozen)


def test_a_fused_projection_read_as_a_grid_couples_its_parts():
    net = Net(
        lambda net, x: net.b(torch.cat(net.a(x).view(-1, 3, 4).unbind(1)[1:], 1)), a=nn.Linear(3, 12), b=nn.Linear(8, 2)
    )
    graph = holds(net, rows(), {"a#2": 4})
    (index,) = [m.index for m in graph.group("a").members if m.tensor == "a.bias"]
    assert index.tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]


def test_pixels_that_are_dealt_into_windows_and_into_a_grid_leave_the_channels_free():
    def forward(net, x):
        y = net.a(x)  # 8 x 8 pixels: eight is two windows of four, then four columns of two
        y = y.view(-1, 8, 2, 4, 2, 4).mul(2).reshape(-1, 8, 8, 8)
        y = y.view(-1, 8, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 8)
        return net.c(net.b(y))

    net = Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Linear(8, 6), c=nn.Linear(6, 2))
    holds(net, images(), {"a": 8, "b": 6})


def test_an_uneven_concatenation_can_be_read_as_rows_and_columns():
    def forward(net, x):
        both = torch.cat([net.a(x), net.c(x)], 1)
        return net.b(both.view(-1, 6, 2).transpose(1, 2).flatten(1))

    net = Net(forward, a=nn.Linear(3, 8), c=nn.Linear(3, 4), b=nn.Linear(12, 2))
    holds(net, rows(), {"a": 4, "a#2": 2, "c": 2})


def test_rows_that_lie_across_parts_cut_the_parts():
    def forward(net, x):
        both = torch.cat([net.a(x), net.c(x)], 1)
        return net.b(both.view(-1, 2, 6).sum(1))

    net = Net(forward, a=nn.Linear(3, 8), c=nn.Linear(3, 4), b=nn.Linear(6, 2))
    graph = holds(net, rows(), {"a": 2, "a#2": 4})
    index = {g.name: m.index.tolist() for g in graph.groups for m in g.members if m.tensor == "b.weight"}
    assert index == {"a": [[0], [1]], "a#2": [[2], [3], [4], [5]]}


def test_a_shortcut_that_pads_channels_couples_what_it_adds_to():
    def forward(net, x):
        y = net.a(x)
        return net.c(net.d(y) + functional.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))

    net = Net(forward, a=nn.Conv2d(3, 8, 1), d=nn.Conv2d(8, 16, 3, 2, 1), c=nn.Conv2d(16, 2, 1))
    graph = holds(net, images(), {"a": 8})
    assert any("padding" in frozen.reason for frozen in graph.frozen)


def test_a_class_token_and_positions_go_with_the_width():
    def forward(net, x):
        y = torch.cat([net.c.p.expand(x.shape[0], -1, -1), net.a(x)], 1) + net.p.p
        return net.o(y[:, 0])

    net = Net(forward, a=nn.Linear(8, 6), c=P(1, 1, 6), p=P(1, 6, 6), o=nn.Linear(6, 2))
    graph = holds(net, tokens(), {"a": 6})
    assert {m.tensor for m in graph.group("a").members} == {"c.p", "p.p", "a.weight", "a.bias", "o.weight"}


def test_windows_merge_and_split_positions_and_leave_channels_alone():
    def forward(net, x):
        y = net.a(x).permute(0, 2, 3, 1)
        y = torch.cat([y[:, 0::2, 0::2], y[:, 1::2, 0::2], y[:, 0::2, 1::2], y[:, 1::2, 1::2]], -1)
        n, _, _, c = y.shape
        return net.c(y.view(n, 2, 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c))

    net = Net(forward, a=nn.Conv2d(3, 8, 1), c=nn.Linear(32, 2))
    graph = holds(net, images(), {"a": 8})
    (index,) = [m.index for m in graph.group("a").members if m.tensor == "c.weight"]
    assert index[1].tolist() == [1, 9, 17, 25]
