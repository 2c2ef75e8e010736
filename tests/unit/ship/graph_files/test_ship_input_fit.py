"""A graph is followed on sizes alone before any memory is taken: what doesn't fit, can't be told or takes too much is refused."""

from __future__ import annotations

import dataclasses
import resource

import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.core.errors import BundleError
from prunus.graph import analyze
from prunus.ship.graph_files.graph_file import read_graph
from prunus.ship.graph_files.input_fit import Guard, follow
from prunus.ship.graph_limits import VARIABLE, GraphLimits, times_asked, usual_limits

EIGHT = torch.randn(2, 8, 5)
ONE = torch.ones(1)


def node(name):
    return {"node": name}


def graph_of(*calls, **tensors):
    """Return a graph over an input ``x`` and these tensors; calls are ``(operation, arguments)`` or with a dict of named ones.

    Where the last one makes several tensors, its first is the output.
    """
    if calls[-1][0].startswith(("aten.native_", "aten._weight_norm", "aten.rnn")):
        calls = (*calls, ("operator.getitem", [node(f"n{len(calls) - 1}"), 0]))
    rows = [[name, "buffer", name, [], {}] for name in tensors] + [["x", "input", None, [], {}]]
    rows += [[f"n{i}", "call", call[0], call[1], *(call[2:] or ({},))] for i, call in enumerate(calls)]
    rows += [["out", "output", None, [node(f"n{len(calls) - 1}")], {}]]
    return read_graph({"format": 1, "nodes": rows}, tensors)


def followed(*calls, x=EIGHT, limits=None, **tensors):
    return follow(graph_of(*calls, **tensors), [x], limits)


