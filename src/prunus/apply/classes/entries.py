"""How do whole modules leave: residual blocks of a stack, experts of a mixture?

Their entries are deleted from the containers that hold them, tensors with a slice for each are sliced, and numbers that count or
number the entries follow. The result is compared with the whole model in which those modules were made to do nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from prunus.apply.classes.configs import (
    built_again,
    built_from_config,
    fit_config,
    follow_lists,
    lists_of_entries,
    lists_of_numbers,
)
from prunus.apply.classes.slices import slice_tensors
from prunus.apply.traced.same_operations import has_fast_kernels, runs_without
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.core.forms import tensors_of
from prunus.core.runtime import seeded
from prunus.graph import Group
from prunus.graph.tracing.states import as_it_was, canonical_states, duplicate, enlivened, one_example
from prunus.graph.tracing.trace import Trace, trace

_MOST_LISTS = 3
"""So many lists that may number units are looked at: each may or may not."""
_PLAIN = (Tensor, bool, int, float, str, torch.dtype, torch.device)

__all__ = ["comes_back", "drop_entries", "keep_entries", "stacks_that_follow"]


def drop_entries(
    model: nn.Module, inputs: tuple[Any, ...], group: Group, keep: Tensor, kwargs: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return a copy of ``model`` without the blocks or experts that ``keep`` drops; ``model`` isn't changed.

    Args:
        inputs: what the result is compared on.
        group: one of the ``stacks`` of ``analyze``.
        keep: which units stay, ``(units,)`` bool.

    Raises:
        ModelError: fewer would stay than one input takes, or the class can't run without them as it should.
    """
    if int(keep.sum()) < group.min_units:
        raise ModelError(f"{group.name}: at least {group.min_units} of {group.size} must stay: got {int(keep.sum())}")
    follow, problem = _way(_lively(model), inputs, group, keep, kwargs or {})
    if problem:
        raise ModelError(
            f"{group.name}: the model can't lose these without a change of its code ({problem}); leave them whole"
        )
    return _without(model, group, keep, follow)


