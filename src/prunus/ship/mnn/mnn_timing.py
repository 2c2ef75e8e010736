"""How is a model timed in MNN, which runs in a process of its own?

The process is started once and told before each turn how many times to call the model; it answers with the seconds by
its own clock.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from prunus.core.errors import ModelError
from prunus.evaluate.timing.bench_runtimes import BenchRuntime, Subject
from prunus.evaluate.timing.contest import Contestant, clock_for
from prunus.ship.mnn.mnn_file import WORKER, run_mnn, write_mnn
from prunus.ship.mnn.mnn_zeros import best_block, weight_layers

__all__ = ["Mnn"]


class Mnn(BenchRuntime):
    """MNN on the processor, in full precision; its sparse kernels where the zeros pay."""

    name, called, extra, packages = "mnn", "MNN", "mnn", ("MNN", "onnx", "onnxscript")

    def start(self, subject: Subject, inputs: Any, threads: int) -> Contestant:
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
            return _InOwnProcess(folder, threads)
        except BaseException:
            folder.cleanup()
            raise


class _InOwnProcess:
    def __init__(self, folder: TemporaryDirectory[str], threads: int) -> None:
        self._folder = folder
        given = Path(folder.name)
        words = [str(given / "model.mnn"), str(given / "inputs.npz"), str(threads), clock_for(threads)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), "time", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def seconds(self, n_calls: int) -> float:
        """Return how long so many calls took together."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{n_calls}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ModelError("MNN's process ended while it was timed; leave it out with --runtime") from error
        for line in self._process.stdout:
            word, _, number = line.strip().partition(" ")
            if word == "seconds":  # MNN writes lines of its own, too
                return float(number)
        raise ModelError("MNN's process ended while it was timed; leave it out with --runtime")

    def close(self) -> None:
        """End the process and remove its files."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()
