"""Is the coupling right? Reorder the units of every group at random, in all its members at once: the outputs must not move.

This holds through normalisation and softmax, where zeroing would not. It runs on the user's own model and inputs, in float64
where that fits, with noise in what holds one value only, so that nothing hides behind a head that starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.core.runtime import generator
from prunus.core.values import check_values
from prunus.graph.groups import AxisGraph, Frozen, Group
from prunus.graph.reorder import reordered
from prunus.graph.states import as_it_was, canonical_states, duplicate, enlivened, running_on
from prunus.graph.trace import plain

__all__ = ["certify"]

_DOUBLE_LIMIT = 50_000_000  # parameters: above it, float64 copies cost more than they tell


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
    check = _Check(model, inputs, kwargs or {}, seed)
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


def _cycle(size: int, draw: torch.Generator) -> Tensor:
    """Return an order that leaves no unit in its place."""
    ring = torch.randperm(size, generator=draw)
    order = torch.empty_like(ring)
    order[ring] = ring.roll(1)
    return order


def _swap(size: int, draw: torch.Generator) -> Tensor:
    """Return an order that swaps two units: a coupling that is off by some places commutes with a cycle, but not with this."""
    order = torch.arange(size)
    one, other = torch.randperm(size, generator=draw)[:2].tolist() if size > 1 else (0, 0)
    order[one], order[other] = other, one
    return order


class _Check:
    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], seed: int) -> None:
        states = canonical_states(model)
        double = sum(value.numel() for value in states.values()) <= _DOUBLE_LIMIT and not any(
            s.device.type == "mps" for s in states.values()
        )
        self.seed = seed
        try:
            self._prepare(model, inputs, kwargs, double=double)
        except (RuntimeError, TypeError, ValueError):
            # A model that makes its own single-precision tensors can't run in double precision.
            self._prepare(model, inputs, kwargs, double=False)
        self.scale = max((float(out.abs().max()) for out in self.expected if out.numel()), default=0.0) or 1.0

    def _prepare(self, model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], *, double: bool) -> None:
        def own(value: Tensor) -> Tensor:
            return value.detach().to(torch.float64 if double and value.is_floating_point() else value.dtype, copy=True)

        # Copies, since reordering writes into them, and a forward may write into its buffers.
        self.states = {name: own(value) for name, value in enlivened(model, self.seed).items()}
        self.model = duplicate(model, self.states).eval()
        self.arguments = pytree.tree_map_only(
            Tensor,
            lambda t: t.detach().double() if double and t.is_floating_point() else t.detach(),
            (tuple(inputs), dict(kwargs)),
        )
        self.expected = self._outputs(self.states)

    def error(self, groups: tuple[Group, ...]) -> float:
        """Return by how much the outputs move; infinity when the model can't run any more."""
        return max(self._moved(groups, reorder) for reorder in (_cycle, _swap))

    def _moved(self, groups: tuple[Group, ...], reorder: Callable[[int, torch.Generator], Tensor]) -> float:
        draw = generator(self.seed, "certify", reorder.__name__)
        orders = {group.name: reorder(group.size, draw) for group in groups}
        try:
            with reordered(self.states, groups, orders) as states:
                got = self._outputs(states)
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError):
            return float("inf")  # it ran before its units were reordered
        worst = 0.0
        for a, b in zip(self.expected, got, strict=True):
            if a.shape != b.shape:
                return float("inf")
            if a.numel():
                difference = (a - b).abs()
                both_nan = a.isnan() & b.isnan()
                same_inf = a.isinf() & (a == b)
                difference = difference.masked_fill(both_nan | same_inf, 0.0)
                worst = max(worst, float(difference.nan_to_num(nan=float("inf")).max()))
        return worst / self.scale

    def _outputs(self, states: dict[str, Tensor]) -> list[Tensor]:
        arguments, kwargs = self.arguments
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            with as_it_was(self.model), running_on(self.model, states):
                out = self.model(*arguments, **kwargs)
        leaves = pytree.tree_leaves(plain(out))
        return [
            leaf.double() if not leaf.is_complex() else torch.view_as_real(leaf).double()
            for leaf in leaves
            if isinstance(leaf, Tensor)
        ]
