"""What hangs together in a model, as plain values for tables, JSON and charts?

Groups, what one unit of each carries, and where it lies: told from an axis graph, without looking at data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunus.graph import AxisGraph, Member
from prunus.graph.costs.costs import unit_costs

__all__ = ["describe"]


def describe(graph: AxisGraph, model: nn.Module) -> dict[str, Any]:
    """Return a model's groups, what one unit of each carries and where it lies, as plain values.

    ``layers`` are all that hold parameters, in their order; a group's ``places`` are (number of a layer, side), and a side is
    ``out``, ``in``, or nothing for a vector.
    """
    costs, macs = unit_costs(graph, model)
    layers = list(dict.fromkeys(_layer(name) for name, _ in model.named_parameters()))
    total = sum(parameter.numel() for parameter in model.parameters())
    groups = [
        {
            "name": group.name,
            "kind": group.kind,
            "units": group.size,
            "members": _told(_members(group.members, model)),
            "places": [[layers.index(layer), side] for layer, side in _members(group.members, model)],
            "parameters_per_unit": costs[group.name].parameters,
            "macs_per_unit": costs[group.name].macs,
        }
        for group in graph.groups
    ]
    stacks = [
        {"name": s.name, "kind": s.kind, "units": s.size, "members": list(s.containers), "parameters_per_unit": inside // s.size}
        for s in graph.stacks
        for inside in [sum(model.get_parameter(name).numel() for name in set(s.parameters(model)))]
    ]  # fmt: skip
    return {
        "parameters": total,
        "layers": layers,
        "macs": macs,
        "groups": sorted(groups, key=lambda row: -row["units"] * row["parameters_per_unit"]),
        "stacks": stacks,
        "frozen": _frozen(graph),
        "notes": list(graph.notes),
    }


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0] or tensor


def _members(members: Sequence[Member], model: nn.Module) -> list[tuple[str, str]]:
    """Say where a group lies: (layer, side)."""
    sizes: Mapping[str, Tensor] = dict(model.named_parameters())
    found = []
    for member in members:
        if member.is_parameter:
            side = ("out" if member.dim == 0 else "in") if sizes[member.tensor].dim() > 1 else ""
            found.append((_layer(member.tensor), side))
    kept = dict.fromkeys(found)
    return [(layer, side) for layer, side in kept if side or (layer, "out") not in kept]


def _told(members: Sequence[tuple[str, str]]) -> list[str]:
    """Say it in words: ``conv1 out``, ``bn1``, ``conv2 in``."""
    return [f"{layer} {side}".strip() for layer, side in members]


def _frozen(graph: AxisGraph) -> list[dict[str, Any]]:
    """Return the axes that can't be pruned, by reason."""
    by: dict[str, list[str]] = {}
    for item in graph.frozen:
        # Every convolution has kernel sides: they make one line, whichever call of it is meant.
        kernel = item.reason.startswith("it is a side of the kernel")
        reason, name = ("a side of its kernel", item.name.partition("#")[0]) if kernel else (item.reason, item.name)
        if name not in by.setdefault(reason, []):
            by[reason].append(name)
    return [{"reason": reason, "axes": names} for reason, names in by.items()]
