"""The traced computation takes other batches and other precisions than those of the trace."""

from __future__ import annotations

import copy
import operator

import pytest
import torch
from torch import nn
from torch.nn import functional

from graph_cases import Net
from prunus.apply import shrink
from prunus.graph import analyze


def masked_attention(net, x):
    """Causal attention whose mask is made from counted positions and counted examples, as decoders do."""
    n, length, _ = x.shape
    places, examples = torch.arange(length), torch.arange(n)
    allowed = (places[None, :] <= places[:, None])[None, None] & (examples >= 0)[:, None, None, None]
    mask = allowed.expand(n, 1, length, length)
    q, k, v = (part(x).view(n, length, 2, 4).transpose(1, 2) for part in (net.q, net.k, net.v))
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return net.o(y.transpose(1, 2).reshape(n, length, -1))


def tokens(n=2):
    """Return sequences that are long enough for the fused kernel."""
    return torch.randn(n, 12, 8, generator=torch.Generator().manual_seed(1))


def make():
    torch.manual_seed(0)
    return Net(masked_attention, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8), o=nn.Linear(8, 2))


def as_graph(net):
    return shrink(net, (tokens(),), analyze(net, (tokens(),)), {}, prefer="graph").model


def test_counted_examples_follow_the_batch():
    net = make()
    torch.testing.assert_close(as_graph(net)(tokens(5)), net(tokens(5)))


def test_a_mask_made_in_single_precision_is_read_right_in_double():
    net = make()
    graph = copy.deepcopy(as_graph(net)).double()
    torch.testing.assert_close(graph(tokens().double()), net.double()(tokens().double()), rtol=1e-9, atol=1e-9)


def test_counted_examples_that_start_elsewhere_follow_too():
    def forward(net, x):
        return net.b(net.a(x) + torch.arange(1, x.shape[0] + 1)[:, None])

    net = Net(forward, a=nn.Linear(3, 8), b=nn.Linear(8, 2))
    x = torch.randn(2, 3)
    graph = shrink(net, (x,), analyze(net, (x,)), {}, prefer="graph").model
    more = torch.randn(4, 3)
    torch.testing.assert_close(graph(more), net(more))


@pytest.mark.parametrize(
    ("layer", "options"), [(nn.LSTM, {"proj_size": 3}), (nn.GRU, {"bidirectional": True}), (nn.RNN, {"num_layers": 2})]
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_recurrent_layer_is_one_operation_that_takes_every_length(layer, options):
    torch.manual_seed(0)
    made = layer(8, 6, batch_first=True, **options)
    width = made(tokens())[0].shape[-1]
    net = Net(lambda net, x: net.o(net.r(x)[0]), r=made, o=nn.Linear(width, 2))
    graph = as_graph(net)
    longer = torch.randn(3, 40, 8)
    torch.testing.assert_close(graph(longer), net(longer))
    double = copy.deepcopy(graph).double()
    torch.testing.assert_close(double(longer.double()), net.double()(longer.double()), rtol=1e-9, atol=1e-9)
    assert sum(node.op == "call_function" for node in graph.graph_module.graph.nodes) < 30


def test_packed_sequences_keep_their_own_operations():
    def forward(net, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([12, 7]), batch_first=True)
        return net.o(net.r(packed)[1][-1])

    net = Net(forward, r=nn.GRU(8, 6, batch_first=True), o=nn.Linear(6, 2))
    assert [group.size for group in analyze(net, (tokens(),)).groups] == [6]


KERNELS = {
    "_scaled_dot_product_efficient_attention": lambda q, k, v, mask: (q, k, v, mask, False, 0.0, False),
    "_scaled_dot_product_cudnn_attention": lambda q, k, v, mask: (q, k, v, mask, False, 0.0, False, False),
    "_scaled_dot_product_flash_attention": lambda q, k, v, mask: (q, k, v, 0.0, True, False),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_only_a_gpu_has_gives_way_to_one_that_runs_anywhere(name):
    """As if it had been traced there: the operation is exchanged in a trace of the processor."""
    net = make()
    graph = analyze(net, (tokens(),))
    traced = graph.solution.solver.trace.graph_module.graph
    (node,) = [n for n in traced.nodes if "scaled_dot_product" in str(n.target)]
    mask = node.kwargs["attn_mask"]
    node.target = getattr(torch.ops.aten, name).default
    node.args, node.kwargs = KERNELS[name](*node.args[:3], mask), {}
    with traced.inserting_after(node):
        for place in (1, 2, 3):
            traced.call_function(operator.getitem, (node, place))
    small = shrink(net, (tokens(),), graph, {}, prefer="graph").model
    torch.testing.assert_close(small(tokens()), net(tokens()))
