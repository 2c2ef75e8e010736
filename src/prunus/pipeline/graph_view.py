"""What hangs together in a model, told to its author?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply import follow_class
from prunus.core.errors import ModelError, PrunusError
from prunus.core.recipe import Model, Recipe
from prunus.graph import AxisGraph, Member, analyze, certify
from prunus.graph.costs import unit_costs
from prunus.models import build

__all__ = ["describe", "graph_of_model", "graph_of_recipe", "parse_input"]


def graph_of_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the groups of the recipe's model, on its own data, as plain values."""
    from prunus.pipeline.flow import open_job  # which runs cuts, and those describe what they cut
    from prunus.pipeline.workspace import Workspace

    with open_job(recipe, Workspace(None)) as job:
        return _view(job.build(recipe.seeds[0]), job.trace_inputs)


def graph_of_model(builder: str, inputs: Sequence[str]) -> dict[str, Any]:
    """Return the groups of a built-in or a ``module:function``, on inputs of the given shapes, as plain values.

    Raises:
        ModelError: the model can't be built, or doesn't take these inputs.
    """
    values = tuple(parse_input(text) for text in inputs)
    shape = tuple(values[0].shape[1:])
    return _view(build(Model(builder=builder), input_shape=shape, n_outputs=10, seed=0), values)


def parse_input(text: str) -> Tensor:
    """Return a random input of a shape like ``2x3x32x32``, or token numbers for ``ids:2x16`` (below 100, or ``ids:2x16:5000``).

    >>> parse_input("2x3").shape, parse_input("ids:2x16:50").dtype
    (torch.Size([2, 3]), torch.int64)
    """
    kind, _, rest = text.rpartition("ids:")
    shape_text, _, limit = rest.partition(":")
    try:
        shape = tuple(int(part) for part in shape_text.split("x"))
        top = int(limit) if limit else 100
        if kind or min(shape) < 1 or top < 1 or (limit and not text.startswith("ids:")):
            raise ValueError(text)
    except ValueError as error:
        raise ModelError(
            f"--input must be a shape like 2x3x32x32, or ids:2x16 for token numbers: got {text!r}"
        ) from error
    draw = torch.Generator().manual_seed(0)
    if text.startswith("ids:"):
        return torch.randint(0, top, shape, generator=draw)
    return torch.randn(shape, generator=draw)


def _view(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    model = model.eval()
    try:
        graph = follow_class(model, inputs, certify(model, inputs, analyze(model, inputs)))
    except PrunusError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise ModelError(
            f"the model doesn't take these inputs: {type(error).__name__}: {first}; check --input"
        ) from error
    return describe(graph, model)


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
