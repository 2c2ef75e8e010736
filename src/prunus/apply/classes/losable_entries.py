"""Which blocks and experts can a class do without? Each is tried, where it is if that tells enough, else in the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.apply.classes.configs import lists_of_entries, lists_of_numbers
from prunus.apply.classes.entry_removal import keep_entries, ways_to_follow
from prunus.apply.classes.silent_entries import differs, far_apart, lively, outputs_of, same_without, silent_blocks
from prunus.apply.traced.same_operations import has_fast_kernels
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.graph import Group
from prunus.graph.tracing.remembered import Remembered
from prunus.graph.tracing.states import canonical_states, duplicate, one_example
from prunus.graph.tracing.trace import trace

__all__ = ["stacks_that_follow"]

_PLAIN = (Tensor, bool, int, float, str, torch.dtype, torch.device)


def stacks_that_follow(
    model: nn.Module,
    inputs: tuple[Any, ...],
    stacks: Sequence[Group],
    kwargs: Mapping[str, Any] | None = None,
    *,
    thin: nn.Module | None = None,
    slim: Callable[[], nn.Module] | None = None,
    memory: Remembered | None = None,
) -> tuple[Group, ...]:
    """Return the stacks with those units alone that the class can lose, each tried; a stack of none is gone.

    Args:
        thin: the model without some of its units: what it can lose of its blocks the model can, and it takes less time to say so.
        slim: makes the model with still fewer units, for runs; traces know much of the thin one.
        memory: what modules ran in earlier traces.
    """
    if not stacks or any(value.is_meta for value in canonical_states(model).values()):
        return tuple(stacks)
    # Experts are counted by numbers, which a width of the thin model may equal.
    experts = [group for group in stacks if group.kind == "expert"]
    blocks = [group for group in stacks if group.kind != "expert"]
    found: list[Group] = []
    if blocks:
        whole = lively(model if thin is None else thin)
        runs = (lambda: whole) if slim is None else (lambda: lively(slim()))
        found = _tried(whole, cache(runs), inputs, kwargs or {}, blocks, memory or Remembered())
    if experts:
        whole = lively(model)
        found += _tried(whole, lambda: whole, inputs, kwargs or {}, experts, memory or Remembered())
    order = {group.name: place for place, group in enumerate(stacks)}
    return tuple(sorted(found, key=lambda group: order[group.name]))


@torch.no_grad()
def _few(
    whole: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return one example where the model takes one alone, since blocks know nothing of batches; else the inputs."""
    few = one_example(inputs, kwargs)
    if few is not None:
        try:
            outputs_of(whole, *few)
        except Exception as error:  # whatever a class raises at a batch of one
            raise_if_out_of_memory(error)
        else:
            return few
    return inputs, kwargs


