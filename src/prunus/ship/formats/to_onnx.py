"""How does a bundle's model become an ONNX file?

Other formats are made from that file: in which layer of the model an operation is that some reader of it lacks is told here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.code.extras import require
from prunus.core.errors import ModelError
from prunus.evaluate.timing.onnx_session import OPSET, OnnxModel, export_onnx, quiet_exporter
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.exported_program import traced
from prunus.ship.formats.file_format import Format, Written
from prunus.ship.formats.named_layers import innermost_called, layer_of_node, layers_of_operation

__all__ = ["Onnx", "lacked_operation", "written_onnx"]

_UNTRANSLATED = re.compile(r"Error when translating node %(\w+) .*target=torch\.ops\.\w+\.(\w+)")
_LACKED = (
    re.compile(r"No conversion rule found for operations: ([\w.]+?)-\d+"),
    re.compile(r"While validating ONNX node '<Node\((\w+)\)"),
    re.compile(r"Not Support: ONNX::(\w+)"),
)
"""How OpenVINO and MNN say which operation of ONNX they lack."""


class Onnx(Format):
    """Of any model, through torch's exporter; the sizes that vary in the bundle vary in the file, which refuses others."""

    name = "onnx"
    extra = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    runs_in = "ONNX Runtime, OpenVINO, TensorRT and others"
    free = "sizes"

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the file."""
        path.write_bytes(written_onnx(source))
        return Written(version=f"ONNX opset {OPSET}")

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what ONNX Runtime answers on the CPU."""
        session = OnnxModel(path.read_bytes())
        return [session.outputs(batch) for batch in batches]


def written_onnx(source: ExportSource) -> bytes:
    """Return the model as an ONNX file.

    Raises:
        ModelError: it can't be exported; the message names the layer where that is known.
    """
    try:
        return export_onnx(source.model, source.inputs(2), source.spans)
    except ModelError as error:
        where = _failing_layer(source, error)
        raise ModelError(f"{error}, in the layer {where!r}" if where else str(error)) from error


def _failing_layer(source: ExportSource, error: ModelError) -> str:
    """Return where torch can't follow the model, or which layer ran the operation that ONNX lacks; empty where it isn't known."""
    reason: BaseException | None = error
    found = None
    while reason is not None:
        if found := _UNTRANSLATED.search(str(reason)):
            break
        reason = reason.__cause__
    with quiet_exporter(), torch.no_grad():
        if reason is None or found is None:
            return innermost_called(source.model, lambda: traced(source))
        nodes = [node for node in traced(source).graph.nodes if node.op == "call_function"]
    own = [node for node in nodes if node.name == found[1]] or [node for node in nodes if found[2] in str(node.target)]
    return next((layer_of_node(node) for node in own), "")


def lacked_operation(proto: bytes, said: str) -> str:
    """Return which operation of an ONNX file a reader of it lacks, and its layers, from what it said; empty where it says none."""
    found = next((match for pattern in _LACKED if (match := pattern.search(said))), None)
    if found is None:
        return ""
    graph = require("onnx", extra="onnx").load_from_string(proto).graph
    layers = layers_of_operation(graph, found[1])
    where = f", of the layer {layers[0]!r}" if layers else ""
    more = f" and {len(layers) - 1} others" if len(layers) > 1 else ""
    return f"it has no operation {found[1]}{where}{more}"
