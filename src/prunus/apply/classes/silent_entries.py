"""Does a model without some blocks or experts compute what it does where those do nothing?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from prunus.apply.classes.entry_removal import Follow, take_out
from prunus.apply.traced.same_operations import runs_without
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.runtime import seeded
from prunus.core.structures.forms import tensors_of
from prunus.graph import Group
from prunus.graph.tracing.remembered import Remembered
from prunus.graph.tracing.states import as_it_was, canonical_states, duplicate, enlivened
from prunus.graph.tracing.trace import Trace, trace

__all__ = ["differs", "far_apart", "lively", "outputs_of", "same_without", "silent_blocks"]


@torch.no_grad()
def differs(
    whole: nn.Module,
    cuts: Sequence[tuple[Group, Tensor]],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    follow: Follow | None = None,
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
            take_out(smaller, group, keep, follow or Follow())
        got = outputs_of(smaller, inputs, kwargs)
    except Exception as error:
        raise_if_out_of_memory(error)
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"
    with ExitStack() as silent:
        for group, keep in cuts:
            silent.enter_context(
                silent_blocks(whole, group, keep) if group.kind == "block" else SilentExperts(whole, group, keep)
            )
        expected = outputs_of(whole, inputs, kwargs)
    if far_apart(expected, got):
        return "its output differs from the whole model with these made to do nothing"
    return ""


def same_without(
    whole: nn.Module,
    dense: Trace,
    cuts: Sequence[tuple[Group, Tensor]],
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    memory: Remembered,
) -> bool:
    """Tell whether the cut model runs what the whole one does whose dropped blocks do nothing, on the same tensors.

    Args:
        dense: what ``whole`` runs.
        memory: what modules ran in earlier traces.
    """
    smaller = duplicate(whole, dict(whole.named_parameters()))
    name_of = {id(value): name for name, value in canonical_states(smaller).items()}
    try:
        for group, keep in cuts:
            take_out(smaller, group, keep, Follow())
        names = [name_of.get(id(value), "") for value in canonical_states(smaller).values()]
        own = trace(smaller, inputs, kwargs, real=False, memory=memory)
    except Exception as error:  # whatever a class raises without its blocks
        raise_if_out_of_memory(error)
        return False
    silent = {
        f"{group.containers[0]}.{group.entries[unit]}".removeprefix(".")
        for group, keep in cuts
        for unit in torch.nonzero(~keep).flatten().tolist()
    }
    return runs_without(own, dense, silent, names)


def lively(model: nn.Module) -> nn.Module:
    """Return a copy for evaluation in which no constant weights hide anything."""
    own = {name: value.detach().clone() for name, value in enlivened(model).items()}
    return duplicate(model, own).eval()


def far_apart(expected: Sequence[Tensor], got: Sequence[Tensor]) -> bool:
    """Tell whether outputs differ by more than rounding, as far as both have them in one shape."""
    for one, other in zip(expected, got, strict=False):
        if one.shape != other.shape or not one.is_floating_point():
            continue  # one value for each expert or layer (router logits, caches): there are fewer now
        scale = float(one.abs().max()) if one.numel() else 0.0
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * max(scale, 1e-6), equal_nan=True):
            return True
    return False


def outputs_of(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors of a model's answer; it stays as it is, and draws the same numbers each time."""
    with as_it_was(model), seeded(0, "entries"):
        out = model(*inputs, **kwargs)
    return tensors_of(out)


@contextmanager
def silent_blocks(model: nn.Module, group: Group, keep: Tensor) -> Iterator[None]:
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


class SilentExperts(TorchFunctionMode):
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
