"""Every rule: what it says is the same dimension, is: reordering it in all operands reorders the results, and nothing else."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from graph_rule_cases import CASES, ELSEWHERE, Case, operands_of, tensors
from graph_rule_corners import CORNERS
from graph_rule_kernels import KERNELS, Kernel
from prunus.graph import rules  # noqa: F401 - registers the rules
from prunus.graph.rules.recurrent import recurrent_products
from prunus.graph.solver.axes import Atom, leaves
from prunus.graph.solver.axis_positions import positions
from prunus.graph.solver.solve import RULES, Solver
from prunus.graph.tracing.trace import Trace, trace


class Applied(nn.Module):
    """A function of tensors that the module holds."""

    def __init__(self, case: Case | Kernel) -> None:
        super().__init__()
        self.case, self.operands = case, operands_of(case)
        for place, value in enumerate(self.operands):
            if isinstance(value, Tensor):
                self.register_buffer(f"operand{place}", value)

    def forward(self) -> Any:
        held = [getattr(self, f"operand{n}", value) for n, value in enumerate(self.operands)]
        if isinstance(self.case, Case):
            return tensors(self.case.function(*held))
        return tensors(self.case.reference(*held, **self.case.settings))[: self.case.n_results]


def solved(net: Applied) -> tuple[Solver, list[list[Atom]], set[str]]:
    """Return the solver, the axes of each result, and the rules that were asked."""
    made = trace(net, ()) if isinstance(net.case, Case) else by_hand(net)
    solver = Solver(made)
    solver.solve()
    nodes = list(made.graph_module.graph.nodes)
    asked = {node.target.overloadpacket.__name__ for node in nodes if hasattr(node.target, "overloadpacket")}
    results = [solver.axes(node) for node in torch.utils._pytree.tree_leaves(nodes[-1].args)]
    return solver, results, asked | {name.removesuffix("_") for name in asked if name not in RULES}


def by_hand(net: Applied) -> Trace:
    """Return the trace of one kernel that doesn't run here; what it gives is known from what it is meant to compute."""
    graph, operands = fx.Graph(), []
    for place, value in enumerate(net.operands):
        operands.append(graph.placeholder(f"operand{place}") if isinstance(value, Tensor) else value)
        if isinstance(value, Tensor):
            operands[-1].meta["val"] = value
    made = graph.call_function(net.case.target, tuple(operands), net.case.settings)
    made.meta["val"] = net.case.reference(*net.operands, **net.case.settings)
    if not isinstance(made.meta["val"], Tensor):
        parts = [graph.call_function(operator.getitem, (made, n)) for n in range(net.case.n_results)]
        for n, part in enumerate(parts):
            part.meta["val"] = made.meta["val"][n]
        made = tuple(parts)
    graph.output(made)
    states = tuple(name for name, _ in net.named_buffers())
    return Trace(fx.GraphModule(nn.Module(), graph), states, n_inputs=0, notes=())


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


def check(name: str, case: Case | Kernel) -> None:
    """Check that a call's axes are as many as they may be, and that reordering them reorders the results."""
    net = Applied(case)
    solver, results, asked = solved(net)
    assert name in asked, f"the call leads to {sorted(asked)}"
    assert not solver.unread
    assert not solver.unknown
    states = dict(solver.states.items())
    free = {leaf for axes in [*states.values(), *results] for atom in axes for leaf in leaves(atom) if is_free(leaf)}
    assert len(free) == case.free, dict(states.items())
    torch.manual_seed(0)
    expected = net()
    for turn in range(2):
        draw = torch.Generator().manual_seed(turn)
        orders = {
            leaf: torch.randperm(leaf.size, generator=draw).roll(1) for leaf in sorted(free, key=lambda a: a.serial)
        }
        moved = Applied(case)
        for state, axes in states.items():
            setattr(moved, state, reordered(getattr(moved, state), axes, orders))
        torch.manual_seed(0)
        for one, other, axes in zip(expected, moved(), results, strict=True):
            assert torch.allclose(
                reordered(one, axes, orders).double(), other.double(), rtol=1e-4, atol=1e-5, equal_nan=True
            )


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_a_rule_says_is_the_same_dimension_is_the_same(name):
    check(name, CASES[name])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("corner", CORNERS)
