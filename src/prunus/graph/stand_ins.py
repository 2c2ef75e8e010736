"""Which operations can't be traced on shapes, though their shapes are known?

torch's own shape function of ``_grouped_mm`` (experts that lie stacked in one weight) takes half precision only, the operation
itself takes every precision. A stand-in with the same signature is traced in its place, and put back afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["decompositions", "put_back"]

_SCHEMA = "grouped_mm(Tensor self, Tensor mat2, Tensor? offs, Tensor? bias, ScalarType? out_dtype) -> Tensor"


@functools.cache
def _library() -> torch.library.Library:
    library = torch.library.Library("prunus_stand_in", "DEF")  # type: ignore[no-untyped-call]
    library.define(_SCHEMA)  # type: ignore[no-untyped-call]
    library.impl("grouped_mm", _shape, "Meta")  # type: ignore[no-untyped-call]
    return library


def _shape(left: Tensor, right: Tensor, ends: Any = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """Rows in stretches against stacked matrices, as experts are; all other forms keep torch's own shape function."""
    return left.new_empty((*left.shape[:-1], right.shape[-1]), dtype=out_dtype or left.dtype)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what the tracer should run in place of which operation."""
    _library()
    operation = torch.ops.aten._grouped_mm.default

    def grouped(left: Tensor, right: Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
        if left.dim() != 2 or right.dim() != 3:
            return NotImplemented
        return torch.ops.prunus_stand_in.grouped_mm(left, right, offs, bias, out_dtype)

    return {operation: grouped}


def put_back(graph_module: fx.GraphModule) -> None:
    """Write the operations themselves into a trace that was made with stand-ins."""
    for node in graph_module.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "prunus_stand_in":
            node.target = torch.ops.aten._grouped_mm.default
    graph_module.recompile()
