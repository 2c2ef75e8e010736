"""How do whole modules leave: residual blocks of a stack, experts of a mixture?

Their entries are deleted from the containers that hold them, tensors with a slice for each are sliced, and numbers that count or
number the entries follow. The result is compared with the whole model in which those modules were made to do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply.classes.configs import built_again, built_from_config, fit_config
from prunus.apply.classes.entry_removal import Follow, take_out, ways_to_follow
from prunus.apply.classes.silent_entries import differs, far_apart, lively, outputs_of
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.graph import Group
from prunus.graph.tracing.states import canonical_states, duplicate

__all__ = ["comes_back", "drop_entries"]


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
    follow, problem = _way(lively(model), inputs, group, keep, kwargs or {})
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
        expected = outputs_of(duplicate(model).eval(), inputs, kwargs)
        try:
            got = outputs_of(again.eval(), inputs, kwargs)
        except Exception as error:  # whatever a class raises at a config that it doesn't like
            raise_if_out_of_memory(error)
            return False
    return not far_apart(expected, got)


def _way(
    whole: nn.Module, inputs: tuple[Any, ...], group: Group, keep: Tensor, kwargs: Mapping[str, Any]
) -> tuple[Follow, str]:
    """Return what must follow, and why nothing works (if so).

    Where several ways run as they should, that is taken whose config builds the same again: a constructor reads more of it.
    """
    problem, found = "", None
    ways = list(ways_to_follow(whole, group))
    for follow in ways:
        problem = differs(whole, [(group, keep)], inputs, kwargs, follow)
        if not problem and (len(ways) == 1 or comes_back(_without(whole, group, keep, follow), inputs, kwargs)):
            return follow, ""
        if not problem and found is None:
            found = follow
    return (Follow(), problem) if found is None else (found, "")


def _without(model: nn.Module, group: Group, keep: Tensor, follow: Follow) -> nn.Module:
    smaller = duplicate(model)
    take_out(smaller, group, keep, follow)
    fit_config(model, smaller)
    return smaller
