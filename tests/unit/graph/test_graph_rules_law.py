"""Every rule: what it says is the same dimension, is: reordering it in all operands reorders the results, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graph_rule_cases import CASES, ELSEWHERE, Case, operands_of, tensors
from prunus.graph import rules  # noqa: F401 - registers the rules
from prunus.graph.axes import Atom, leaves, positions
from prunus.graph.solve import RULES, Solver
from prunus.graph.trace import trace


class Applied(nn.Module):
    """A function of tensors that the module holds."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.operands = case, operands_of(case)
        for place, value in enumerate(self.operands):
            if isinstance(value, Tensor):
                self.register_buffer(f"operand{place}", value)

    def forward(self) -> Any:
        held = [getattr(self, f"operand{n}", value) for n, value in enumerate(self.operands)]
        return tensors(self.case.function(*held))


def solved(net: Applied) -> tuple[Solver, list[list[Atom]], set[str]]:
    """Return the solver, the axes of each result, and the rules that were asked."""
    solver = Solver(trace(net, ()))
    solver.solve()
    nodes = list(solver.trace.graph_module.graph.nodes)
    asked = {node.target.overloadpacket.__name__ for node in nodes if hasattr(node.target, "overloadpacket")}
    results = [solver.axes(node) for node in torch.utils._pytree.tree_leaves(nodes[-1].args)]
    return solver, results, asked | {name.removesuffix("_") for name in asked if name not in RULES}


def reordered(value: Tensor, axes: list[Atom], orders: dict[Atom, Tensor]) -> Tensor:
    for dim, atom in enumerate(axes):
        for leaf, index in positions(atom).items():
            if leaf in orders:
                source = torch.arange(value.shape[dim])
                source[index.reshape(-1)] = index[orders[leaf]].reshape(-1)
                value = value.index_select(dim, source)
    return value


def is_free(leaf: Atom) -> bool:
    return leaf.size > 1 and (not leaf.reason or leaf.reason.startswith("it is the output's"))


@pytest.mark.parametrize("name", sorted(RULES))
def test_what_a_rule_says_is_the_same_dimension_is_the_same(name):
    if name in ELSEWHERE:
        assert name not in CASES
        return
    net = Applied(CASES[name])
    solver, results, asked = solved(net)
    assert name in asked, f"the call leads to {sorted(asked)}"
    assert not solver.unread
    assert not solver.unknown
    states = dict(solver.states.items())
    free = {leaf for axes in [*states.values(), *results] for atom in axes for leaf in leaves(atom) if is_free(leaf)}
    assert len(free) == CASES[name].free, dict(states.items())
    torch.manual_seed(0)
    expected = net()
    for turn in range(2):
        draw = torch.Generator().manual_seed(turn)
        orders = {
            leaf: torch.randperm(leaf.size, generator=draw).roll(1) for leaf in sorted(free, key=lambda a: a.serial)
        }
        moved = Applied(CASES[name])
        for state, axes in states.items():
            setattr(moved, state, reordered(getattr(moved, state), axes, orders))
        torch.manual_seed(0)
        for one, other, axes in zip(expected, moved(), results, strict=True):
            assert torch.allclose(
                reordered(one, axes, orders).double(), other.double(), rtol=1e-4, atol=1e-5, equal_nan=True
            )


def test_every_rule_is_met_or_has_a_reason():
    assert CASES.keys() | ELSEWHERE.keys() == RULES.keys()
    assert not CASES.keys() & ELSEWHERE.keys()


def test_the_law_sees_a_rule_that_couples_the_wrong_axis(monkeypatch):
    """Rows against rows, the result taken from the left operand twice: with one tensor handed in twice nobody would see."""

    def wrong(call):
        left, right = call.axes("x1"), call.axes("x2")
        return [*left[:-1], call.solver.axes(call.operands[0])[-2] if left[-2].size == right[-2].size else right[-2]]

    case = CASES["_cdist_forward"]
    monkeypatch.setitem(RULES, "_cdist_forward", wrong)
    with pytest.raises(AssertionError):
        test_what_a_rule_says_is_the_same_dimension_is_the_same("_cdist_forward")
    assert case.operands[0] != case.operands[1]


def test_a_mask_of_attention_has_the_queries_and_the_keys(monkeypatch):
    name = "_scaled_dot_product_flash_attention_for_cpu"
    plain = CASES[name]

    def masked(query, key, value, mask):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    monkeypatch.setitem(CASES, name, plain._replace(function=masked, operands=(*plain.operands, (5, 7))))
    test_what_a_rule_says_is_the_same_dimension_is_the_same(name)
