"""How does a model become an ONNX file, and how does that file answer?

The batch is dynamic, everything else has the sizes of the example. The packages are the extra ``onnx`` and are imported here only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.errors import ModelError
from prunus.core.extras import require

__all__ = ["OnnxModel", "export_onnx", "open_session"]

_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def export_onnx(model: nn.Module, inputs: Tensor) -> bytes:
    """Return ``model`` in evaluation mode as an ONNX file; the model is not changed.

    Args:
        inputs: one example batch, of two or more.

    Raises:
        ModelError: torch can't export it; it says why in one line.
        MissingExtraError: onnx or onnxscript isn't installed.
    """
    require("onnx", extra="onnx")
    require("onnxscript", extra="onnx")
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Plain(model),
                (inputs,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
        assert program is not None
        proto: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        line = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise ModelError(f"the model can't be exported to ONNX: {line[:200]}") from error
    finally:
        for module, training in modes.items():
            module.training = training
    return proto


class _Plain(nn.Module):
    """A model of one input: the exporter reads a forward's signature, and a traced model takes anything."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        """Return what the model answers."""
        return self.model(inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from talking about its own ways, and from the fused attention that it can't read.

    What fails is raised; the rest (packages that aren't there, constants that it can't fold) is no business of the user's.
    """
    loggers = {name: logging.getLogger(name) for name in _TALKATIVE}
    levels, fast = {name: logger.level for name, logger in loggers.items()}, torch.backends.mha.get_fastpath_enabled()
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            loggers[name].setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)


class OnnxModel:
    """An exported model in ONNX Runtime: called with a tensor, it answers with one.

    Args:
        file: what :func:`export_onnx` returned.
        threads: how many it may use; None means as many as torch does.
    """

    def __init__(self, file: bytes, *, threads: int | None = None) -> None:
        self.session = open_session(file, threads=threads)
        self._name = self.session.get_inputs()[0].name

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the first output."""
        return torch.from_numpy(self.session.run(None, {self._name: inputs.numpy()})[0])


def open_session(file: bytes, *, threads: int | None = None) -> Any:
    """Return a session of ONNX Runtime on the CPU that uses no more threads than torch does.

    Raises:
        MissingExtraError: onnxruntime isn't installed.
    """
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
