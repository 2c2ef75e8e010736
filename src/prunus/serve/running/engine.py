"""What answers: ONNX Runtime with the exported model, or torch with the bundle as it is?

An engine takes one array per input, the batch first, and gives one per output. It knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from prunus.core.code.extras import require
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.serve.wire.tensor_data import Array
from prunus.ship import Bundle
from prunus.ship.calling import in_batches
from prunus.ship.inputs import is_scaled, output_tensors

__all__ = ["Engine", "OnnxEngine", "TorchEngine"]


class Engine(Protocol):
    """Something that answers; ``platform`` is what the protocol's metadata call it, ``note`` why it isn't the usual one."""

    platform: str
    note: str

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return one array per output.

        Raises:
            ModelError: the model fails on these inputs.
        """
        ...


class OnnxEngine:
    """A session of ONNX Runtime on the CPU.

    Args:
        file: the bytes of the model.
        names: what the model's inputs are called, in order; one that the file doesn't use isn't handed to it.
        threads: how many it may use.
    """

    platform = "onnx_onnxruntime"

    def __init__(self, file: bytes, names: Sequence[str], *, threads: int) -> None:
        runtime = require("onnxruntime", extra="serve")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised
        # A thread that waits by spinning takes the processor from the one that reads the next request.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        used = {value.name for value in self._session.get_inputs()}
        self._names = [name if name in used else None for name in names]
        self.note = ""

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return one array per output."""
        given = {name: array for name, array in zip(self._names, arrays, strict=True) if name is not None}
        try:
            found: list[Array] = self._session.run(None, given)
        except Exception as error:  # its errors have no class in common
            raise_if_out_of_memory(error)
            raise ModelError(f"the model fails on inputs of these sizes or values: {one_line(error)[:200]}") from error
        return found


class TorchEngine:
    """The bundle's model in torch, between its scalers."""

    platform = "pytorch"

    def __init__(self, bundle: Bundle, note: str) -> None:
        self._bundle, self.note = bundle, note
        self._takes = bundle.manifest.takes

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Return one array per output."""
        bundle = self._bundle
        given: dict[int | str, Any] = {}
        for place, (entry, array) in enumerate(zip(self._takes, arrays, strict=True)):
            # A view of a request's bytes can't be written to, and torch wants to be able to.
            given[place if entry.name is None else entry.name] = torch.from_numpy(np.array(array))
        if bundle.scaler is not None and is_scaled(self._takes):
            given = {key: bundle.scaler(value) for key, value in given.items()}
        outputs = output_tensors(in_batches(bundle.model, self._takes, given, len(arrays[0])))
        if bundle.target_scaler is not None:
            outputs = [bundle.target_scaler.undo(value) for value in outputs]
        return [value.numpy() for value in outputs]
