"""Matrix products, convolutions, attention and recurrent layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from graph_cases import Net, P, between, holds, images, rows, tokens

PRODUCTS = {
    "gram matrix": lambda x: (x @ x.T) @ x,
    "einsum": lambda x: torch.einsum("bi,ci->bc", x, x) @ x,
    "tensordot": lambda x: torch.tensordot(x, x, dims=([1], [1])) @ x,
    "batched": lambda x: (x[:, None, :] @ x[:, :, None]).flatten(1) * x,
    "dot": lambda x: x * torch.dot(x[0], x[1]),
    "cosine": lambda x: x * functional.cosine_similarity(x, x * 2, dim=-1)[:, None],
    "distances": lambda x: x * torch.cdist(x, x).sum(),
    "outer": lambda x: x + torch.outer(x.sum(1), x[0]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_contracted_dimensions_are_one_axis(name):
    holds(between(PRODUCTS[name]), rows(), {"a": 8})


def test_a_bilinear_layer_has_an_axis_for_each_operand_and_its_result():
    net = Net(
        lambda net, x: net.b(net.e(net.a(x), net.d(x))),
        a=nn.Linear(3, 6),
        d=nn.Linear(3, 5),
        e=nn.Bilinear(6, 5, 7),
        b=nn.Linear(7, 2),
    )
    holds(net, rows(), {"a": 6, "d": 5, "e": 7})


CONVOLUTIONS = {
    "plain": (nn.Conv2d(8, 6, 3), 6, {"a": 8, "m": 6}),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), 8, {"a": 8}),
    "depthwise, two for each": (nn.Conv2d(8, 16, 3, groups=8), 16, {"a": 8, "m": 2}),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), 12, {"a": 4, "a#2": 2, "m": 3}),
    "transposed": (nn.ConvTranspose2d(8, 6, 2, 2), 6, {"a": 8, "m": 6}),
    "transposed, grouped": (nn.ConvTranspose2d(8, 12, 2, 2, groups=4), 12, {"a": 4, "a#2": 2, "m": 3}),
    "transposed, depthwise": (nn.ConvTranspose2d(8, 8, 2, 2, groups=8), 8, {"a": 8}),
    "dilated without bias": (nn.Conv2d(8, 6, 3, dilation=2, bias=False), 6, {"a": 8, "m": 6}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_contracts_its_channels_group_by_group(name):
    middle, width, groups = CONVOLUTIONS[name]
    net = Net(lambda net, x: net.b(net.m(net.a(x))), a=nn.Conv2d(3, 8, 3), m=middle, b=nn.Conv2d(width, 2, 1))
    holds(net, images(), groups)


@pytest.mark.parametrize(("kernel", "groups"), [(1, {"a": 5, "m": 4}), (3, {"m": 4})])
def test_units_that_a_convolution_reads_as_positions_stay_where_its_kernel_spans_them(kernel, groups):
    def forward(net, x):
        weights = net.a(x).flatten(2).softmax(dim=-1)  # n, 5, positions
        hidden = net.m(x.flatten(2) @ weights.transpose(1, 2))  # n, 4, 5
        return net.b(hidden @ weights)

    net = Net(forward, a=nn.Conv2d(3, 5, 1), m=nn.Conv1d(3, 4, kernel, padding=kernel // 2), b=nn.Conv1d(4, 2, 1))
    holds(net, images(), groups, masks=False)


def test_two_groupings_of_one_axis_meet_in_a_common_refinement():
    net = Net(
        lambda net, x: net.c(net.d(net.b(net.a(x)))),
        a=nn.Conv2d(3, 8, 1),
        b=nn.Conv2d(8, 12, 1, groups=2),
        d=nn.Conv2d(12, 12, 1, groups=4),
        c=nn.Conv2d(12, 2, 1),
    )
    holds(net, images(), {"a": 2, "a#2": 4, "b": 2, "b#2": 3, "d": 3})


def test_groups_over_a_concatenation_fit_when_its_parts_are_whole_rows():
    net = Net(
        lambda net, x: net.c(net.b(torch.cat([net.a(x), net.d(x)], 1))),
        a=nn.Conv2d(3, 8, 1),
        d=nn.Conv2d(3, 4, 1),
        b=nn.Conv2d(12, 12, 3, groups=6),
        c=nn.Conv2d(12, 2, 1),
    )
    holds(net, images(), {"a": 4, "a#2": 2, "d": 2, "b": 2})


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_ranks_work_alike(dims):
    conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv3d, nn.BatchNorm3d)
    net = Net(lambda net, x: net.b(net.n(net.a(x))), a=conv(2, 6, 3), n=norm(6), b=conv(6, 2, 1))
    holds(net, torch.randn(2, 2, *[5] * dims), {"a": 6})


def test_a_convolution_without_a_batch_works_alike():
    net = Net(lambda net, x: net.b(net.a(x[0])), a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 2, 1))
    holds(net, images(), {"a": 6})


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
def test_a_normalised_weight_has_a_gain_for_each_of_its_units(norm):
    net = Net(lambda net, x: net.b(net.a(x)), a=norm(nn.Conv2d(3, 6, 3)), b=nn.Conv2d(6, 2, 1))
    holds(net, images(), {next(iter(analyze_names(net))): 6}, masks=False)


def analyze_names(net):
    from prunus.graph import analyze

    return [group.name for group in analyze(net, (images(),)).groups]


def test_a_spectral_norm_has_a_vector_on_each_side():
    spectral = nn.utils.parametrizations.spectral_norm
    net = Net(lambda net, x: net.b(net.a(x)), a=spectral(nn.Conv2d(3, 6, 3)), b=spectral(nn.Conv2d(6, 2, 1)))
    names = analyze_names(net)
    graph = holds(net, images(), dict.fromkeys(names, 6), masks=False)
    (group,) = graph.groups
    assert any(not member.is_parameter for member in group.members)


def heads(linear, x, d):
    return linear(x).view(x.shape[0], x.shape[1], -1, d).transpose(1, 2)


def attend(net, x, **settings):
    y = functional.scaled_dot_product_attention(heads(net.q, x, 4), heads(net.k, x, 4), heads(net.v, x, 4), **settings)
    return net.o(y.transpose(1, 2).flatten(2))


def attention(key_heads=3, forward=attend, query_heads=3):
    return Net(
        forward,
        q=nn.Linear(8, 4 * query_heads),
        k=nn.Linear(8, 4 * key_heads),
        v=nn.Linear(8, 4 * key_heads),
        o=nn.Linear(4 * query_heads, 2),
    )


@pytest.mark.parametrize("causal", [False, True])
def test_attention_has_heads_and_two_head_dimensions_and_keeps_its_scale(causal):
    net = attention(forward=lambda net, x: attend(net, x, is_causal=causal))
    # Zeroing head dimensions keeps the scale of the old size: the smaller one must, too.
    holds(net, tokens(), {"q": 3, "q#2": 4, "v": 4})


def test_grouped_queries_have_key_heads_times_queries_for_each():
    net = attention(2, lambda net, x: attend(net, x, enable_gqa=True), 4)
    holds(net, tokens(), {"q": 2, "q#2": 2, "q#3": 4, "v": 4})


def test_one_key_head_serves_all_queries():
    net = attention(1, query_heads=4)
    holds(net, tokens(), {"q": 4, "q#2": 4, "v": 4})


def test_attention_by_hand_finds_the_same():
    def forward(net, x):
        q, k, v = (heads(linear, x, 4) for linear in (net.q, net.k, net.v))
        y = (q @ k.transpose(2, 3) / 2).softmax(-1) @ v
        return net.o(y.transpose(1, 2).flatten(2))

    holds(attention(forward=forward), tokens(), {"q": 3, "q#2": 4, "v": 4})


def test_rotary_halves_of_a_head_go_in_pairs():
    def rotate(x):
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * torch.ones(half, dtype=x.dtype)
        angle = torch.cat([angle, angle], -1)
        return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()

    def forward(net, x):
        q, k, v = (heads(linear, x, 4) for linear in (net.q, net.k, net.v))
        return net.o(functional.scaled_dot_product_attention(rotate(q), rotate(k), v).transpose(1, 2).flatten(2))

    graph = holds(attention(forward=forward), tokens(), {"q": 3, "q#2": 2, "v": 4})
    (index,) = [m.index for m in graph.group("q#2").members if m.tensor == "q.bias"]
    assert [sorted(unit) for unit in index.tolist()] == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]


def test_learned_queries_under_a_causal_mask_keep_their_order():
    def forward(net, x):
        y = functional.scaled_dot_product_attention(net.q.p, net.k.p, net.v.p, is_causal=True)
        return net.o(net.a(y).mean((1, 2)) * x.sum())

    net = Net(forward, q=P(1, 1, 6, 8), k=P(1, 1, 7, 8), v=P(1, 1, 7, 8), a=nn.Linear(8, 3), o=nn.Linear(3, 2))
    graph = holds(net, rows(), {"q": 8, "v": 8, "a": 3})
    assert sum("causal mask" in frozen.reason for frozen in graph.frozen) == 2


MULTI_HEAD = {
    "one projection": {},
    "three projections": {"kdim": 8, "vdim": 8},
    "without bias": {"bias": False},
    "with a key and value of its own": {"add_bias_kv": True},
    "with a zero": {"add_zero_attn": True},
}


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", MULTI_HEAD)
def test_multi_head_attention_has_heads_head_dimensions_and_widths(name, weights):
    def forward(net, x):
        y = net.a(x)
        other = x if net.m.kdim == 8 else y
        return net.o(net.m(y, other, other, need_weights=weights)[0])

    net = Net(
        forward,
        a=nn.Linear(8, 12),
        m=nn.MultiheadAttention(12, 3, batch_first=True, **MULTI_HEAD[name]),
        o=nn.Linear(12, 2),
    )
    graph = holds_sizes(net, tokens())
    assert {3, 4, 12} <= set(graph)


def holds_sizes(net, x):
    from prunus.graph import analyze

    graph = analyze(net, (x,))
    return [g.size for g in holds(net, x, {g.name: g.size for g in graph.groups}).groups]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}], ids=str)
def test_a_recurrent_layer_has_one_axis_for_all_its_states(kind, options):
    """Layers and directions share the size of the state that they start from, as the class wants it."""
    width = 12 if options.get("bidirectional") else 6
    net = Net(lambda net, x: net.o(net.r(x)[0]), r=kind(8, 6, batch_first=True, **options), o=nn.Linear(width, 2))
    assert holds_sizes(net, tokens()) == [6]


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_in_a_loop_has_one_axis(kind):
    def forward(net, x):
        state = None
        for step in range(x.shape[1]):
            state = net.r(x[:, step], state)
        return net.o(state[0] if isinstance(state, tuple) else state)

    net = Net(forward, r=kind(8, 6), o=nn.Linear(6, 2))
    holds(net, tokens(), {"r": 6})


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_projected_state_is_an_axis_of_its_own():
    net = Net(lambda net, x: net.o(net.r(x)[0]), r=nn.LSTM(8, 6, proj_size=4, batch_first=True), o=nn.Linear(4, 2))
    assert sorted(holds_sizes(net, tokens())) == [4, 6]


def test_experts_in_one_tensor_are_an_axis_with_the_gate_that_weighs_them():
    def forward(net, x):
        hidden = torch.einsum("btd,edh->ebth", x, net.up.p).relu()
        out = torch.einsum("ebth,ehd->ebtd", hidden, net.down.p)
        return net.o(torch.einsum("bte,ebtd->btd", net.gate(x).softmax(-1), out))

    net = Net(forward, gate=nn.Linear(8, 4), up=P(4, 8, 6), down=P(4, 6, 8), o=nn.Linear(8, 2))
    holds(net, tokens(), {"gate": 4, "up": 6, "down": 8}, masks=False)


def test_stretches_of_rows_meet_stacked_matrices_in_single_precision():
    def forward(net, x):
        ends = torch.tensor([1, 2], dtype=torch.int32)
        hidden = torch._grouped_mm(net.a(x), net.up.p, offs=ends).relu()
        return net.o(torch._grouped_mm(hidden, net.down.p, offs=ends))

    net = Net(forward, a=nn.Linear(3, 8), up=P(2, 8, 8), down=P(2, 8, 8), o=nn.Linear(8, 2))
    graph = holds(net, rows(), {"a": 8, "up": 8, "down": 8})
    assert {group.multiple for group in graph.groups} == {8}  # the kernel wants rows of 16 bytes