X = node("x")
RNN = {"hx": torch.zeros(1, 2, 6), "wi": torch.randn(6, 5), "wh": torch.randn(6, 6), "short": torch.randn(1, 5)}
HOSTILE = {
    "too few statistics": (
        [("aten.native_batch_norm.default", [X, None, None, node("s"), node("s"), False, 0.1, 1e-5])],
        {"s": ONE},
        r"running_mean must have the shape \(8,\), got \(1,\)",
    ),
    "too few statistics, in a layer made of others": (
        [("aten.batch_norm.default", [X, None, None, node("s"), node("s"), False, 0.1, 1e-5, False])],
        {"s": ONE},
        r"running_mean must have the shape \(8,\), got \(1,\)",
    ),
    "statistics of another type": (
        [("aten.native_batch_norm.default", [X, None, None, node("s"), node("s"), False, 0.1, 1e-5])],
        {"s": torch.ones(8, dtype=torch.int8)},
        "must be of the input's type torch.float32, got torch.int8",
    ),
    "no statistics": (
        [("aten.native_batch_norm.default", [X, None, None, None, None, False, 0.1, 1e-5])],
        {},
        "running_mean is missing",
    ),
    "an integer as type": (
        [("aten.softmax.int", [X, 1, -1])],
        {},
        r"'dtype' must be of type Optional\[ScalarType\], got int '-1'",
    ),
    "another integer as type": (
        [("aten.to.dtype", [X, 1000])],
        {},
        "'dtype' must be of type ScalarType, got int '1000'",
    ),
    "nothing as a tensor": ([("aten.relu.default", [None])], {}, "'self' must be of type Tensor, got NoneType"),
    "a size as a tensor": ([("aten.sym_size.int", [X, 0]), ("aten.t.default", [node("n0")])], {}, "stands for number"),
    "several tensors as one": (
        [("aten.split.Tensor", [X, 2]), ("aten.relu.default", [node("n0")])],
        {},
        "stands for tensors",
    ),
    "a truth as a size": ([("aten.zeros.default", [[True]])], {}, r"'size' must be of type List\[int\]"),
    "pinned memory": ([("aten.zeros.default", [[2]], {"pin_memory": True})], {}, "'pin_memory' can't be true"),
    "sizes out of values": ([("aten.nonzero.default", [X])], {}, "no operation that a graph may name"),
    "sizes out of truths": (
        [("aten.gt.Scalar", [X, 0]), ("aten.index.Tensor", [X, [node("n0")]])],
        {},
        "node 'n1', aten.index.Tensor: .* can't be told without values|node 'n1', aten.index.Tensor: it doesn't run",
    ),
    "a tensor that changes its sizes": (
        [("aten.t_.default", [node("s")])],
        {"s": torch.ones(2, 3)},
        "no operation that a graph may name",
    ),
    "another look at memory": (
        [("aten._reshape_alias.default", [X, [9], [1]])],
        {},
        "no operation that a graph may name",
    ),
    "a factor too few": (
        [("aten._weight_norm_interface.default", [X, node("s"), 0])],
        {"s": ONE},
        r"g must be of v's type and of shape \(2, 1, 1\)",
    ),
    "the least integer by -1": (
        [("aten.div.Tensor_mode", [node("s"), node("s")], {"rounding_mode": "trunc"})],
        {"s": torch.tensor([-(2**63)])},
        "integers can be divided by a number other than 0 and -1 only",
    ),
    "a scale that leads elsewhere": (
        [("aten._upsample_bilinear2d_aa.default", [node("s"), [8, 8], False, 1e-7, 1e-7])],
        {"s": torch.ones(1, 1, 4, 4)},
        "scales_h must lead from 4 to 8",
    ),
    "a spectrum's last length": (
        [("aten._fft_c2r.default", [node("s"), [1], 0, 4000])],
        {"s": torch.ones(2, 4, dtype=torch.complex64)},
        "last_dim_size must fit the 4 values",
    ),
    "a spectrum along a dimension from the end": (
        [("aten._fft_c2r.default", [node("s"), [-2], 0, 2])],
        {"s": torch.ones(2, 2, dtype=torch.complex64)},
        "dim must name different dimensions",
    ),
    "a short weight of a recurrence": (
        [("aten.rnn_tanh.input", [X, node("hx"), [node("short"), node("wh")], False, 1, 0.0, False, False, True])],
        RNN,
        r"a parameter of layer 0 must have the shape \(6, 5\), got \(1, 5\)",
    ),
    "a sum along no dimension": ([("aten.nansum.default", [X, []])], {}, "dim must name a dimension, got none"),
    "groups of channels": (
        [("aten.native_group_norm.default", [X, None, None, 2, 8, 5000, 2, 1e-5])],
        {},
        "N, C and HxW must be those of its input",
    ),
    "a mask of another type": (
        [("aten.scaled_dot_product_attention.default", [X, X, X, node("s")])],
        {"s": torch.ones(8, 8, dtype=torch.float64)},
        "attn_mask must be of bool or the query's type",
    ),
    "a number that grows": (
        [("operator.mul", [2**30, 2**30]), ("aten.zeros.default", [[node("n0")]])],
        {},
        "sizes of at most 2147483648 were expected, got one of 61 bits",
    ),
    "more pieces than memory": (
        [
            ("aten.expand.default", [node("s"), [2**31]]),
            ("aten.unbind.int", [node("n0")]),
            ("operator.getitem", [node("n1"), 0]),
        ],
        {"s": ONE},
        "a tensor is split into at most 16384, got 2147483648",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_call_that_would_crash_or_read_elsewhere_is_refused_before_it_runs(name):
    calls, tensors, words = HOSTILE[name]
    with pytest.raises(BundleError, match=words) as caught:
        followed(*calls, **tensors)
    assert "\n" not in str(caught.value)


def test_a_graph_that_fits_is_followed_to_its_sizes_and_its_cost():
    calls = ("aten.mm.default", [X, node("w")]), ("aten.relu.default", [node("n0")])
    outputs, cost = followed(*calls, x=torch.randn(2, 5), w=torch.randn(5, 7))
    assert [tuple(value.shape) for value in outputs] == [(2, 7)]
    assert outputs[0].is_meta
    # Two for each of 2 x 5 x 7 products; what is read or written counts 16 times: operands and result, then one in, one out.
    assert cost.arithmetic == 2 * 70 + 16 * (10 + 35 + 14) + 16 * (14 + 14)
    assert cost.tensor_bytes == 2 * 7 * 4
    assert cost.n_nodes == 5


LARGE = ("aten.zeros.default", [[2, 1000]])
LIMITS = {
    "n_nodes": (GraphLimits(n_nodes=2), [LARGE], "at most 2 nodes"),
    "tensor_bytes": (
        GraphLimits(tensor_bytes=7999),
        [LARGE],
        "node 'n0', aten.zeros.default: tensors of at most 7999 bytes were expected, got 8000",
    ),
    "live_bytes": (
        GraphLimits(live_bytes=20_000),
        [LARGE, LARGE, ("aten.add.Tensor", [node("n0"), node("n1")])],
        "node 'n2', aten.add.Tensor: at most 20000 bytes at once",
    ),
    "arithmetic": (GraphLimits(arithmetic_per_example=100), [LARGE], "at most 200 operations of arithmetic"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds_before_anything_is_allocated_and_can_be_raised(name):
    limits, calls, words = LIMITS[name]
    with pytest.raises(BundleError, match=words):
        followed(*calls, limits=limits)
    followed(*calls)


def test_what_nobody_needs_any_more_takes_no_memory():
    chain = [LARGE] + [("aten.add.Scalar", [node(f"n{i}"), 1]) for i in range(20)]
    _, cost = followed(*chain, limits=GraphLimits(live_bytes=20_000))
    assert cost.live_bytes <= 2 * 8000 + EIGHT.numel() * 4


def test_an_absurd_amount_of_work_on_little_memory_is_refused_without_doing_it():
    wide = [("aten.expand.default", [node("s"), [2**15, 2**15]]), ("aten.sort.stable", [node("n0")], {"stable": True})]
    sums = [("aten.expand.default", [node("s"), [2**31, 2**31]]), ("aten.sum.default", [node("n0")])]
    for calls in ([*wide, ("operator.getitem", [node("n1"), 0])], sums):
        with pytest.raises(BundleError, match=r"of arithmetic|bytes were expected"):
            followed(*calls, s=ONE)


class Turned(nn.Module):
    """Takes the examples for channels."""

    calls = (
        ("aten.transpose.int", [X, 0, 1]),
        ("aten.native_batch_norm.default", [node("n0"), None, None, node("s"), node("s"), False, 0.1, 1e-5]),
        ("operator.getitem", [node("n1"), 0]),
        ("aten.transpose.int", [node("n2"), 0, 1]),
    )


def test_sizes_are_checked_again_for_inputs_of_another_shape():
    graph = graph_of(*Turned.calls, s=torch.ones(2))
    graph.guard = guard = Guard()
    assert graph(torch.randn(2, 8, 5)).shape == (2, 8, 5)
    for x in (torch.randn(300, 8, 5), torch.randn(2, 8, 5, dtype=torch.float64)):
        with pytest.raises(
            BundleError,
            match=r"can't run on inputs of shape \[\d+, 8, 5\]: node 'n1', aten.native_batch_norm.default: .* fewer",
        ):
            graph(x)
    assert len(guard.seen) == 1, "a shape that was seen isn't followed again"


class Marked(torch.Tensor):
    """A tensor of a class of its own, as other libraries have."""


def test_an_input_of_another_class_is_looked_at_too():
    graph = graph_of(*Turned.calls, s=torch.ones(2))
    graph.guard = Guard()
    with pytest.raises(BundleError, match="running_mean must have the shape"):
        graph(torch.randn(300, 8, 5).as_subclass(Marked))


def test_sizes_are_checked_again_when_the_models_own_have_changed():
    graph = graph_of(*Turned.calls, s=torch.ones(2))
    graph.guard = Guard()
    graph(torch.randn(2, 8, 5))
    graph.s = torch.ones(1)
    with pytest.raises(BundleError, match="running_mean must have the shape"):
        graph(torch.randn(2, 8, 5))


def test_what_only_values_decide_ends_in_one_line(capfd):
    graph = graph_of(
        ("aten.embedding.default", [node("w"), node("places")]), w=torch.ones(3, 4), places=torch.tensor([0, 7])
    )
    graph.guard = Guard()
    with pytest.raises(
        BundleError, match=r"^the bundle's graph fails on inputs of shape \[2\]: IndexError: index out of range[^\n]*$"
    ):
        graph(torch.randn(2))
    assert capfd.readouterr().err == ""


def test_what_is_pruned_again_stays_guarded():
    calls = [
        ("aten.linear.default", [X, node("one"), None]),
        ("aten.relu.default", [node("n0")]),
        ("aten.linear.default", [node("n1"), node("two"), None]),
    ]
    graph = graph_of(*calls, one=torch.randn(6, 5), two=torch.randn(3, 6))
    graph.guard = Guard(GraphLimits(arithmetic_per_example=1e6))
    inputs = (torch.randn(2, 5),)
    found = analyze(graph, inputs)
    keep = {group.name: torch.arange(group.size) % 2 == 0 for group in found.groups}
    for prefer in ("eager", "graph"):
        smaller = shrink(graph, inputs, found, keep, prefer=prefer).model
        smaller.guard.limits = GraphLimits(arithmetic_per_example=1)
        smaller.guard.seen.clear()
        with pytest.raises(BundleError, match="operations of arithmetic"):
            smaller(torch.randn(2, 5))


def test_a_guard_leaves_no_trace_where_a_graph_is_traced_or_recorded():
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = graph_of(("aten.relu.default", [X]))
    graph.guard = Guard()
    traced = make_fx(graph)(torch.randn(2, 3))
    assert [n.target for n in traced.graph.nodes if n.op == "call_function"] == [torch.ops.aten.relu.default]


def test_a_tensor_made_of_numbers_is_not_made_while_it_is_followed():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, cost = followed(
        ("aten.full.default", [[2, 2**28], 1.0]), limits=GraphLimits(tensor_bytes=2**40, live_bytes=2**40)
    )
    assert cost.tensor_bytes == 2**31
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19, "kilobytes"


@pytest.mark.parametrize(
    "call", [("aten.add.Tensor", [1, 2]), ("aten.div_.Scalar", [0.5, 0.5]), ("aten.relu_.default", [1.0])]
)
def test_numbers_alone_make_no_tensor(call):
    with pytest.raises(BundleError, match="'self' must be of type Tensor, got"):
        followed(call)


@pytest.mark.parametrize("target", ["aten.empty.memory_format", "aten.zeros.default"])
def test_memory_is_never_handed_out_as_it_lies_there(target):
    graph = graph_of((target, [[2, 3]]))
    assert torch.equal(graph(torch.randn(2)), torch.zeros(2, 3))
    like = graph_of(("aten.empty_like.default", [X]))
    assert torch.equal(like(torch.randn(2)), torch.zeros(2))


def test_one_variable_raises_every_limit_and_refusals_name_it(monkeypatch):
    plain = GraphLimits()
    assert usual_limits() == plain
    graph = [("aten.zeros.default", [[3, 2**29]])]
    with pytest.raises(BundleError, match=f"tensors of at most 4294967296 bytes .* set {VARIABLE}=2 or more") as caught:
        followed(*graph)
    assert str(caught.value).count(VARIABLE) == 1
    monkeypatch.setenv(VARIABLE, "3")
    assert usual_limits() == GraphLimits(*(3 * value for value in dataclasses.astuple(plain)))
    followed(*graph)
    assert Guard().limits == usual_limits()
    for wrong in ("0", "-1", "two", "1.5", "9" * 5000):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(BundleError, match=f"{VARIABLE} must be a whole number from 1 to 1000000"):
            times_asked()
