"""How does a file of OpenVINO answer, and what is it in memory?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.code.signal_stack import kept_signal_stack
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.evaluate.timing.onnx_session import named_tensors

__all__ = ["BIN", "XML", "OpenVinoFile", "OpenVinoModel", "OpenVinoModule"]

XML, BIN = "model.xml", "model.bin"


@dataclass(frozen=True)
class OpenVinoFile:
    """The two parts of a file: operations, and weights."""

    xml: bytes
    weights: bytes

    def __len__(self) -> int:
        """Return how many bytes they take."""
        return len(self.xml) + len(self.weights)

    @classmethod
    def at(cls, folder: Path) -> OpenVinoFile:
        """Return what lies in a folder."""
        return cls((folder / XML).read_bytes(), (folder / BIN).read_bytes())

    def write_into(self, folder: Path) -> None:
        """Write both parts."""
        (folder / XML).write_bytes(self.xml)
        (folder / BIN).write_bytes(self.weights)

    def read(self, core: Any) -> Any:
        """Return it as a model of OpenVINO."""
        return core.read_model(model=self.xml, weights=self.weights)


class OpenVinoModel:
    """A file in OpenVINO on the CPU, in full precision where it is in float."""

    def __init__(self, file: OpenVinoFile) -> None:
        openvino = require("openvino", extra="openvino")
        # On one thread OpenVINO 2026.4 loses the errors of shapes that don't fit, and answers with something.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": max(2, torch.get_num_threads())}
        try:
            core = openvino.Core()
            with kept_signal_stack():
                self._compiled = core.compile_model(file.read(core), "CPU", options)
        except Exception as error:  # its errors have no class in common
            raise_if_out_of_memory(error)
            raise ModelError(f"OpenVINO converts the model but doesn't run it: {one_line(error)[:200]}") from error
        self._taken = {one.any_name for one in self._compiled.inputs}

    def outputs(self, inputs: Any) -> list[Tensor]:
        """Return all outputs.

        Raises:
            ModelError: it fails on them.
        """
        names, given = named_tensors(inputs)
        arrays = {name: value.numpy() for name, value in zip(names, given, strict=True) if name in self._taken}
        try:
            results = self._compiled(arrays)
        except Exception as error:  # its errors have no class in common
            raise_if_out_of_memory(error)
            raise ModelError(f"OpenVINO converts the model but doesn't run it: {one_line(error)[:200]}") from error
        return [torch.from_numpy(results[one].copy()) for one in self._compiled.outputs]


class OpenVinoModule(nn.Module):
    """What OpenVINO answers for a file, called as a module is."""

    def __init__(self, file: OpenVinoFile) -> None:
        super().__init__()
        self._session = OpenVinoModel(file)

    def forward(self, *inputs: Any, **named: Any) -> list[Tensor]:
        """Return all outputs."""
        return self._session.outputs(named or inputs)
