"""How is a model timed in MNN, which runs in a process of its own?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from prunus.core.errors import ModelError
from prunus.evaluate.timing.bench_runtimes import BenchRuntime, Subject
from prunus.evaluate.timing.contest import Clock, Contestant, clock_for
from prunus.evaluate.timing.own_process import InOwnProcess
from prunus.ship.mnn.mnn_file import WORKER, run_mnn, write_mnn
from prunus.ship.mnn.mnn_zeros import best_block, weight_layers

__all__ = ["Mnn"]


class Mnn(BenchRuntime):
    """MNN on the processor, in full precision; its sparse kernels where the zeros pay."""

    name, called, extra, packages = "mnn", "MNN", "mnn", ("MNN", "onnx", "onnxscript")

    def start(self, subject: Subject, inputs: Any, threads: int, clock: Clock | None = None) -> Contestant:
        """Convert the exported file, compare its answers, and start a process that holds it."""
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            raise ModelError("mnn files are written of models with one input of fractional numbers")
        expected = subject.expected(inputs)
        if len(expected) != 1:
            raise ModelError(f"mnn files are written of models with one output: this one gives {len(expected)}")
        folder = TemporaryDirectory(prefix="prunus-bench-")
        try:
            path = Path(folder.name) / "model.mnn"
            write_mnn(subject.onnx, path, block=best_block(weight_layers(subject.onnx)))
            subject.check(self.called, inputs, run_mnn(path, [inputs]))
            np.savez(Path(folder.name) / "inputs.npz", inputs.numpy())
            words = ["time", str(path), str(path.with_name("inputs.npz")), str(threads), clock or clock_for(threads)]
            return InOwnProcess(self.called, WORKER, words, folder)
        except BaseException:
            folder.cleanup()
            raise
