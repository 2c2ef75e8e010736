"""Is the coupling right? Reorder the units of every group at random, in all its members at once: the outputs must not move.

This holds through normalisation and softmax, where zeroing would not. It runs on the user's own model and inputs, with noise in
what holds one value only, so that nothing hides behind a head that starts at zero. A model that ranks its answers takes the same
decisions again, and those of its modules are compared, too, that no group reaches: an empty list of boxes would be right always.
What the model's own precision shows to move by no more than the tolerance is right; what moves by more is looked at again in
float64, where that fits. Where examples don't meet and one shows every unit at many places, one is enough to show what is right.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.core.errors import raise_if_out_of_memory
from prunus.core.runtime import generator
from prunus.core.structures.forms import tensors_of
from prunus.core.values import check_values
from prunus.graph.grouping.groups import AxisGraph, Frozen, Group
from prunus.graph.one_example import one_example_tells
from prunus.graph.reorder import reordered
from prunus.graph.solver.axes import leaves
from prunus.graph.tracing.decisions import Decisions, decides
from prunus.graph.tracing.states import as_it_was, canonical_states, duplicate, enlivened, one_example, running_on
from prunus.graph.tracing.writes import written

__all__ = ["certify"]

_DOUBLE_LIMIT = 50_000_000  # parameters: above it, float64 copies cost more than they tell
_FEW_UNITS = 12
"""So many units move in one order only: of all n! couplings n commute with a ring's cycle, and no two seeds have the same ones."""


def certify(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    *,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    tolerance: float = 1e-4,
) -> AxisGraph:
    """Return ``graph`` with every group that fails the permutation check moved to ``frozen``; the model isn't changed.

    A model without values (on the meta device) can't be checked, and a note says so.

    Units:
        The error is the largest change of an output over the largest output; up to ``tolerance`` counts as rounding.

    Raises:
        ModelError: a parameter is NaN or infinite, so that nothing can be compared.
    """
    experts = tuple(stack for stack in graph.stacks if stack.kind == "expert")
    groups = (*graph.groups, *experts)  # experts change places last: their own units are reordered by then
    if not groups:
        return graph
    if any(value.is_meta for value in canonical_states(model).values()):
        return replace(graph, notes=(*graph.notes, "not certified: the model has no values (it is on the meta device)"))
    check_values(model)
    if _holds_for_one(model, inputs, kwargs or {}, seed, graph, tolerance, groups):
        return graph
    check = _Check(model, inputs, kwargs or {}, seed, graph, tolerance, double=False)
    if check.error(groups) <= tolerance:
        return graph
    if _fits_in_double(model):
        try:
            check = _Check(model, inputs, kwargs or {}, seed, graph, tolerance, double=True)
        except (RuntimeError, TypeError, ValueError) as error:  # it makes single-precision tensors of its own
            raise_if_out_of_memory(error)
    failed = _failing(check, groups, tolerance)
    good = tuple(group for group in groups if group.name not in failed)
    if failed and good and not check.error(good) <= tolerance:
        # Each is right alone and they aren't together: none of them can be trusted.
        failed |= {group.name: float("nan") for group in good}
    frozen = tuple(
        Frozen(
            g.name, g.size, g.members, f"it failed the permutation certificate: outputs moved by {failed[g.name]:.2g}"
        )
        for g in groups
        if g.name in failed
    )
    return replace(
        graph,
        groups=tuple(group for group in graph.groups if group.name not in failed),
        stacks=tuple(stack for stack in graph.stacks if stack.name not in failed),
        frozen=(*graph.frozen, *frozen),
    )


def _holds_for_one(
    model: nn.Module,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    seed: int,
    graph: AxisGraph,
    tolerance: float,
    groups: tuple[Group, ...],
) -> bool:
    """Tell whether the groups are right as far as one example shows, where it shows all of it; if not, all have to be asked."""
    few = one_example(inputs, kwargs)
    if few is None or not (shapes := one_example_tells(graph)):
        return False
    try:
        check = _Check(model, *few, seed, graph, tolerance, double=False)
    except Exception as error:  # whatever a model raises at a batch of one
        raise_if_out_of_memory(error)
        return False
    return [tuple(out.shape) for out in check.expected] == shapes and check.error(groups) <= tolerance


def _failing(check: _Check, groups: tuple[Group, ...], tolerance: float) -> dict[str, float]:
    """Return the groups that fail and by how much: all at once first, then by halves where something failed."""
    error = check.error(groups)
    if error <= tolerance:
        return {}
    if len(groups) == 1:
        return {groups[0].name: error}
    middle = len(groups) // 2
    failed = _failing(check, groups[:middle], tolerance) | _failing(check, groups[middle:], tolerance)
    # Both halves are right, and they aren't together.
    return failed or {group.name: error for group in groups}


def _fits_in_double(model: nn.Module) -> bool:
    states = canonical_states(model).values()
    return sum(value.numel() for value in states) <= _DOUBLE_LIMIT and all(s.device.type != "mps" for s in states)


def _ring(group: Group, seed: int) -> Tensor:
    return torch.randperm(group.size, generator=generator(seed, "certify", group.name))


def _cycle(ring: Tensor) -> Tensor:
    """Return the order that moves every unit on by one place along a ring."""
    order = torch.empty_like(ring)
    order[ring] = ring.roll(1)
    return order


