"""Operations that drop, order, count, look up and write."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from graph_cases import Net, between, holds, rows
from prunus.graph import analyze
from prunus.graph.rules.index import _place
from prunus.graph.solver.axes import leaves
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.trace import trace

SYMMETRIC = {
    "mean": lambda x: x - x.mean(-1, keepdim=True),
    "largest": lambda x: x - x.amax(-1, keepdim=True),
    "largest of a dimension": lambda x: x - x.max(-1, keepdim=True).values,
    "smallest of all": lambda x: x - x.min(),
    "median": lambda x: x - x.median(-1, keepdim=True).values,
    "variance and mean": lambda x: x * torch.var_mean(x, -1)[0][:, None],
    "norm": lambda x: x / x.norm(dim=-1, keepdim=True),
    "product": lambda x: x * x.prod(-1, keepdim=True),
    "how many": lambda x: x * (x > 0).sum(-1, keepdim=True),
    "any": lambda x: x * (x > 0).any(-1, keepdim=True),
    "range": lambda x: x - torch.aminmax(x, dim=-1, keepdim=True)[0],
    "histogram": lambda x: x + torch.histc(x).sum(),
    "running sum over the batch": lambda x: x.cumsum(0),
    "rows looked up": lambda x: x.index_select(0, torch.tensor([1, 0])),
    "rows by index": lambda x: x[torch.tensor([1, 0])],
    "rows written": lambda x: x.new_zeros(3, 8).index_put((torch.tensor([0, 2]),), x)[::2],
    "rows added": lambda x: x.new_zeros(3, 8).index_add(0, torch.tensor([0, 1]), x)[:2],
    "Fourier over the batch": lambda x: torch.fft.fft(x, dim=0).real,
    "neighbours summed": lambda x: torch.zeros_like(x).scatter_add(0, TO[:, None].expand(-1, 8), x),
    "largest of the neighbours": lambda x: torch.zeros_like(x).scatter_reduce(0, TO[:, None].expand(-1, 8), x, "amax"),
    "neighbours summed in place": lambda x: x.new_zeros(5, 8).scatter_add_(0, TO[:, None].expand(-1, 8), x)[:2],
    "neighbours weighted": lambda x: weighted_by_neighbours(x),
    "rows written over": lambda x: torch.zeros_like(x).scatter(0, TO[:, None].expand(-1, 8), x),
    "rows set": lambda x: x.scatter(0, TO[:, None].expand(-1, 8), 2.0),
    "rows multiplied": lambda x: multiplied(x),
    "rows filled": lambda x: x.index_fill(0, TO[:1], 1.0),
    "rows copied": lambda x: x.new_zeros(3, 8).index_copy(0, TO + 1, x)[1:],
    "columns of a middle dimension": lambda x: middle(x)[:, 0],
    "rows under a mask": lambda x: x.index_put((torch.tensor([True, False]),), x[:1] * 2),
    "stretches of rows": lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([1, 1])),
    "entries added by their own numbers": lambda x: x.new_zeros(2, 8).scatter_add(0, (x * 0).long(), x),
}
TO = torch.tensor([1, 0])


def weighted_by_neighbours(x):
    """A softmax over the neighbours of each node, as graph attention has it."""
    numbers = TO[:, None].expand(-1, 8)
    largest = torch.zeros_like(x).scatter_reduce(0, numbers, x, "amax", include_self=False)
    weights = (x - largest.index_select(0, TO)).exp()
    total = torch.zeros_like(x).scatter_add(0, numbers, weights).index_select(0, TO)
    return x.new_zeros(2, 8).index_add(0, TO, x * weights / total)


def multiplied(x):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "index_reduce.. is in beta")
        return x.index_reduce(0, TO, x, "prod")


def middle(x):
    many = x[:, None].expand(-1, 3, -1).clone()
    many[:, torch.tensor([0, 2])] = x[:, None] * 2
    return many


@pytest.mark.parametrize("name", SYMMETRIC)
def test_what_does_not_depend_on_the_order_keeps_its_axis(name):
    holds(between(SYMMETRIC[name]), rows(), {"a": 8}, masks=False)


ORDERED = {
    "running sum": lambda x: x.cumsum(-1),
    "sorted": lambda x: x.sort(-1).values,
    "best four": lambda x: torch.cat([x.topk(4, -1).values] * 2, -1),
    "where the largest is": lambda x: x * x.argmax(-1, keepdim=True),
    "the largest and where it is": lambda x: x * x.max(-1, keepdim=True).indices,
    "one-hot": lambda x: x * functional.one_hot(x.argmax(-1), 8),
    "columns looked up": lambda x: x[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])],
    "gathered": lambda x: x.gather(1, torch.zeros(2, 8, dtype=torch.long)),
    "scattered": lambda x: torch.zeros_like(x).scatter(1, torch.arange(8).expand(2, 8), x),
    "summed by number": lambda x: torch.zeros_like(x).scatter_add(1, torch.arange(8).expand(2, 8), x),
    "the first ones summed": lambda x: x.scatter_add(0, torch.zeros(1, 4, dtype=torch.long), x),
    "columns added": lambda x: x.index_add(1, torch.tensor([3, 1]), x[:, :1].expand(-1, 2)),
    "written in order": lambda x: x.masked_scatter(x > 0, x.flatten()),
    "Fourier": lambda x: torch.fft.fft(x).real,
    "neighbours": lambda x: functional.local_response_norm(x[:, :, None], 3)[:, :, 0],
}


@pytest.mark.parametrize("name", ORDERED)
def test_what_depends_on_the_order_freezes_its_axis_and_says_why(name):
    net = between(ORDERED[name])
    graph = holds(net, rows(), {}, masks=False)
    (reason,) = {frozen.reason for frozen in graph.frozen if frozen.name == "a"}
    assert "(" in reason  # the operation is named


def test_a_cross_product_freezes_its_coordinates_and_spares_what_it_does_not_read():
    net = between(lambda x: torch.linalg.cross(x[:, :3], x[:, 3:6]).repeat(1, 3)[:, :8])
    graph = holds(net, rows(), {"a": 2}, masks=False)
    assert {f.reason for f in graph.frozen if f.name == "a#2"} == {"its entries are coordinates (linalg_cross)"}


def test_an_embedding_loses_columns_and_keeps_rows():
    net = Net(lambda net, x: net.b(net.a(x)), a=nn.Embedding(10, 6), b=nn.Linear(6, 2))
    graph = holds(net, torch.randint(0, 10, (2, 4)), {"a": 6})
    assert any("rows are looked up" in frozen.reason for frozen in graph.frozen)


def test_a_bag_of_embeddings_loses_columns():
    net = Net(lambda net, x: net.b(net.a(x)), a=nn.EmbeddingBag(10, 6), b=nn.Linear(6, 2))
    holds(net, torch.randint(0, 10, (2, 4)), {"a": 6})


def test_an_embedding_that_is_also_the_head_loses_columns_once():
    net = Net(lambda net, x: net.b(net.a(x)) @ net.a.weight.T, a=nn.Embedding(10, 6), b=nn.Linear(6, 6))
    (group,) = holds_all(net).groups
    assert {(m.tensor, m.dim) for m in group.members} >= {("a.weight", 1), ("b.weight", 0), ("b.weight", 1)}


def holds_all(net):
    x = torch.randint(0, 10, (2, 4))
    return holds(net, x, {group.name: group.size for group in analyze(net, (x,)).groups})


def test_a_mask_in_an_index_stands_for_all_of_its_dimensions():
    net = between(lambda x: x * x[x > 0].mean())
    graph = holds(net, rows(), {}, knows=False)
    assert any("looked up by number" in frozen.reason for frozen in graph.frozen)


def test_a_call_that_its_rule_cannot_read_costs_axes_and_never_the_analysis(monkeypatch):
    from prunus.graph.solver import solve

    def broken(call):
        raise KeyError("gone")

    monkeypatch.setitem(solve.RULES, "_softmax", broken)
    graph = holds(between(lambda x: x.softmax(-1)), rows(), {}, knows=False)
    assert "can't read one of its calls" in graph.notes[0]


@pytest.mark.parametrize(
    ("numbers", "same"),
    [(lambda: torch.arange(3), True), (lambda: torch.arange(0, 3), True), (lambda: torch.arange(-1, 2), False)],
    ids=["every entry", "every entry, from zero", "turned round"],
)
def test_looking_up_every_entry_in_order_is_the_same_dimension(numbers, same):
    solver = Solver(trace(Net(lambda net, x: x[numbers()]), (torch.randn(3, 5),)))
    solver.solve()
    given, *_, result = solver.trace.graph_module.graph.nodes
    (made,) = torch.utils._pytree.tree_leaves(result.args)
    assert (list(leaves(solver.axes(given)[0])) == list(leaves(solver.axes(made)[0]))) == same


@pytest.mark.parametrize("looked", [c for n in range(1, 4) for c in itertools.combinations(range(4), n)])
def test_what_is_looked_up_lies_where_torch_puts_it(looked):
    numbers = [torch.zeros(11, dtype=torch.int64) if dim in looked else slice(None) for dim in range(4)]
    assert torch.zeros(2, 3, 5, 7)[tuple(numbers)].shape.index(11) == _place(looked)
