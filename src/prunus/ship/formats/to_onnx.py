"""How does a bundle's model become an ONNX file?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written

__all__ = ["Onnx"]


class Onnx(Format):
    """Of any model, through torch's exporter; the sizes that vary in the bundle vary in the file, which refuses others."""

    name = "onnx"
    extra = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    runs_in = "ONNX Runtime, OpenVINO, TensorRT and others"
    free = "sizes"

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the file."""
        path.write_bytes(export_onnx(source.model, source.inputs(2), source.spans))
        return Written()

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what ONNX Runtime answers on the CPU."""
        session = OnnxModel(path.read_bytes())
        return [session.outputs(batch) for batch in batches]
