"""What hangs together in a model, told to its author?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply import follow_class
from prunus.core.errors import ModelError, PrunusError, raise_if_out_of_memory
from prunus.core.recipes.recipe import Model, Recipe
from prunus.graph import analyze, certify
from prunus.models import build
from prunus.pipeline.cut.graph_tables import describe
from prunus.pipeline.flow.open_job import open_job
from prunus.pipeline.jobs.workspace import Workspace

__all__ = ["graph_of_model", "graph_of_recipe", "parse_input"]


def graph_of_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the groups of the recipe's model, on its own data, as plain values."""
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
        raise_if_out_of_memory(error)
        first = (str(error).splitlines() or [""])[0][:160]
        raise ModelError(
            f"the model doesn't take these inputs: {type(error).__name__}: {first}; check --input"
        ) from error
    return describe(graph, model)
