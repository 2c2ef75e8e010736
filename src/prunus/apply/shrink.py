"""How do pruned units leave for real?

Parameters and buffers are sliced, layers' size attributes follow, and the result is compared with the traced computation on
the same sliced tensors. If they differ (a size written into ``forward``), the traced computation itself is the pruned model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.apply.mend import mend_module, rebuild_flat
from prunus.apply.mend_sizes import mend_sizes
from prunus.apply.regraph import PrunedGraph, pruned_graph
from prunus.core.errors import ModelError, ShapeError
from prunus.core.runtime import seeded
from prunus.graph import AxisGraph, analyze
from prunus.graph.states import canonical_states, duplicate, enlivened, running_on
from prunus.graph.trace import plain

__all__ = ["Shrunk", "cut_down", "difference", "shrink"]


@dataclass(frozen=True)
class Shrunk:
    """The smaller model.

    ``kind`` says what it is: ``eager``, the same Python class, or ``graph``, the traced computation, because ``forward`` holds
    a size that nothing can change. ``notes`` say why.
    """

    model: nn.Module
    kind: Literal["eager", "graph"]
    notes: tuple[str, ...] = ()


def shrink(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    keep: Mapping[str, Tensor],
    *,
    kwargs: Mapping[str, Any] | None = None,
    prefer: Literal["eager", "graph"] = "eager",
) -> Shrunk:
    """Return a copy of ``model`` without the units that ``keep`` drops; ``model`` isn't changed.

    Args:
        inputs: what the model is compared on, as for ``analyze``.
        keep: for each group by name, which units stay, ``(units,)`` bool; groups that aren't named stay whole.
        prefer: ``graph`` takes the traced computation without trying the class first.

    Raises:
        ModelError: an unknown group, or one that would lose all of its units.
        ShapeError: a mask of another length than its group.
    """
    _check(graph, keep)
    dropped = {name: mask for name, mask in keep.items() if not bool(mask.all())}
    if not dropped and prefer == "eager":
        return Shrunk(duplicate(model), "eager")
    if graph.solution is None:
        graph = analyze(model, inputs, kwargs)
    if prefer == "graph":
        return Shrunk(cut_down(model, graph, dropped)[1], "graph")
    smaller, reference = cut_down(model, graph, dropped)
    problem = difference(smaller, reference, inputs, kwargs or {})
    if not problem:
        return Shrunk(smaller, "eager")
    reference.train(model.training)
    note = f"the module itself can't run at the new sizes ({problem}), so the traced computation takes its place"
    return Shrunk(reference, "graph", (note,))


def cut_down(model: nn.Module, graph: AxisGraph, dropped: Mapping[str, Tensor]) -> tuple[nn.Module, PrunedGraph]:
    """Return a sliced and mended copy of the model, and the traced computation on the same tensors."""
    assert graph.solution is not None
    smaller = duplicate(model)
    _slice(smaller, _kept_positions(graph, dropped, canonical_states(model)))
    counts = {name: int(mask.sum()) for name, mask in dropped.items()}
    mend_sizes(model, smaller, graph.solution, counts)
    parameters = frozenset(name for name, _ in smaller.named_parameters())
    return smaller, pruned_graph(graph.solution, counts, canonical_states(smaller), parameters)


def _check(graph: AxisGraph, keep: Mapping[str, Tensor]) -> None:
    sizes = {group.name: group.size for group in graph.groups}
    for name, mask in keep.items():
        if name not in sizes:
            raise ModelError(
                f"no group {name!r} can be pruned in this model: got it in keep; see the groups of analyze()"
            )
        if mask.shape != (sizes[name],) or mask.dtype != torch.bool:
            raise ShapeError(
                f"keep[{name!r}] must be a bool mask of {sizes[name]} units: got {mask.dtype} {tuple(mask.shape)}"
            )
        if not bool(mask.any()):
            raise ModelError(f"group {name!r} would lose all of its {sizes[name]} units: keep at least one")


def _kept_positions(
    graph: AxisGraph, dropped: Mapping[str, Tensor], states: Mapping[str, Tensor]
) -> dict[tuple[str, int], Tensor]:
    """Return, for each tensor and dimension that loses something, which positions stay: a position goes with any of its units."""
    along: dict[tuple[str, int], Tensor] = {}
    for group in graph.groups:
        if group.name not in dropped:
            continue
        for member in group.members:
            key = (member.tensor, member.dim)
            mask = along.setdefault(key, torch.ones(states[member.tensor].shape[member.dim], dtype=torch.bool))
            mask[member.index[~dropped[group.name].cpu()].reshape(-1)] = False
    return along


def _slice(model: nn.Module, along: Mapping[tuple[str, int], Tensor]) -> None:
    """Slice the tensors in place of the old ones, wherever they are tied, and let the layers' attributes follow."""
    states = canonical_states(model)
    masks: dict[int, dict[int, Tensor]] = {}
    for (name, dim), mask in along.items():
        masks.setdefault(id(states[name]), {})[dim] = mask
    sliced: dict[int, Tensor] = {}
    for module in list(model.modules()):
        kept: dict[str, Tensor] = {}
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or id(tensor) not in masks:
                continue
            if id(tensor) not in sliced:
                sliced[id(tensor)] = _cut(tensor, masks[id(tensor)])
            if 0 in masks[id(tensor)]:
                kept[name] = masks[id(tensor)][0]
            setattr(module, name, sliced[id(tensor)])
            if (name, tensor.dim()) == ("weight", 4) and 0 in masks[id(tensor)]:
                kept["weight"] = masks[id(tensor)][0]
        rebuild_flat(module)
        mend_module(module, kept)


@torch.no_grad()
def _cut(tensor: Tensor, masks: Mapping[int, Tensor]) -> Tensor:
    value = tensor.detach()
    for dim, mask in masks.items():
        value = value.index_select(dim, torch.nonzero(mask).flatten().to(tensor.device))
    value = value.contiguous()
    return nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


@torch.no_grad()
def difference(smaller: nn.Module, reference: PrunedGraph, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return why the two don't compute the same; empty when they do."""
    modes = {module: module.training for module in smaller.modules()}
    try:
        smaller.eval()
        if any(value.device.type == "meta" for value in smaller.state_dict().values()):
            return ""
        values = enlivened(smaller)
        with seeded(0, "shrink"), running_on(smaller, values):
            try:
                got = smaller(*inputs, **kwargs)
            except Exception as error:
                return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
        with seeded(0, "shrink"), running_on(reference, values):
            try:
                expected = pytree.tree_leaves(reference(*inputs, **kwargs))
            except Exception:
                # The recorded path held for the old values only (experts that they chose): there is nothing to compare with.
                return ""
        flat = [leaf for leaf in pytree.tree_leaves(plain(got)) if isinstance(leaf, Tensor)]
        for one, other in zip(expected, flat, strict=True):
            if one.shape != other.shape:
                return f"its output has the shape {tuple(other.shape)} instead of {tuple(one.shape)}"
            scale = float(one.abs().max()) if one.numel() else 0.0
            if one.is_floating_point() and not torch.allclose(
                one, other, rtol=1e-3, atol=1e-4 * max(scale, 1e-6), equal_nan=True
            ):
                return "its output differs from the traced computation on the same parameters"
        return ""
    finally:
        for module, training in modes.items():
            module.training = training
