"""The laws of the axis engine over random networks: one drawn architecture has to pass all of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor, nn

from graph_faults import every_fault, is_caught, matters
from graph_zoo import IMAGES, SEQUENCES, Program, image_programs, inputs_for, randomize, sequence_programs
from prunus.apply import Shrunk, follow_class, shrink
from prunus.apply.edits import Edits, diff, rebuild
from prunus.graph import AxisGraph, analyze, certify
from prunus.graph.solver.axes import leaves

# A counterexample isn't shrunk: every step of that costs an analysis, and what comes first is small enough to be read.
LAWS = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)


@given(image_programs())
@settings(LAWS, max_examples=60)
def test_a_random_image_network_keeps_every_law(model):
    keeps_every_law(model)


@given(sequence_programs())
@settings(LAWS, max_examples=60)
def test_a_random_sequence_network_keeps_every_law(model):
    keeps_every_law(model)


@pytest.mark.nightly
@given(image_programs() | sequence_programs())
@settings(LAWS, max_examples=1000, derandomize=False, print_blob=True)
def test_each_night_others_do_too(model):
    keeps_every_law(model)


def keeps_every_law(model: Program) -> None:
    randomize(model)
    inputs = (inputs_for(model),)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = analyze(model, inputs)
    assert graph.groups
    assert all(frozen.reason for frozen in graph.frozen)
    certified = certify(model, inputs, graph, tolerance=1e-6)
    assert certified.groups == graph.groups, certified.frozen[len(graph.frozen) :]

    computed = shrink(model, inputs, graph, half(graph), prefer="graph")
    equals_the_mask(model, graph, computed)
    works_on_other_inputs(model, computed)
    followed = follow_class(model, inputs, graph)
    shrunk = shrink(model, inputs, followed, half(followed))
    assert shrunk.kind == "eager", shrunk.notes
    equals_the_mask(model, followed, shrunk)
    works_on_other_inputs(model, shrunk)
    survives_a_round_trip(model, shrunk.model)
    trains(model, shrunk.model)
    keeping_everything_is_the_identity(model, graph)
    planted_faults_are_caught(model, graph)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the model was changed"


def half(graph: AxisGraph, seed: int = 0) -> dict[str, Tensor]:
    """Keep about half of every group, drawn at random."""
    draw = torch.Generator().manual_seed(seed)
    keep = {}
    for group in graph.groups:
        mask = torch.zeros(group.size, dtype=torch.bool)
        mask[torch.randperm(group.size, generator=draw)[: max(1, group.size // 2)]] = True
        keep[group.name] = mask
    return keep


@torch.no_grad()
def equals_the_mask(model: Program, graph: AxisGraph, shrunk: Shrunk) -> None:
    """Where no normalisation crosses the groups, dropping units is zeroing them, whatever the inputs' sizes are."""
    normalised = normalised_groups(graph)
    keep = {name: mask for name, mask in half(graph).items() if name not in normalised}
    if not keep:
        return
    if len(keep) < len(graph.groups):
        shrunk = shrink(model, (inputs_for(model),), graph, keep, prefer=shrunk.kind)
    masked = copy.deepcopy(model)
    states = dict(masked.named_parameters())
    for group in graph.groups:
        for member in group.members if group.name in keep else ():
            if member.is_parameter:
                states[member.tensor].index_fill_(member.dim, member.index[~keep[group.name]].reshape(-1), 0.0)
    many = inputs_for(model, 5, larger=shrunk.kind == "eager")
    close(shrunk.model(many), masked(many))


def normalised_groups(graph: AxisGraph) -> set[str]:
    """Return the groups whose units are normalised together: a zero still counts there."""
    assert graph.solution is not None
    solver = graph.solution.solver
    crossed = {
        leaf
        for node in solver.trace.graph_module.graph.nodes
        for source, dim in _normalised(node)
        for leaf in leaves(solver.axes(source)[dim])
    }
    return {name for name in graph.solution.leaf if crossed & graph.solution.axes_of(name).keys()}


def _normalised(node: torch.fx.Node) -> Iterator[tuple[torch.fx.Node, int]]:
    name = node.target.overloadpacket.__name__ if hasattr(node.target, "overloadpacket") else ""
    source = node.args[0] if node.args else None
    if name in ("native_layer_norm", "_fused_rms_norm"):
        yield from ((source, -dim) for dim in range(1, len(node.args[1]) + 1))
    elif name == "native_group_norm":
        yield source, 1
    elif name == "_softmax":
        yield source, node.args[1]
    elif name == "mean":
        yield from ((source, dim) for dim in node.args[1])
    elif name == "_weight_norm_interface":
        yield source, node.args[2] if len(node.args) > 2 else 0  # a row of zeros has no direction


def close(got: Tensor, expected: Tensor) -> None:
    assert torch.allclose(got, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(expected.abs().max())))


@torch.no_grad()
def works_on_other_inputs(model: Program, shrunk: Shrunk) -> None:
    """One example's outputs don't depend on the others, and the class takes inputs with other positions."""
    many = inputs_for(model, 5, larger=shrunk.kind == "eager")
    close(shrunk.model(many[:2]), shrunk.model(many)[:2])


def survives_a_round_trip(model: Program, pruned: nn.Module) -> None:
    """A copy, and a model built anew with the edits and the weights, compute the same bit for bit."""
    inputs = inputs_for(model, 3)
    edits = Edits.from_dict(json.loads(json.dumps(diff(model, pruned).to_dict())))
    again = rebuild(model.again(), edits).eval()
    again.load_state_dict(pruned.state_dict())
    with torch.no_grad():
        expected = pruned(inputs)
        assert torch.equal(again(inputs), expected)
        assert torch.equal(copy.deepcopy(pruned)(inputs), expected)


def trains(model: Program, pruned: nn.Module) -> None:
    pruned.train()
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.01)
    loss = pruned(inputs_for(model, 5)).square().mean()
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())


def keeping_everything_is_the_identity(model: Program, graph: AxisGraph) -> None:
    inputs = (inputs_for(model),)
    everything = {group.name: torch.ones(group.size, dtype=torch.bool) for group in graph.groups}
    same = shrink(model, inputs, graph, everything)
    assert same.kind == "eager"
    pairs = zip(same.model.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with torch.no_grad():
        assert torch.equal(same.model(*inputs), model(*inputs))


def planted_faults_are_caught(model: Program, graph: AxisGraph, *, every: int = 0) -> None:
    """Plant ``every`` n-th of the faults that there are; none given: one."""
    faults = list(every_fault(graph))
    for name, member, wrong in faults[:: every or len(faults)]:
        if not is_caught(model, (inputs_for(model),), graph, wrong):
            assert not matters(model, (inputs_for(model),), member), (name, wrong.name, member.tensor, member.dim)


KINDS = [(kind, True) for kind in IMAGES] + [(kind, False) for kind in SEQUENCES]


@pytest.mark.parametrize(("kind", "images"), KINDS, ids=[kind for kind, _ in KINDS])
def test_every_wrong_coupling_that_can_be_planted_in_a_block_is_caught(kind, images):
    model = randomize(Program([(kind, 6, 0)], "mean", images))
    graph = analyze(model, (inputs_for(model),))
    planted_faults_are_caught(model, graph, every=1)
