"""How do entries leave the containers that hold them, and which numbers and lists follow?"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply.classes.configs import follow_lists, lists_of_entries, lists_of_numbers
from prunus.apply.classes.slices import slice_tensors
from prunus.graph import Group

__all__ = ["Follow", "keep_entries", "take_out", "ways_to_follow"]

_MOST_LISTS = 3
"""So many lists that may number units are looked at: each may or may not."""


@dataclass(frozen=True)
class Follow:
    """What follows when units leave: what counts them (numbers, lists with an entry for each), lists that number some, by name."""

    counts: bool = False
    numbers: frozenset[str] = frozenset()


def ways_to_follow(whole: nn.Module, group: Group) -> Iterator[Follow]:
    """Yield what may follow, the likeliest first: of lists that may number units, those that are called so."""
    counted = group.kind == "expert" or bool(lists_of_entries(whole, group.containers[0]))
    names = [n for _, n in lists_of_numbers(whole, group.containers[0])] if group.kind == "block" else []
    called = {name for name in names if re.search("layer|block|index|indic", name)}
    some = names[:_MOST_LISTS]
    sets = [frozenset(chosen) for n in range(len(some) + 1) for chosen in itertools.combinations(some, n)]
    for numbers in sorted(sets, key=lambda chosen: len(chosen ^ called)):
        yield from (Follow(counts, numbers) for counts in ((True, False) if counted else (False,)))


def take_out(smaller: nn.Module, group: Group, keep: Tensor, follow: Follow) -> None:
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