def _tried(
    whole: nn.Module,
    runs: Callable[[], nn.Module],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    stacks: Sequence[Group],
    memory: Remembered,
) -> list[Group]:
    """Return the stacks that ``whole`` can lose; first each is looked at where it is, which costs no run of the rest.

    Args:
        runs: makes the model that is run without some of them: a slimmer one tells the same.
    """
    tried: dict[tuple[str, tuple[int, ...]], bool] = {}
    looks: dict[tuple[str, tuple[int, ...]], str] = {}
    blocks_only = all(group.kind == "block" for group in stacks)
    traced = (inputs, kwargs)  # as the cuts of the model were: much of it is known from there
    inputs, kwargs = _few(whole, inputs, kwargs) if blocks_only else (inputs, kwargs)
    given = _given(whole, {_around(group) for group in stacks} - {""}, inputs, kwargs)
    dense = None
    if not has_fast_kernels(whole):
        with suppress(ModelError):
            dense = trace(whole, *traced, real=False, memory=memory)

    def look(group: Group, units: Sequence[int]) -> str:
        key = group.name, tuple(units)
        if key not in looks:
            looks[key] = _inside(whole, group, _without_units(group, units), given)
        return looks[key]

    def can_lose(group: Group, units: Sequence[int]) -> bool:
        key = group.name, tuple(units)
        if key not in tried:
            cut = [(group, _without_units(group, units))]
            tried[key] = look(group, units) != "apart" and any(
                not differs(runs(), cut, inputs, kwargs, way) for way in ways_to_follow(runs(), group)
            )
        return tried[key]

    def together(cuts: Sequence[tuple[Group, Sequence[int]]]) -> None:
        """Try blocks of several stacks in one run, and halves of them where that fails."""
        if len(cuts) == 1:
            can_lose(*cuts[0])
        elif cuts and not differs(runs(), [(g, _without_units(g, u)) for g, u in cuts], inputs, kwargs):
            tried.update({(group.name, tuple(units)): True for group, units in cuts})
        elif cuts:
            together(cuts[: len(cuts) // 2])
            together(cuts[len(cuts) // 2 :])

    def each(cuts: Sequence[tuple[Group, Sequence[int]]]) -> None:
        """Try those together that look right where they are, and the others one by one; the operations may tell without a run."""
        masks = [(group, _without_units(group, units)) for group, units in cuts]
        if masks and dense is not None and same_without(whole, dense, masks, *traced, memory):
            tried.update({(group.name, tuple(units)): True for group, units in cuts})
            return
        together([cut for cut in cuts if look(*cut) not in ("apart", "uneven")])
        for cut in cuts:
            can_lose(*cut)

    beside = [g for g in stacks if g.kind == "block" and not _listed(whole, g)]
    for level in _levels(beside):
        each([(group, _halves(group)[0]) for group in level if _halves(group)])
        lost = [g for g in level if len(_halves(g)) > 1 and tried[g.name, tuple(_halves(g)[0])]]
        each([(group, _halves(group)[1]) for group in lost])
    found = []
    for group in stacks:
        if all(can_lose(group, half) for half in _halves(group)):
            found.append(group)
        elif group.kind == "block":
            units = [unit for unit in range(group.size) if can_lose(group, [unit])]
            if units:
                entries = tuple(group.entries[unit] for unit in units)
                found.append(replace(group, size=len(units), entries=entries, min_units=0))
    return found


def _listed(whole: nn.Module, group: Group) -> bool:
    """Tell whether lists count or number the blocks, so that they may have to follow."""
    path = group.containers[0]
    return bool(lists_of_entries(whole, path) or lists_of_numbers(whole, path))


def _around(group: Group) -> str:
    """Return the path of the module whose forward runs the blocks of a stack."""
    return group.containers[0].rpartition(".")[0] if group.kind == "block" else ""


@torch.no_grad()
def _given(
    whole: nn.Module, paths: Set[str], inputs: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return what the modules at ``paths`` are given when the model runs, as far as tensors and plain values say all of it."""
    given: dict[str, tuple[Any, Any]] = {}
    paths = {path for path in paths if not isinstance(whole.get_submodule(path), nn.ModuleList | nn.ModuleDict)}
    if not paths:
        return given

    def hook_of(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, named: Any) -> None:
            leaves = pytree.tree_leaves((arguments, named))
            if path not in given and all(leaf is None or isinstance(leaf, _PLAIN) for leaf in leaves):
                given[path] = pytree.tree_map_only(Tensor, torch.clone, (arguments, named))

        return hook

    with ExitStack() as hooks:
        for path in paths:
            hook = whole.get_submodule(path).register_forward_pre_hook(hook_of(path), with_kwargs=True)
            hooks.callback(hook.remove)
        outputs_of(whole, inputs, kwargs)
    return given


@torch.no_grad()
def _inside(whole: nn.Module, group: Group, keep: Tensor, given: Mapping[str, tuple[Any, Any]]) -> str:
    """Return what the module around the blocks gives without them, beside what it gives when they do nothing.

    ``apart``: something else, and so does the whole model. ``alike``: the same. ``uneven``: more or less than it did (a list with
    an entry for each block), which the rest of the model may not mind. ``unknown``: it doesn't run by itself.
    """
    path = _around(group)
    if path not in given or _listed(whole, group):
        return "unknown"

    def run(part: nn.Module) -> list[Tensor]:
        arguments, named = pytree.tree_map_only(Tensor, torch.clone, given[path])
        return outputs_of(part, arguments, named)

    try:
        with silent_blocks(whole, group, keep):
            expected = run(whole.get_submodule(path))
    except Exception as error:
        raise_if_out_of_memory(error)
        return "unknown"
    try:
        part = whole.get_submodule(path)
        part = duplicate(part, dict(part.named_parameters()))
        entries = [group.entries[unit] for unit in torch.nonzero(~keep).flatten().tolist()]
        container = group.containers[0].rpartition(".")[2]
        keep_entries(
            part, container, [n for n in range(len(part.get_submodule(container)._modules)) if n not in entries]
        )
        got = run(part)
    except Exception as error:
        raise_if_out_of_memory(error)
        return "apart"
    if [one.shape for one in expected] != [other.shape for other in got]:
        return "uneven"
    return "apart" if far_apart(expected, got) else "alike"


def _halves(group: Group) -> list[range]:
    """Return the units to try to do without: of blocks the first and the last ones, of experts the last."""
    middle = max(group.size // 2, group.min_units)
    halves = (range(middle), range(middle, group.size)) if group.kind == "block" else (range(middle, group.size),)
    return [half for half in halves if half]


def _without_units(group: Group, units: Sequence[int]) -> Tensor:
    keep = torch.ones(group.size, dtype=torch.bool)
    keep[list(units)] = False
    return keep


def _levels(stacks: Sequence[Group]) -> list[list[Group]]:
    """Return the stacks by how many others they lie in: those of one level lie beside one another."""
    levels: dict[int, list[Group]] = {}
    for group in stacks:
        path = group.containers[0]
        around = [o for o in stacks if o is not group and f"{path}.".startswith(f"{o.containers[0]}.".lstrip("."))]
        levels.setdefault(len(around), []).append(group)
    return list(levels.values())
