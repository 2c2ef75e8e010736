"""The laws of the axis engine over random networks: certificate, shrinking, identity, and that planted faults are caught."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from graph_zoo import Program, image_programs, inputs_for, randomize, sequence_programs
from prunus.apply import shrink
from prunus.graph import AxisGraph, Group, analyze, certify

LAWS = settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=list(HealthCheck))
FEWER = settings(LAWS, max_examples=40)
PROGRAMS = st.one_of(image_programs(), sequence_programs())


def analysed(model: Program) -> tuple[AxisGraph, tuple[torch.Tensor]]:
    randomize(model)
    inputs = (inputs_for(model),)
    return analyze(model, inputs), inputs


def half(graph: AxisGraph, seed: int = 0) -> dict[str, torch.Tensor]:
    """Keep about half of every group, drawn at random."""
    draw = torch.Generator().manual_seed(seed)
    keep = {}
    for group in graph.groups:
        mask = torch.zeros(group.size, dtype=torch.bool)
        mask[torch.randperm(group.size, generator=draw)[: max(1, group.size // 2)]] = True
        keep[group.name] = mask
    return keep


@given(PROGRAMS)
@LAWS
def test_the_certificate_holds_for_every_group_that_is_offered(model):
    graph, inputs = analysed(model)
    assert graph.groups
    certified = certify(model, inputs, graph, tolerance=1e-6)
    assert [g.name for g in certified.groups] == [g.name for g in graph.groups]


@given(PROGRAMS)
@LAWS
def test_what_is_shrunk_computes_what_the_trace_computes_trains_and_takes_other_batches(model):
    graph, inputs = analysed(model)
    shrunk = shrink(model, inputs, graph, half(graph))
    before = sum(p.numel() for p in model.parameters())
    assert sum(p.numel() for p in shrunk.model.parameters()) < before
    other = inputs_for(model, 5)
    with torch.no_grad():
        whole = shrunk.model(other)
        assert torch.allclose(whole[:2], shrunk.model(other[:2]), atol=1e-5)
    smaller = shrunk.model.train()
    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.01)
    loss = smaller(other).square().mean()
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters() if p.requires_grad)


# No normalisation over the group and no value that a zero doesn't silence: then a dropped unit is a zeroed one.
PLAIN_IMAGES = ["residual_free", "join", "add_old", "grouped", "depthwise", "halves", "gate", "shuffle", "twice"][1:]


@given(
    st.one_of(
        image_programs([k for k in PLAIN_IMAGES if k != "gate"]), sequence_programs(["linear", "glu", "recurrent"])
    )
)
@LAWS
def test_shrinking_equals_masking_where_no_normalisation_crosses_the_group(model):
    graph, inputs = analysed(model)
    keep = half(graph)
    masked = copy.deepcopy(model)
    states = dict(masked.named_parameters())
    with torch.no_grad():
        for group in graph.groups:
            for member in group.members:
                if member.is_parameter:
                    states[member.tensor].index_fill_(member.dim, member.index[~keep[group.name]].reshape(-1), 0.0)
        expected = masked(*inputs)
        got = shrink(model, inputs, graph, keep).model(*inputs)
    assert torch.allclose(expected, got, atol=1e-5, rtol=1e-4)


@given(PROGRAMS)
@FEWER
def test_keeping_everything_is_the_identity_bit_for_bit(model):
    graph, inputs = analysed(model)
    everything = {group.name: torch.ones(group.size, dtype=torch.bool) for group in graph.groups}
    same = shrink(model, inputs, graph, everything)
    assert same.kind == "eager"
    assert all(
        torch.equal(a, b) for a, b in zip(same.model.state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert torch.equal(same.model(*inputs), model(*inputs))


@given(PROGRAMS)
@FEWER
def test_the_model_is_never_changed_and_two_analyses_agree(model):
    graph, inputs = analysed(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    certify(model, inputs, graph)
    shrink(model, inputs, graph, half(graph))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = analyze(model, inputs)
    assert [(g.name, g.size, [(m.tensor, m.dim) for m in g.members]) for g in again.groups] == [
        (g.name, g.size, [(m.tensor, m.dim) for m in g.members]) for g in graph.groups
    ]


def drop_a_member(group: Group, at: int) -> Group | None:
    members = [m for i, m in enumerate(group.members) if i != at % len(group.members)]
    return replace(group, members=tuple(members)) if members else None


def shift_an_offset(group: Group, at: int) -> Group | None:
    at %= len(group.members)
    member = group.members[at]
    if len(group.members) == 1:
        return None  # shifting all members alike is the same coupling under other numbers
    moved = replace(member, index=member.index.roll(1, dims=0))
    return replace(group, members=tuple(moved if i == at else m for i, m in enumerate(group.members)))


def transpose_a_factorisation(group: Group, at: int) -> Group | None:
    wide = [i for i, m in enumerate(group.members) if m.index.shape[1] > 1]
    if not wide or len(group.members) == 1:
        return None
    at = wide[at % len(wide)]
    member = group.members[at]
    units, positions = member.index.shape
    ordered = member.index.flatten().sort().values
    readings = (ordered.view(positions, units).T.contiguous(), ordered.view(units, positions))
    wrong = next(
        (reading for reading in readings if not torch.equal(reading.sort().values, member.index.sort().values)), None
    )
    if wrong is None:
        return None
    return replace(
        group, members=tuple(replace(member, index=wrong) if i == at else m for i, m in enumerate(group.members))
    )


@pytest.mark.parametrize("plant", [drop_a_member, shift_an_offset, transpose_a_factorisation])
@given(
    image_programs(["conv", "join", "add_old", "halves", "twice", "shuffle", "up_down"]),
    st.integers(0, 99),
    st.integers(0, 99),
)
@FEWER
def test_a_planted_wrong_coupling_is_caught(plant, model, which, at):
    graph, inputs = analysed(model)
    groups = [g for g in graph.groups if g.size > 2]
    assume(groups)
    victim = groups[which % len(groups)]
    wrong = plant(victim, at)
    assume(wrong is not None)
    assume(not _has_no_say(model, inputs, victim, wrong))
    certified = certify(model, inputs, replace(graph, groups=(wrong,)), tolerance=1e-6)
    assert certified.groups == ()
    assert certified.frozen[-1].name == victim.name
    assert "permutation certificate" in certified.frozen[-1].reason


def _has_no_say(model: nn.Module, inputs: tuple[torch.Tensor], group: Group, wrong: Group) -> bool:
    """Tell whether the member that was tampered with has no influence on the output at all: then nothing can be wrong."""
    good = {(m.tensor, m.dim): m.index for m in group.members}
    kept = {(m.tensor, m.dim): m.index for m in wrong.members}
    tampered = [key for key, index in good.items() if key not in kept or not torch.equal(kept[key], index)]
    with torch.no_grad():
        expected = model(*inputs)
        for name, dim in tampered:
            other = copy.deepcopy(model)
            tensor = {**dict(other.named_parameters()), **dict(other.named_buffers())}[name]
            tensor.copy_(tensor.roll(1, dims=dim))
            if not torch.allclose(other(*inputs), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())):
                return False
    return True
