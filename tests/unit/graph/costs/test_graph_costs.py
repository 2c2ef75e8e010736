"""What a unit carries is what the model really loses without it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from graph_cases import Net, images, rows, tokens
from prunus.apply import shrink
from prunus.cli.app import invoke
from prunus.graph import analyze
from prunus.graph.costs.costs import unit_costs


def convolutions(net, x):
    x = net.b(net.a(x).relu()) + net.s(x)
    return net.o(net.t(x).mean((2, 3)))


def attention(net, x):
    q, k, v = (layer(x).view(len(x), -1, 3, 4).transpose(1, 2) for layer in (net.q, net.k, net.v))
    y = (q @ k.transpose(2, 3)).softmax(-1) @ v
    return net.o(y.transpose(1, 2).flatten(2))


NETS = {
    "linear": (lambda: Net(lambda net, x: net.b(net.a(x)), a=nn.Linear(3, 8), b=nn.Linear(8, 2)), rows),
    "convolutions": (
        lambda: Net(
            convolutions,
            a=nn.Conv2d(3, 8, 3, padding=1),
            b=nn.Conv2d(8, 6, 3, padding=1),
            s=nn.Conv2d(3, 6, 1),
            t=nn.ConvTranspose2d(6, 5, 2, 2),
            o=nn.Linear(5, 2),
        ),
        images,
    ),
    "depthwise": (
        lambda: Net(
            lambda net, x: net.b(net.m(net.a(x))),
            a=nn.Conv2d(3, 8, 3),
            m=nn.Conv2d(8, 8, 3, groups=8),
            b=nn.Conv2d(8, 2, 1),
        ),
        images,
    ),
    "attention": (
        lambda: Net(
            attention,
            q=nn.Linear(8, 12),
            k=nn.Linear(8, 12),
            v=nn.Linear(8, 12),
            o=nn.Linear(12, 2),
        ),
        tokens,
    ),
}


def measured(model, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(x)
    return counter.get_total_flops() / 2 / len(x)


@pytest.mark.parametrize("name", NETS)
def test_a_unit_carries_what_the_smaller_model_lacks(name):
    build, inputs = NETS[name]
    model, x = build().eval(), inputs()
    graph = analyze(model, (x,))
    costs, total = unit_costs(graph, model)
    whole = shrink(model, (x,), graph, {}, prefer="graph").model
    assert total == measured(whole, x)
    before = sum(p.numel() for p in model.parameters())
    for group in graph.groups:
        keep = {group.name: torch.arange(group.size) > 0}
        small = shrink(model, (x,), graph, keep, prefer="graph").model
        assert before - sum(p.numel() for p in small.parameters()) == costs[group.name].parameters, group.name
        assert total - measured(small, x) == costs[group.name].macs, group.name


def test_fused_attention_counts_as_its_two_products():
    """Torch's own counter doesn't know the fused kernel of a CPU."""
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    net = Net(lambda net, x: net.o(net.m(net.a(x))), a=nn.Linear(8, 12), m=layer, o=nn.Linear(12, 2)).eval()
    x = tokens()
    _, total = unit_costs(analyze(net, (x,)), net)
    assert total == measured(net, x) + 2 * 3 * 5 * 5 * 4


def test_the_command_tells_groups_stacks_and_what_is_frozen(capsys):
    assert invoke(["graph", "resnet", "--input", "2x3x16x16", "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert {"width", "channel"} <= {row["kind"] for row in view["groups"]}
    assert all(row["parameters_per_unit"] > 0 and row["macs_per_unit"] > 0 for row in view["groups"])
    assert any("output" in item["reason"] for item in view["frozen"])
    assert invoke(["graph", "mlp", "--input", "2x30"]) == 0
    text = capsys.readouterr().out
    assert "mlp" in text
    assert "not pruned" in text
    assert invoke(["graph", "examples/digits.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 94186


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["graph", "cnn"], 2, "--input"),
        (["graph", "cnn", "--input", "2xthree"], 5, "got '2xthree'"),
        (["graph", "cnn", "--input", "2x0x3"], 5, "got '2x0x3'"),
        (["graph", "no.such:thing", "--input", "2x3"], 5, "no.such"),
        (["graph", "no_recipe.yaml"], 3, "no_recipe.yaml"),
    ],
)
def test_what_can_not_be_shown_is_one_line(capsys, arguments, code, words):
    assert invoke(arguments) == code
    message = capsys.readouterr().err
    assert words in message
    assert "Traceback" not in message
