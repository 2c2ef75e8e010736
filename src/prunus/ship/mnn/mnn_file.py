"""How does a model become a file of MNN, the runtime whose kernels skip zeros?

The way leads through ONNX. Where the zeros pay, the converter is told their block and marks the layers. MNN runs in a process of
its own; the packages are the extra ``mnn``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from prunus.core.code.extras import check_there
from prunus.core.errors import ModelError
from prunus.core.files.onnx_guard import check_onnx

__all__ = ["WORKER", "compression_params", "mnn_needs", "run_mnn", "write_mnn"]

WORKER = Path(__file__).with_name("mnn_worker.py")


def mnn_needs() -> None:
    """Raise unless what ``--to mnn`` needs is installed; MNN itself isn't imported, as it writes to standard output then.

    Raises:
        MissingExtraError: a package isn't there.
    """
    check_there(("MNN", "onnx", "onnxscript"), extra="mnn")


def write_mnn(onnx_file: bytes, path: Path, *, block: int | None) -> None:
    """Convert an ONNX file into a file of MNN at ``path``.

    Args:
        block: mark layers for sparse kernels that read zeros in blocks of so many outputs; None: all kernels are dense.

    Raises:
        ModelError: MNN has no operation for some part of the model, or its converter fails.
    """
    check_onnx(onnx_file)
    with TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "model.onnx", folder / "model.mnn"
        source.write_bytes(onnx_file)
        options = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target), "--bizCode", "prunus"]
        if block is not None:
            (folder / "zeros.bin").write_bytes(compression_params(block))
            options += ["--detectSparseSpeedUp", "--compressionParamsFile", str(folder / "zeros.bin")]
        said = _work("convert", *options)
        if not target.is_file():
            reason = next((line for line in said if "Not Support" in line), said[-1] if said else "it says nothing")
            raise ModelError(f"the model can't be exported to MNN: {reason[:200]}; export it to ONNX")
        path.write_bytes(target.read_bytes())


def run_mnn(path: Path, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the answers of a file of MNN on the CPU, one thread, in full precision.

    Raises:
        ModelError: MNN fails on it.
    """
    with TemporaryDirectory() as name:
        given, wanted = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        np.savez(given, *[batch.numpy() for batch in batches])
        said = _work("run", str(path), str(given), str(wanted))
        if not wanted.is_file():
            raise ModelError(
                f"MNN converts the model but doesn't run it: {said[-1][:200] if said else 'it says nothing'}; export it to ONNX"
            )
        with np.load(wanted) as outputs:
            return [torch.from_numpy(outputs[key]) for key in outputs.files]


def compression_params(block: int) -> bytes:
    """Return what the converter reads of zeros: a message of its ``MNN_compression.proto``, written by hand.

    It is ``Pipeline(version, algo=[CompressionAlgo(PRUNE, prune_params)])``, the parameters either ``RANDOM`` (0), zeros anywhere,
    or ``SIMD_OC`` (1) with ``oc_blocks``, how many outputs are zero as one.

    >>> compression_params(4).hex(" ")
    '0a 05 30 2e 30 2e 30 12 0a 08 01 1a 06 08 01 1a 02 20 04'
    """
    prune = b"\x08\x00" if block == 1 else b"\x08\x01" + _field(3, b"\x20" + bytes([block]))
    return _field(1, b"0.0.0") + _field(2, b"\x08\x01" + _field(3, prune))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def _work(*arguments: str) -> list[str]:
    """Return the lines that the worker wrote; whether it did its work, its files tell."""
    done = subprocess.run(
        [sys.executable, "-P", str(WORKER), *arguments], capture_output=True, text=True, errors="replace", check=False
    )
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return [*lines, f"it ended with signal {-done.returncode}"] if done.returncode < 0 else lines
