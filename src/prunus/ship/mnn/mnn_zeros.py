"""Do the zeros of a model make it faster in MNN, and in which blocks should its sparse kernels read them?

MNN marks the layers of a whole file for one block: single weights, or 4 outputs of one input. A marked layer runs a sparse kernel
whether that is faster or not, so a file is marked only where the layers together come out ahead. The costs below are of the
kernels for AVX2 on one thread and one example, measured layer by layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from prunus.core.code.extras import require

__all__ = ["WeightLayer", "best_block", "relative_time", "weight_layers"]

_MARKED_BELOW = {1: 0.4, 4: 0.7}
"""The converter marks a layer when less than this share of its weights is in blocks that aren't zero."""
_COST = {
    ("many", 1): (0.2, 2.3),
    ("many", 4): (0.2, 1.0),
    ("winograd", 1): (0.1, 7.0),
    ("winograd", 4): (0.2, 2.4),
    ("single", 1): (0.0, 12.0),
    ("single", 4): (0.05, 4.5),
}
"""By kind and block: sparse over dense time, as ``a + b * density``."""
_WINOGRAD_GAINS = 2.0
_WORTH = 0.95

Kind = Literal["many", "winograd", "single", "grouped"]
"""``many`` positions for each example; those of a 3x3 kernel of stride 1, whose dense kernel has a short cut; a ``single`` one; or
in groups, which have no sparse kernel."""


@dataclass(frozen=True)
class WeightLayer:
    """A convolution or a linear layer of an ONNX file.

    Shapes:
        ``weight`` is ``(outputs, inputs of one output)``.
    """

    weight: NDArray[Any]
    positions: int
    kind: Kind = "many"

    @property
    def dense_work(self) -> float:
        """Return the multiplications that a dense kernel does for one example."""
        return self.weight.size * self.positions / (_WINOGRAD_GAINS if self.kind == "winograd" else 1.0)

    def density(self, block: int) -> float:
        """Return the share of weights in blocks that aren't zero; outputs that fill no block are blocks of one.

        >>> import numpy as np
        >>> layer = WeightLayer(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [2.0, 0.0]]), positions=1)
        >>> layer.density(1), layer.density(4)
        (0.2, 0.5)
        """
        whole = len(self.weight) // block * block
        blocks = (self.weight[:whole].reshape(-1, block, self.weight.shape[1]) != 0).any(axis=1)
        return float(blocks.sum() * block + (self.weight[whole:] != 0).sum()) / max(self.weight.size, 1)


def best_block(layers: list[WeightLayer]) -> int | None:
    """Return 1 or 4, whichever is faster, or None where dense kernels are as fast."""
    times = {block: relative_time(layers, block) for block in (4, 1)}
    best = min(times, key=lambda block: times[block])
    return best if times[best] < _WORTH else None


def relative_time(layers: list[WeightLayer], block: int) -> float:
    """Return the predicted time of a file that is marked for ``block``, over that of a dense one."""
    total = sum(layer.dense_work for layer in layers)
    return sum(layer.dense_work * _cost(layer, block) for layer in layers) / total if total else 1.0


def _cost(layer: WeightLayer, block: int) -> float:
    density = layer.density(block)
    if layer.kind == "grouped" or density >= _MARKED_BELOW[block]:
        return 1.0
    fixed, slope = _COST[layer.kind, block]
    return fixed + slope * density


def weight_layers(file: bytes) -> list[WeightLayer]:
    """Return the layers of an ONNX file whose weights are stored in it."""
    graph = require("onnx", extra="mnn").load_from_string(file).graph
    return list(_layers(graph))


def _layers(graph: Any) -> Iterator[WeightLayer]:
    to_array = require("onnx.numpy_helper", extra="mnn").to_array
    stored = {tensor.name: tensor for tensor in graph.initializer}
    sizes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in stored:
            continue
        attributes = {a.name: list(a.ints) or a.i for a in node.attribute}
        weight, size = to_array(stored[node.input[1]]), sizes.get(node.output[0], [])
        if node.op_type == "Conv":
            strides = {*attributes.get("strides", [1]), *attributes.get("dilations", [1])}
            short_cut = weight.ndim == 4 and min(weight.shape[2:]) > 1 and strides == {1}
            kind: Kind = "grouped" if attributes.get("group", 1) != 1 else "winograd" if short_cut else "many"
            yield WeightLayer(weight.reshape(len(weight), -1), _product(size[2:]), kind)
        elif weight.ndim == 2:
            positions = _product(size[1:-1])
            yield WeightLayer(
                weight if attributes.get("transB") else weight.T, positions, "many" if positions > 1 else "single"
            )


def _product(sizes: list[int]) -> int:
    """Return how many positions there are; a size that isn't known counts once."""
    return math.prod(max(size, 1) for size in sizes)
