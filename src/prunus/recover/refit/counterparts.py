"""Under which name is a module of the uncut model found after the cut?

Widths change no names. Blocks and experts that leave do: what comes after them in their container moves up, and the container
notes in ``kept_entries`` which of its entries are left.
"""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["names_after"]


def names_after(model: nn.Module, reference: nn.Module) -> dict[str, str]:
    """Return the name in ``model`` of every module of ``reference`` that hasn't left with its block.

    >>> dense, small = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(n))) for n in (3, 2))
    >>> small.kept_entries = (0, 2)
    >>> names_after(small, dense)
    {'': '', '0': '0', '2': '1'}
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    old_modules = dict(reference.named_modules(remove_duplicate=False))
    names: dict[str, str] = {}
    for old in old_modules:
        if not old:
            names[old] = old
            continue
        parent, _, last = old.rpartition(".")
        if parent not in names:
            continue
        left = _place_after(last, old_modules[parent], modules.get(names[parent]))
        if left is not None:
            names[old] = f"{names[parent]}.{left}".removeprefix(".")
    return names


def _place_after(name: str, before: Any, after: Any) -> str | None:
    known = vars(after).get("kept_entries") if after is not None else None
    if known is None or not name.isdecimal():
        return name
    place = vars(before).get("kept_entries", range(len(before)))[int(name)]
    return str(known.index(place)) if place in known else None