def test_so_it_is_at_the_corners(corner):
    check(*CORNERS[corner])


@pytest.mark.parametrize("kernel", KERNELS)
def test_so_it_is_for_kernels_that_run_elsewhere(kernel):
    check(kernel.partition(":")[0], KERNELS[kernel])


def test_every_rule_is_met_or_has_a_reason():
    kernels = {kernel.partition(":")[0] for kernel in KERNELS}
    assert CASES.keys() | kernels | ELSEWHERE.keys() == RULES.keys()
    assert not (CASES.keys() | kernels) & ELSEWHERE.keys()


def test_the_law_sees_a_rule_that_couples_the_wrong_axis(monkeypatch):
    """Rows against rows, the result taken from the left operand twice: with one tensor handed in twice nobody would see."""

    def wrong(call):
        left, right = call.axes("x1"), call.axes("x2")
        return [*left[:-1], call.solver.axes(call.operands[0])[-2] if left[-2].size == right[-2].size else right[-2]]

    case = CASES["_cdist_forward"]
    monkeypatch.setitem(RULES, "_cdist_forward", wrong)
    with pytest.raises(AssertionError):
        check("_cdist_forward", case)
    assert case.operands[0] != case.operands[1]


def test_matrices_of_experts_keep_rows_of_sixteen_bytes():
    solver, _, _ = solved(Applied(CASES["_grouped_mm"]))
    assert [(atom.size, multiple) for atom, multiple in solver.multiples] == [(8, 8), (16, 8)]


FUSED = {torch.ops.aten.lstm.input, torch.ops.aten.gru.input}


@pytest.mark.parametrize(
    ("corner", "sizes"),
    [
        ("lstm: two layers", [(12, 5), (12, 3)] + [(12, 3)] * 2),
        ("lstm: projected", [(28, 5), (28, 3), (3, 7)]),
        ("gru: steps first", [(9, 5), (9, 3)]),
    ],
)
def test_a_recurrent_layer_multiplies_its_rows_with_each_matrix_and_no_bias(corner, sizes):
    solver, _, _ = solved(Applied(CORNERS[corner][1]))
    (node,) = [n for n in solver.trace.graph_module.graph.nodes if n.target in FUSED]
    found = list(recurrent_products(solver, node))
    assert [tuple(atom.size for atom in matrix) for _, matrix in found] == sizes
    outer = {tuple(atom.size for atom in rows) for rows, _ in found}
    assert outer == {tuple(CORNERS[corner][1].operands[0][:2])}


def test_a_buffer_of_another_shape_has_axes_of_its_own():
    """On a GPU the logarithm of a sigmoid comes with an empty buffer."""
    kernel = Kernel(
        torch.ops.aten.log_sigmoid_forward.default,
        lambda x: (torch.nn.functional.logsigmoid(x), torch.zeros(0)),
        ((2, 3, 5),),
        3,
        n_results=2,
    )
    check("log_sigmoid_forward", kernel)


def test_what_has_no_rule_freezes_all_that_goes_in_and_comes_out():
    kernel = Kernel(torch.ops.aten.cholesky_inverse.default, torch.cholesky_inverse, (torch.eye(3),), 0, n_results=1)
    solver, results, _ = solved(Applied(kernel))
    assert solver.unknown == {"cholesky_inverse"}
    reasons = [atom.reason for axes in [*solver.states.values(), *results] for atom in axes]
    assert len(reasons) == 4
    assert all(reason.startswith("prunus has no rule for this operation") for reason in reasons)
    several = Kernel(torch.ops.aten.linalg_qr.default, torch.linalg.qr, (torch.rand(5, 3),), 0, n_results=2)
    solver, results, _ = solved(Applied(several))
    assert [[atom.size for atom in axes] for axes in results] == [[5, 3], [3, 3]]
    assert all(atom.reason for axes in results for atom in axes)
