"""How does a bundle's model become a file of OpenVINO?

It is a folder with ``model.xml`` and ``model.bin``, made from ONNX by OpenVINO's own reader. Weights keep their precision (its
default would halve them), and the sizes that the model takes are bounds of its inputs, which the runtime holds to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.apply.traced.limits import Span
from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.evaluate.timing.onnx_session import OPSET
from prunus.ship.formats.export_source import ExportSource
from prunus.ship.formats.file_format import Format, Written
from prunus.ship.formats.to_onnx import lacked_operation, written_onnx
from prunus.ship.openvino_file import BIN, XML, OpenVinoFile, OpenVinoModel

__all__ = ["OpenVino", "name_by_place"]

_NUMBERED = re.compile(r"[A-Z][A-Za-z]*_\d+")


class OpenVino(Format):
    """Of any model that ONNX holds; the sizes that vary in the bundle vary in the file, which refuses others."""

    name = "openvino"
    extra = "openvino"
    packages = ("openvino", "onnx", "onnxscript")
    runs_in = "OpenVINO, on CPUs, GPUs and NPUs of Intel and on ARM"
    free = "sizes"
    files = (XML, BIN)

    def write(self, source: ExportSource, path: Path) -> Written:
        """Write the folder."""
        proto = written_onnx(source)
        openvino = require("openvino", extra=self.extra)
        try:
            model = openvino.Core().read_model(proto)
            shapes = dict(zip(source.names, map(_shape, source.spans), strict=True))
            model.reshape({one: shapes[one.any_name] for one in model.inputs})
            _tie(openvino, model, dict(zip(source.names, source.spans, strict=True)))
            name_by_place(model)
            openvino.save_model(model, path / XML, compress_to_fp16=False)
        except Exception as error:
            raise_if_out_of_memory(error)
            said = lacked_operation(proto, str(error)) or one_line(error)[:200]
            raise ModelError(f"the model can't be exported to OpenVINO: {said}; export it to ONNX") from error
        return Written(version=f"OpenVINO IR 11, from ONNX opset {OPSET}")

    def answers(self, path: Path, batches: Sequence[Any]) -> list[list[Tensor]]:
        """Return what OpenVINO answers on the CPU, in full precision."""
        model = OpenVinoModel(OpenVinoFile.at(path))
        return [model.outputs(batch) for batch in batches]


def _tie(openvino: Any, model: Any, spans: Mapping[str, Sequence[Span]]) -> None:
    """Let the runtime refuse inputs whose sizes of one name differ: each is given the shape that the first one has.

    Without it, fused kernels read masks of another length than the ids as if they fitted.
    """
    ops = openvino.opset13
    first: dict[str, tuple[Any, int]] = {}
    for one in model.inputs:
        own = spans[one.any_name]
        tied = any(span.name in first for span in own)
        readers = one.get_target_inputs()
        for dim, span in enumerate(own):
            if span.name and span.name not in first:
                first[span.name] = (one, dim)
        if tied and readers:
            sizes = [
                ops.gather(ops.shape_of(first[span.name][0]), [first[span.name][1]], 0)
                if span.name
                else ops.constant([span.least], openvino.Type.i64)
                for span in own
            ]
            fitted = ops.reshape(one, ops.concat(sizes, 0), False).output(0)
            for reader in readers:
                reader.replace_source_output(fitted)


def name_by_place(model: Any) -> None:
    """Name what has no name of its own by its place: OpenVINO numbers it by how much the process made before."""
    for place, node in enumerate(model.get_ordered_ops()):
        if _NUMBERED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _shape(spans: Sequence[Span]) -> Any:
    openvino = require("openvino", extra="openvino")
    return openvino.PartialShape([openvino.Dimension(s.least, -1 if s.most is None else s.most) for s in spans])
