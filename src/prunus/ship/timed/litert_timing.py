"""How is a model timed in LiteRT, which runs in a process of its own?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.calls import arguments
from prunus.core.code.imports import one_line
from prunus.core.errors import ModelError, raise_if_out_of_memory
from prunus.evaluate.timing.bench_runtimes import BenchRuntime, Subject
from prunus.evaluate.timing.contest import Clock, Contestant, clock_for
from prunus.evaluate.timing.onnx_session import quiet_exporter
from prunus.evaluate.timing.own_process import InOwnProcess
from prunus.ship.formats.converter import EDGE_WORKER, convert_program, run_in_process
from prunus.ship.formats.export_source import by_name

__all__ = ["TimedLiteRt"]


class TimedLiteRt(BenchRuntime):
    """LiteRT (once TensorFlow Lite) on the processor, with its XNNPACK kernels; its converter takes tens of seconds."""

    name, called, extra, packages = "litert", "LiteRT", "litert", ("litert_torch", "ai_edge_litert")
    reads_files, is_quick = False, False

    def start(self, subject: Subject, inputs: Any, threads: int, clock: Clock | None = None) -> Contestant:
        """Convert the model for these sizes, compare its answers, and start a process that holds it."""
        given = by_name(inputs)
        if not all(isinstance(value, Tensor) for value in given.values()):
            raise ModelError("LiteRT files are written of models that take tensors")
        sizes = " ".join(str(tuple(value.shape)) for value in given.values())
        content = subject.once(f"{self.name} {sizes}", lambda: _converted(subject.model, inputs))
        folder = TemporaryDirectory(prefix="prunus-bench-")
        try:
            path, held = Path(folder.name) / "model.tflite", Path(folder.name) / "inputs.npz"
            path.write_bytes(content)
            subject.check(self.called, inputs, run_in_process("litert", self.called, path, [inputs])[0])
            arrays = {f"0.{place}": np.ascontiguousarray(one.numpy()) for place, one in enumerate(given.values())}
            np.savez(held, allow_pickle=False, **arrays)
            words = ["time_litert", str(path), str(held), str(threads), clock or clock_for(threads)]
            return InOwnProcess(self.called, EDGE_WORKER, words, folder)
        except BaseException:
            folder.cleanup()
            raise


def _converted(model: nn.Module, inputs: Any) -> bytes:
    """Return the file of a model for inputs of these sizes."""
    positional, named = arguments(inputs)
    try:
        with quiet_exporter(), torch.no_grad():
            program = torch.export.export(model, positional, named, strict=False)
    except Exception as error:
        raise_if_out_of_memory(error)
        raise ModelError(f"torch can't follow the model for LiteRT: {one_line(error)[:200]}") from error
    with TemporaryDirectory() as name:
        path = Path(name) / "model.tflite"
        convert_program(program, "litert", "LiteRT", path, ending="tflite")
        return path.read_bytes()
