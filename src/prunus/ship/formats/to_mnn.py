"""How does a bundle's model become a file of MNN, whose kernels skip zeros?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.core.errors import ModelError
from prunus.evaluate.timing.onnx_session import OPSET
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written
from prunus.ship.formats.to_onnx import lacked_operation, written_onnx
from prunus.ship.mnn.mnn_file import run_mnn, write_mnn
from prunus.ship.mnn.mnn_zeros import best_block, weight_layers

__all__ = ["Mnn"]


class Mnn(Format):
    """Of a model with one input and one output, through ONNX; where zeros pay, layers are marked for its sparse kernels."""

    name = "mnn"
    extra = "mnn"
    packages = ("MNN", "onnx", "onnxscript")
    runs_in = "MNN, whose CPU kernels skip zeros"
    free = "batch"

    def check_model(self, source: ExportSource) -> None:
        """Raise unless there is one positional input and one output."""
        if (len(source.takes), source.keywords, source.n_outputs) != (1, (), 1):
            raise ModelError(
                f"mnn files are written of models with one positional input and one output: this one takes {len(source.takes)} "
                f"({', '.join(source.keywords) or 'positional'}) and gives {source.n_outputs}; export it to ONNX"
            )

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the file, marked for the kernels that are faster with the model's zeros."""
        proto = written_onnx(source)
        block = best_block(weight_layers(proto))
        try:
            write_mnn(proto, path, block=block)
        except ModelError as error:
            said = lacked_operation(proto, str(error))
            raise ModelError(
                f"the model can't be exported to MNN: {said}; export it to ONNX" if said else str(error)
            ) from error
        return Written(f"MNN, from ONNX opset {OPSET}", zeros="no" if block is None else f"{block}x1")

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what MNN answers on the CPU, in full precision."""
        return [[answer] for answer in run_mnn(path, batches)]
