"""How do pruned units leave for real?

Parameters and buffers are sliced, layers' size attributes follow, and the result is compared with the traced computation on
the same sliced tensors. If they differ (a size written into ``forward``), the traced computation itself is the pruned model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prunus.apply.classes.attention_scales import fold_scales
from prunus.apply.classes.built_smaller import built_smaller, cut_config
from prunus.apply.classes.configs import built_again, built_from_config, fit_config
from prunus.apply.classes.entries import comes_back, drop_entries
from prunus.apply.classes.forward_sizes import mend_sizes
from prunus.apply.classes.slices import slice_tensors
from prunus.apply.difference import DIFFERS, Trial, difference, why_not_run
from prunus.apply.traced.regraph import PrunedGraph, resized
from prunus.apply.traced.reread import Reread
from prunus.apply.traced.same_operations import compared, has_fast_kernels
from prunus.apply.traced.traced_model import with_limits
from prunus.core.errors import ModelError, ShapeError
from prunus.graph import AxisGraph, Group, analyze
from prunus.graph.tracing.garbage import settled
from prunus.graph.tracing.states import (
    canonical_states,
    duplicate,
    one_example,
)

_NO_CONFIG = "no setting of its config builds these sizes, so from_pretrained won't bring it back: keep it as a bundle"

__all__ = ["Shrunk", "cut_as_said", "cut_down", "cut_to_fit", "kept_positions", "shrink"]


@dataclass(frozen=True)
class Shrunk:
    """The smaller model.

    ``kind`` says what it is: ``eager``, the same Python class, or ``graph``, the traced computation, because ``forward`` holds
    a size that nothing can change. ``notes`` say why. ``folded`` holds by what parameters were multiplied, by name and in a shape
    that broadcasts: where ``forward`` takes the scale of an attention from the head dimension.
    """

    model: nn.Module
    kind: Literal["eager", "graph"]
    notes: tuple[str, ...] = ()
    folded: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def comes_back(self) -> bool:
        """Whether ``from_pretrained`` brings it back, where its class has one."""
        return self.kind == "eager" and _NO_CONFIG not in self.notes


@settled()
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
        keep: for each group (or stack) by name, which units stay, ``(units,)`` bool; what isn't named stays whole. Blocks and
            experts leave first.
        prefer: ``graph`` takes the traced computation without trying the class first.

    Raises:
        ModelError: an unknown group, or one that would lose all of its units.
        ShapeError: a mask of another length than its group.
    """
    _check(graph, keep)
    dropped = {name: mask for name, mask in keep.items() if not bool(mask.all())}
    stacks = [stack for stack in graph.stacks if stack.name in dropped]
    if stacks:
        return _without_modules(model, inputs, graph, dropped, stacks, kwargs, prefer)
    if not dropped and prefer == "eager":
        return Shrunk(duplicate(model), "eager")
    if graph.solution is None:
        graph = analyze(model, inputs, kwargs)
    assert graph.solution is not None
    counts = {name: int(mask.sum()) for name, mask in dropped.items()}
    if prefer == "graph":
        traced = cut_down(model, graph, dropped)[1]
        made = with_limits(traced(), model, graph.solution, counts, inputs, kwargs or {}, asked_for=True)
        return Shrunk(made, "graph")
    if graph.joints and (config := cut_config(vars(model)["config"], graph, counts)) is not None:
        built, said, _ = cut_as_said(model, graph, dropped, config, inputs, kwargs or {})
        if built is not None:
            return Shrunk(built, "eager", (), said().folded)
    smaller, traced, problem = cut_to_fit(model, graph, dropped, inputs, kwargs or {})
    reference = traced()
    if not problem:
        fits = _fit_config(model, smaller, reference, inputs, kwargs or {})
        return Shrunk(smaller, "eager", () if fits else (_NO_CONFIG,), reference.folded)
    limited = with_limits(reference, model, graph.solution, counts, inputs, kwargs or {})
    limited.train(model.training)
    note = f"the module itself can't run at the new sizes ({problem}), so the traced computation takes its place"
    return Shrunk(limited, "graph", (note, f"it holds for {limited.limits}"))


def _without_modules(
    model: nn.Module,
    inputs: tuple[Any, ...],
    graph: AxisGraph,
    dropped: Mapping[str, Tensor],
    stacks: Sequence[Group],
    kwargs: Mapping[str, Any] | None,
    prefer: Literal["eager", "graph"],
) -> Shrunk:
    """Drop blocks and experts, and then what else there is to drop."""
    rest = {name: mask for name, mask in dropped.items() if name not in {stack.name for stack in stacks}}
    if rest and any(stack.kind == "block" for stack in stacks):
        raise ModelError(
            "blocks leave in a cut of their own: names of what follows them change; cut the rest afterwards"
        )
    for stack in stacks:
        model = drop_entries(model, inputs, stack, dropped[stack.name], kwargs)
    if not rest and prefer == "eager":
        return Shrunk(model, "eager", () if comes_back(model, inputs, kwargs or {}) else (_NO_CONFIG,))
    return shrink(model, inputs, analyze(model, inputs, kwargs), rest, kwargs=kwargs, prefer=prefer)


