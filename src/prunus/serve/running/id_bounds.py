"""Which whole numbers does an exported model have a row for, so that others are refused before they spoil a batch?

ONNX takes -1 for the last row of a table, and a number that is too large ends the whole batch. Where an input goes straight into a
look-up, the length of the table is the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prunus.core.code.extras import require

__all__ = ["id_bounds"]

_SAME = frozenset({"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Slice"})
"""Operations after which the values are the same, or some of them."""


def id_bounds(file: bytes, names: Sequence[str]) -> list[int | None]:
    """Return, for each input, how many rows the shortest table has that it looks up; None where it looks up none."""
    graph = require("onnx", extra="serve").load_model_from_string(file).graph
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims)}
    makers = {name: node for node in graph.node for name in node.output}
    found: dict[str, int] = {}
    for node in graph.node:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if node.op_type != "Gather" or axis != 0 or node.input[0] not in rows:
            continue
        source = _source(node.input[1], makers)
        if source in names:
            found[source] = min(rows[node.input[0]], found.get(source, rows[node.input[0]]))
    return [found.get(name) for name in names]


def _source(name: str, makers: dict[str, Any]) -> str:
    while name in makers and makers[name].op_type in _SAME:
        name = makers[name].input[0]
    return name