def comes_back(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether a model that is built from a config computes the same when its config builds it again."""
    if not built_from_config(model) or any(value.is_meta for value in canonical_states(model).values()):
        return True
    again = built_again(model)
    if again is None:
        return False
    with torch.no_grad():
        expected = _outputs(duplicate(model).eval(), inputs, kwargs)
        try:
            got = _outputs(again.eval(), inputs, kwargs)
        except Exception as error:  # whatever a class raises at a config that it doesn't like
            raise_if_out_of_memory(error)
            return False
    return not _apart(expected, got)


def stacks_that_follow(
    model: nn.Module,
    inputs: tuple[Any, ...],
    stacks: Sequence[Group],
    kwargs: Mapping[str, Any] | None = None,
    *,
    thin: nn.Module | None = None,
) -> tuple[Group, ...]:
    """Return the stacks with those units alone that the class can lose, each tried; a stack of none is gone.

    Args:
        thin: the model without some of its units: what it can lose of its blocks the model can, and it takes less time to say so.
    """
    if not stacks or any(value.is_meta for value in canonical_states(model).values()):
        return tuple(stacks)
    # Experts are counted by numbers, which a width of the thin model may equal.
    experts = [group for group in stacks if group.kind == "expert"]
    blocks = [group for group in stacks if group.kind != "expert"]
    found: list[Group] = []
    if blocks:
        whole = _lively(model if thin is None else thin)
        found = _tried(whole, *_few(whole, inputs, kwargs or {}), blocks)
    found += _tried(_lively(model), inputs, kwargs or {}, experts) if experts else []
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
            _outputs(whole, *few)
        except Exception as error:  # whatever a class raises at a batch of one
            raise_if_out_of_memory(error)
        else:
            return few
    return inputs, kwargs


def _tried(
    whole: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], stacks: Sequence[Group]
) -> list[Group]:
    """Return the stacks that ``whole`` can lose; first each is looked at where it is, which costs no run of the rest."""
    tried: dict[tuple[str, tuple[int, ...]], bool] = {}
    looks: dict[tuple[str, tuple[int, ...]], str] = {}
    given = _given(whole, {_around(group) for group in stacks} - {""}, inputs, kwargs)
    dense = None
    if not has_fast_kernels(whole):
        with suppress(ModelError):
            dense = trace(whole, inputs, kwargs, real=False)

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
                not _differs(whole, cut, inputs, kwargs, way) for way in _ways(whole, group)
            )
        return tried[key]

    def together(cuts: Sequence[tuple[Group, Sequence[int]]]) -> None:
        """Try blocks of several stacks in one run, and halves of them where that fails."""
        if len(cuts) == 1:
            can_lose(*cuts[0])
        elif cuts and not _differs(whole, [(g, _without_units(g, u)) for g, u in cuts], inputs, kwargs):
            tried.update({(group.name, tuple(units)): True for group, units in cuts})
        elif cuts:
            together(cuts[: len(cuts) // 2])
            together(cuts[len(cuts) // 2 :])

    def each(cuts: Sequence[tuple[Group, Sequence[int]]]) -> None:
        """Try those together that look right where they are, and the others one by one; the operations may tell without a run."""
        masks = [(group, _without_units(group, units)) for group, units in cuts]
        if masks and dense is not None and _same_operations(whole, dense, masks, inputs, kwargs):
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
        _outputs(whole, inputs, kwargs)
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
        return _outputs(part, arguments, named)

    try:
        with _silent_blocks(whole, group, keep):
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
    return "apart" if _apart(expected, got) else "alike"


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


def _lively(model: nn.Module) -> nn.Module:
    """Return a copy for evaluation in which no constant weights hide anything."""
    own = {name: value.detach().clone() for name, value in enlivened(model).items()}
    return duplicate(model, own).eval()


@dataclass(frozen=True)
class _Follow:
    """What follows when units leave: what counts them (numbers, lists with an entry for each), lists that number some, by name."""

    counts: bool = False
    numbers: frozenset[str] = frozenset()


def _ways(whole: nn.Module, group: Group) -> Iterator[_Follow]:
    """Yield what may follow, the likeliest first: of lists that may number units, those that are called so."""
    counted = group.kind == "expert" or bool(lists_of_entries(whole, group.containers[0]))
    names = [n for _, n in lists_of_numbers(whole, group.containers[0])] if group.kind == "block" else []
    called = {name for name in names if re.search("layer|block|index|indic", name)}
    some = names[:_MOST_LISTS]
    sets = [frozenset(chosen) for n in range(len(some) + 1) for chosen in itertools.combinations(some, n)]
    for numbers in sorted(sets, key=lambda chosen: len(chosen ^ called)):
        yield from (_Follow(counts, numbers) for counts in ((True, False) if counted else (False,)))


def _way(
    whole: nn.Module, inputs: tuple[Any, ...], group: Group, keep: Tensor, kwargs: Mapping[str, Any]
) -> tuple[_Follow, str]:
    """Return what must follow, and why nothing works (if so).

    Where several ways run as they should, that is taken whose config builds the same again: a constructor reads more of it.
    """
    problem, found = "", None
    ways = list(_ways(whole, group))
    for follow in ways:
        problem = _differs(whole, [(group, keep)], inputs, kwargs, follow)
        if not problem and (len(ways) == 1 or comes_back(_without(whole, group, keep, follow), inputs, kwargs)):
            return follow, ""
        if not problem and found is None:
            found = follow
    return (_Follow(), problem) if found is None else (found, "")


def _without(model: nn.Module, group: Group, keep: Tensor, follow: _Follow) -> nn.Module:
    smaller = duplicate(model)
    _drop(smaller, group, keep, follow)
    fit_config(model, smaller)
    return smaller


def _drop(smaller: nn.Module, group: Group, keep: Tensor, follow: _Follow) -> None:
    """Take units out of a model, in place of it."""
    along = {}
    for member in group.members:
        mask = torch.ones(member.index.numel(), dtype=torch.bool)
        mask[member.index[~keep.cpu()].reshape(-1)] = False
        along[member.tensor, member.dim] = mask
    if along:
        slice_tensors(smaller, along)
    dropped = {group.entries[unit] for unit in torch.nonzero(~keep).flatten().tolist()}
    for path in group.containers:
        kept = [i for i in range(len(smaller.get_submodule(path)._modules)) if i not in dropped]
        if group.kind == "block":
            follow_lists(smaller, path, kept, entries=follow.counts, numbers=follow.numbers)
        keep_entries(smaller, path, kept)
    if follow.counts and group.kind == "expert":
        _count(smaller, group.name.rpartition(" ")[0], group.size, int(keep.sum()))


def keep_entries(model: nn.Module, path: str, kept: Sequence[int]) -> None:
    """Delete all other entries of the container at ``path``, in place; it notes which are left under ``kept_entries``.

    A number that is ``i`` in every entry ``i``, whatever it is called, is the place of the entry: it follows.
    """
    container: Any = model.get_submodule(path)
    known = vars(container).get("kept_entries", range(len(container)))
    container.kept_entries = tuple(known[place] for place in kept)
    entries = list(container._modules.values())
    places = list(_places(entries))
    container._modules.clear()
    for new, old in enumerate(kept):
        entry = container._modules[str(new)] = entries[old]
        for inner, name in places:
            assert entry is not None
            setattr(entry.get_submodule(inner), name, new)


def _places(entries: Sequence[nn.Module | None]) -> Iterator[tuple[str, str]]:
    """Yield the submodule and the name of every attribute that holds the place of its entry in all of them."""
    if len(entries) < 2 or entries[0] is None:
        return
    for inner, module in entries[0].named_modules():
        for name, value in vars(module).items():
            if type(value) is int and value == 0 and all(_number(e, inner, name) == i for i, e in enumerate(entries)):
                yield inner, name


def _number(entry: nn.Module | None, inner: str, name: str) -> object:
    try:
        return None if entry is None else vars(entry.get_submodule(inner)).get(name)
    except AttributeError:
        return None


def _count(model: nn.Module, path: str, old: int, new: int) -> None:
    """Let the numbers of a mixture of experts that are as many as its experts follow."""
    for name, module in model.named_modules():
        if path == "model" or name == path or name.startswith(f"{path}."):
            for attribute, value in list(vars(module).items()):
                if type(value) is int and value == old:
                    setattr(module, attribute, new)


@torch.no_grad()
def _differs(
    whole: nn.Module,
    cuts: Sequence[tuple[Group, Tensor]],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    follow: _Follow = _Follow(),
) -> str:
    """Return why the cut model isn't the whole one with the dropped units made to do nothing; empty where it is.

    Args:
        whole: a model that may be written to; the cut one holds the same parameters where nothing was cut.
        cuts: stacks that lie beside one another, and which of their units stay.
    """
    if any(value.is_meta for value in canonical_states(whole).values()):
        return ""
    try:
        smaller = duplicate(whole, dict(whole.named_parameters()))
        for group, keep in cuts:
            _drop(smaller, group, keep, follow)
        got = _outputs(smaller, inputs, kwargs)
    except Exception as error:
        raise_if_out_of_memory(error)
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    with ExitStack() as silent:
        for group, keep in cuts:
            silent.enter_context(
                _silent_blocks(whole, group, keep) if group.kind == "block" else _SilentExperts(whole, group, keep)
            )
        expected = _outputs(whole, inputs, kwargs)
    if _apart(expected, got):
        return "its output differs from the whole model with these made to do nothing"
    return ""


def _same_operations(
    whole: nn.Module,
    dense: Trace,
    cuts: Sequence[tuple[Group, Tensor]],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> bool:
    """Tell whether the cut model runs what the whole one does whose dropped blocks do nothing, on the same tensors.

    Args:
        dense: what ``whole`` runs.
    """
    smaller = duplicate(whole, dict(whole.named_parameters()))
    name_of = {id(value): name for name, value in canonical_states(smaller).items()}
    try:
        for group, keep in cuts:
            _drop(smaller, group, keep, _Follow())
        names = [name_of.get(id(value), "") for value in canonical_states(smaller).values()]
        own = trace(smaller, inputs, kwargs, real=False)
    except Exception as error:  # whatever a class raises without its blocks
        raise_if_out_of_memory(error)
        return False
    silent = {
        f"{group.containers[0]}.{group.entries[unit]}".removeprefix(".")
        for group, keep in cuts
        for unit in torch.nonzero(~keep).flatten().tolist()
    }
    return runs_without(own, dense, silent, names)


def _apart(expected: Sequence[Tensor], got: Sequence[Tensor]) -> bool:
    for one, other in zip(expected, got, strict=False):
        if one.shape != other.shape or not one.is_floating_point():
            continue  # one value for each expert or layer (router logits, caches): there are fewer now
        scale = float(one.abs().max()) if one.numel() else 0.0
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * max(scale, 1e-6), equal_nan=True):
            return True
    return False


def _outputs(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    with as_it_was(model), seeded(0, "entries"):
        out = model(*inputs, **kwargs)
    return tensors_of(out)


@contextmanager
def _silent_blocks(model: nn.Module, group: Group, keep: Tensor) -> Iterator[None]:
    """Let the dropped blocks give back what they took."""

    def hook(module: nn.Module, arguments: Any, named: Any, output: Any) -> Any:
        given = next(leaf for leaf in pytree.tree_leaves((arguments, named)) if isinstance(leaf, Tensor))
        leaves, spec = pytree.tree_flatten(output)
        leaves[next(i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor))] = given
        return pytree.tree_unflatten(leaves, spec)

    with ExitStack() as hooks:
        for unit in torch.nonzero(~keep).flatten().tolist():
            block = model.get_submodule(f"{group.containers[0]}.{group.entries[unit]}".removeprefix("."))
            hooks.callback(block.register_forward_hook(hook, with_kwargs=True).remove)
        yield


class _SilentExperts(TorchFunctionMode):
    """Let the router give the dropped experts the lowest of scores."""

    def __init__(self, model: nn.Module, group: Group, keep: Tensor) -> None:
        super().__init__()
        states = canonical_states(model)
        self.routers = [states[m.tensor] for m in group.members if states[m.tensor].dim() == 2]
        self.dropped = ~keep

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "linear" and any(args[1] is router for router in self.routers):
            return out.masked_fill(self.dropped.to(out.device), -torch.inf)
        return out