def _fit_config(
    model: nn.Module, smaller: nn.Module, reference: PrunedGraph, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Let a config follow, unless forward computes something else with it then; return whether all is well."""
    if not built_from_config(smaller):  # a library whose configs aren't looked into builds the old sizes
        return not hasattr(type(smaller), "from_pretrained")
    held = vars(smaller).get("config")
    before = copy.deepcopy(held)
    if not fit_config(model, smaller):
        return False
    if not difference(smaller, lambda: reference, inputs, kwargs) and _comes_back(smaller, reference, inputs, kwargs):
        return True
    vars(held).update(vars(before))
    return False


def _comes_back(smaller: nn.Module, reference: PrunedGraph, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the model that the config builds computes the same: its constructor makes constants anew."""
    if any(value.device.type == "meta" for value in smaller.state_dict().values()):
        return True
    again = built_again(smaller)
    return again is not None and not difference(again, lambda: reference, inputs, kwargs)


def cut_as_said(
    model: nn.Module,
    graph: AxisGraph,
    dropped: Mapping[str, Tensor],
    config: Any,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    trial: Trial | None = None,
) -> tuple[nn.Module | None, Callable[[], PrunedGraph], str]:
    """Return what ``config`` builds with the weights that are left, the traced computation, and why they differ.

    Args:
        config: says the sizes of the cut.
        trial: the result is only looked at.
    """
    sliced, traced = cut_down(model, graph, dropped, trial=trial)
    built = built_smaller(sliced, config)
    if built is None:
        return None, traced, "the class makes something else of this config than these weights fit"
    problem = difference(built, traced, inputs, kwargs)
    if problem == DIFFERS:
        counts = {name: int(mask.sum()) for name, mask in dropped.items()}
        few = one_example(inputs, kwargs)
        traced().folded = fold_scales(built, traced(), graph, counts, *(few or (inputs, kwargs)))
        problem = difference(built, traced, inputs, kwargs) if traced().folded else problem
    return (None if problem else built), traced, problem


def cut_to_fit(
    model: nn.Module,
    graph: AxisGraph,
    dropped: Mapping[str, Tensor],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    tolerance: float = 1e-9,
    trial: Trial | None = None,
) -> tuple[nn.Module, Callable[[], PrunedGraph], str]:
    """Return the sliced model, the traced computation (made when asked for), and why they differ, after all that can be done
    about it.

    Args:
        trial: the sliced model is only looked at, and not the first of its kind.
    """
    smaller, traced = cut_down(model, graph, dropped, trial=trial)
    if any(value.is_meta for value in canonical_states(smaller).values()):
        return smaller, traced, ""

    def differs(reread: Reread | None = None) -> str:
        sure = operations == "numbers"
        return difference(smaller, traced, inputs, kwargs, tolerance=tolerance, trial=trial, reread=reread, sure=sure)

    problem = why_not_run(smaller, inputs, kwargs, trial)
    if problem:
        return smaller, traced, problem
    operations = compared(smaller, traced, inputs, kwargs, None if trial is None else trial.memory)
    if operations == "numbers":
        problem = DIFFERS
    elif operations != "same" or has_fast_kernels(smaller):
        problem = differs()
    if trial is not None and operations == "same" and not problem:
        trial.proven.add(traced().graph_module)
    if problem == DIFFERS:
        counts = {name: int(mask.sum()) for name, mask in dropped.items()}
        few = one_example(inputs, kwargs)
        folded = fold_scales(smaller, traced(), graph, counts, *few) if few is not None else {}
        traced().folded = folded or fold_scales(smaller, traced(), graph, counts, inputs, kwargs)
        if traced().folded or operations == "numbers":
            problem = differs()
    assert graph.solution is not None
    recorded = graph.solution.solver.trace
    if problem == DIFFERS and recorded.recorded:
        reread = Reread(model, recorded, inputs, kwargs)
        problem = differs(reread)
    return smaller, traced, problem


def cut_down(
    model: nn.Module, graph: AxisGraph, dropped: Mapping[str, Tensor], *, trial: Trial | None = None
) -> tuple[nn.Module, Callable[[], PrunedGraph]]:
    """Return a sliced and mended copy of the model, and what makes the traced computation on the same tensors.

    Args:
        trial: the copy is to be looked at, not to be kept: parameters that nothing is cut from are the model's own.
    """
    assert graph.solution is not None
    solution = graph.solution
    smaller = duplicate(model, dict(model.named_parameters()) if trial is not None else None)
    known = None if trial is None else trial.slices
    slice_tensors(smaller, kept_positions(graph, dropped, canonical_states(model)), known)
    counts = {name: int(mask.sum()) for name, mask in dropped.items()}
    mend_sizes(model, smaller, solution, counts)
    parameters = frozenset(name for name, _ in smaller.named_parameters())
    states = canonical_states(smaller)
    computations = {} if trial is None else trial.computations

    def traced() -> PrunedGraph:
        key = frozenset(counts.items())
        if key not in computations:
            computations[key] = resized(solution, counts)
        reference = PrunedGraph(computations[key], states, parameters, solution.solver.trace)
        if isinstance(model, PrunedGraph):  # what came from elsewhere stays guarded
            reference.guard = copy.deepcopy(model.guard)
        return reference

    return smaller, cache(traced)


def _check(graph: AxisGraph, keep: Mapping[str, Tensor]) -> None:
    sizes = {group.name: group.size for group in (*graph.groups, *graph.stacks)}
    least = {stack.name: stack.min_units for stack in graph.stacks}
    for name, mask in keep.items():
        if name not in sizes:
            raise ModelError(
                f"no group {name!r} can be pruned in this model: got it in keep; see the groups of analyze()"
            )
        if mask.shape != (sizes[name],) or mask.dtype != torch.bool:
            raise ShapeError(
                f"keep[{name!r}] must be a bool mask of {sizes[name]} units: got {mask.dtype} {tuple(mask.shape)}"
            )
        if int(mask.sum()) < least.get(name, 1):
            raise ModelError(f"group {name!r} would lose all of its {sizes[name]} units: keep at least one")


def kept_positions(
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
