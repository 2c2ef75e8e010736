"""In which file does a model leave for a runtime without Python, and does that file answer as the bundle does?

The file takes raw inputs and gives the outputs of ``Bundle.predict``: the scalers are in it. The batch is free, the other sizes are
those of the bundle. It is run on random inputs before it takes its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.errors import ModelError, UnknownNameError, near
from prunus.core.extras import require
from prunus.core.files import atomic_path
from prunus.data import Scaler
from prunus.evaluate.onnx import OnnxModel, export_onnx
from prunus.ship.bundle import Bundle
from prunus.ship.inputs import keywords_of, made
from prunus.ship.mnn_file import mnn_needs, run_mnn, write_mnn
from prunus.ship.mnn_zeros import best_block, weight_layers

__all__ = ["FORMATS", "ExportedFile", "check_format", "export_file", "relative_difference"]

FORMATS = ("mnn", "onnx")
_BATCHES = (1, 3, 8)
_TOLERANCE = 1e-3
"""Of the largest output. Measured on 13 architectures: at most 3e-6 in ONNX Runtime, 2e-5 in MNN, 2e-4 of transformers there."""


@dataclass(frozen=True)
class ExportedFile:
    """What was written, and how far its answers are from the bundle's, as a share of the largest output.

    ``zeros`` says how the zeros are used: ``"1x1"`` or ``"4x1"`` blocks by sparse kernels, or ``"no"``: all kernels are dense.
    """

    path: str
    format: str
    size_bytes: int
    difference: float
    batches: tuple[int, ...]
    zeros: str = "no"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"batches": list(self.batches)}


def check_format(name: str) -> None:
    """Raise unless there is such a format.

    Raises:
        UnknownNameError: it names the near ones.
    """
    if name not in FORMATS:
        raise UnknownNameError(f"unknown format {name!r}: {near(name, FORMATS)}")


def export_file(bundle: Bundle, to: str, path: Path) -> ExportedFile:
    """Write the model of ``bundle`` to ``path`` in one step, and return the facts of the file.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: a package for the format isn't installed.
        ModelError: the model can't be exported, or the file gives other answers than the bundle; nothing was written.
        OutputError: the disk is full or the folder can't be written.
    """
    check_format(to)
    takes, n_outputs = bundle.manifest.takes, bundle.manifest.n_output_tensors
    if (len(takes), keywords_of(takes), n_outputs) != (1, (), 1):
        raise ModelError(
            f"{to} files are written of models with one positional input and one output: this one takes {len(takes)} "
            f"({', '.join(keywords_of(takes)) or 'positional'}) and gives {n_outputs}; export bundle.model with torch.onnx"
        )
    if to == "mnn":
        mnn_needs()
    else:
        require("onnxruntime", extra="onnx")
    model = _Raw(bundle).eval()
    batches = [_inputs(bundle, size) for size in _BATCHES]
    proto = export_onnx(model, _inputs(bundle, 2))
    block = None
    with atomic_path(path) as temporary:
        if to == "onnx":
            temporary.write_bytes(proto)
            session = OnnxModel(proto)
            answers = [session(batch) for batch in batches]
        else:
            block = best_block(weight_layers(proto))
            write_mnn(proto, temporary, block=block)
            answers = run_mnn(temporary, batches)
        with torch.no_grad():
            difference = relative_difference([model(batch) for batch in batches], answers)
        if not difference <= _TOLERANCE:
            raise ModelError(
                f"{path}: the file would give other outputs than the bundle: they may differ by {_TOLERANCE:g} of the largest one, "
                f"got {difference:.2g}; nothing was written"
            )
    zeros = "no" if block is None else f"{block}x1"
    return ExportedFile(str(path), to, path.stat().st_size, difference, _BATCHES, zeros)


def relative_difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return the largest difference over the largest expected output; infinity where shapes differ or a value isn't a number.

    >>> relative_difference([torch.tensor([1.0, -4.0])], [torch.tensor([1.0, -3.0])])
    0.25
    """
    if [tuple(one.shape) for one in expected] != [tuple(one.shape) for one in got]:
        return math.inf
    wanted, had = (torch.cat([one.flatten() for one in outputs]) for outputs in (expected, got))
    found = float((wanted - had).abs().max() / wanted.abs().max().clamp(min=torch.finfo(torch.float32).tiny))
    return found if math.isfinite(found) else math.inf


class _Raw(nn.Module):
    """The model of a bundle between its scalers, as ``Bundle.predict`` calls it."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model, self.scaler, self.target_scaler = bundle.model, bundle.scaler, bundle.target_scaler

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs for raw inputs."""
        outputs: Tensor = self.model(inputs if self.scaler is None else self.scaler(inputs))
        return outputs if self.target_scaler is None else self.target_scaler.undo(outputs)


def _inputs(bundle: Bundle, size: int) -> Tensor:
    """Return inputs that are normal to the model, as the user would give them."""
    scaled: Tensor = made(bundle.manifest.takes, size, "export", size)
    return (bundle.scaler or Scaler.identity()).undo(scaled)