def _swap(ring: Tensor) -> Tensor:
    """Return the order that swaps two neighbours of a ring: no coupling but the right one commutes with this and with the cycle."""
    order = torch.arange(len(ring))
    order[ring[:2]] = ring[:2].flip(0)
    return order


class _Check:
    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        seed: int,
        graph: AxisGraph,
        tolerance: float,
        *,
        double: bool,
    ) -> None:
        self.seed = seed
        self.tolerance = tolerance
        self.decides = graph.solution is not None and decides(graph.solution.solver.trace)
        self.whole = _whole_answers(graph) if self.decides else ()
        self.first: Decisions | None = None

        def own(value: Tensor) -> Tensor:
            return value.detach().to(torch.float64 if double and value.is_floating_point() else value.dtype, copy=True)

        # A forward may write into its buffers, so it gets copies; into its parameters only where the trace shows that.
        parameters = dict(model.named_parameters())
        self.shared = set() if double or _writes_parameters(graph) else parameters.keys()
        self.states = {
            name: value.detach() if name in self.shared else own(value)
            for name, value in enlivened(model, self.seed).items()
        }
        self.model = duplicate(model, self.states).eval()
        self.arguments = pytree.tree_map_only(
            Tensor,
            lambda t: t.detach().double() if double and t.is_floating_point() else t.detach(),
            (tuple(inputs), dict(kwargs)),
        )
        self.expected, inside = self._outputs(self.states)
        scale = max(map(_largest, self.expected), default=0.0) or 1.0
        self.scales = [*(scale for _ in self.expected), *(_largest(out) or 1.0 for out in inside)]
        self.expected += inside

    def error(self, groups: tuple[Group, ...]) -> float:
        """Return by how much the outputs move; infinity when the model can't run any more."""
        few = tuple(group for group in groups if 2 < group.size < _FEW_UNITS)
        return max(self._moved(groups, _cycle), self._moved(few, _swap) if few else 0.0)

    def _moved(self, groups: tuple[Group, ...], reorder: Callable[[Tensor], Tensor]) -> float:
        orders = {group.name: reorder(_ring(group, self.seed)) for group in groups}
        try:
            with reordered(self.states, groups, orders, shared=self.shared) as states:
                got = [out for part in self._outputs(states) for out in part]
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise_if_out_of_memory(error)
            return float("inf")  # it ran before its units were reordered
        worst = 0.0
        if len(got) != len(self.expected):
            return float("inf")
        for a, b, scale in zip(self.expected, got, self.scales, strict=True):
            if a.shape != b.shape:
                return float("inf")
            if a.numel():
                apart = _largest(a - b)
                if math.isfinite(apart):
                    worst = max(worst, apart / scale)
                    continue
                difference = (a - b).abs()
                both_nan = a.isnan() & b.isnan()
                same_inf = a.isinf() & (a == b)
                difference = difference.masked_fill(both_nan | same_inf, 0.0)
                worst = max(worst, float(difference.nan_to_num(nan=float("inf")).max()) / scale)
        return worst

    def _outputs(self, states: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the model answers, and what those of its modules do that no group reaches."""
        arguments, kwargs = self.arguments
        inside: list[Tensor] = []
        with torch.no_grad(), torch.random.fork_rng(), contextlib.ExitStack() as around:
            torch.manual_seed(0)
            around.enter_context(as_it_was(self.model))
            around.enter_context(running_on(self.model, states))
            for name in self.whole:
                hook = self.model.get_submodule(name).register_forward_hook(
                    lambda module, given, made: inside.extend(_numbers(made)[:1])
                )
                around.callback(hook.remove)
            if self.decides:
                decisions = around.enter_context(Decisions(self.first, self.tolerance))
                self.first = self.first or decisions
            out = self.model(*arguments, **kwargs)
        return _numbers(out), inside


def _numbers(out: Any) -> list[Tensor]:
    real = [torch.view_as_real(leaf) if leaf.is_complex() else leaf for leaf in tensors_of(out)]
    return [leaf if leaf.dtype in (torch.float32, torch.float64) else leaf.double() for leaf in real]


def _largest(out: Tensor) -> float:
    """Return the largest modulus; NaN where there is one."""
    low, high = out.aminmax() if out.numel() else (torch.zeros(()), torch.zeros(()))
    return float(torch.maximum(-low, high))


def _writes_parameters(graph: AxisGraph) -> bool:
    """Tell whether a forward writes into its parameters, or may, since no trace is at hand."""
    if graph.solution is None:
        return True
    trace = graph.solution.solver.trace
    states = [node for node in trace.graph_module.graph.nodes if node.op == "placeholder"][: len(trace.states)]
    return trace.recorded or not written(trace.graph_module.graph).isdisjoint(states)


def _whole_answers(graph: AxisGraph) -> tuple[str, ...]:
    """Return the modules whose answers no group reaches, so that they stay the same when units change places.

    What an expert answers is another expert's then.
    """
    assert graph.solution is not None
    solver = graph.solution.solver
    if any(stack.kind == "expert" for stack in graph.stacks):
        return ()
    stays: dict[str, bool] = {}
    for call in solver.trace.calls:
        axes = solver.values.get(call.made) or ()
        fixed = all(leaf.size == 1 or bool(leaf.reason) for atom in axes for leaf in leaves(atom))
        stays[call.name] = stays.get(call.name, True) and bool(axes) and fixed
    return tuple(name for name, fixed in stays.items() if fixed)
