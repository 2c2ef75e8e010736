"""In which file does a model leave for a runtime without Python, and does that file answer as the bundle does?

The file takes raw inputs and gives the outputs of ``Bundle.predict``: the scalers are in it. The batch is free, and in ONNX the
sizes that are free in the bundle, too. It is run on random inputs, also of other sizes, before it takes its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.apply.traced.limits import BATCH, Span
from prunus.core.code.extras import require
from prunus.core.errors import ModelError, UnknownNameError, near, raise_if_out_of_memory
from prunus.core.files.plain_files import atomic_path
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from prunus.ship.bundle import Bundle
from prunus.ship.inputs import Inputs, keywords_of, other_sizes
from prunus.ship.mnn.mnn_file import mnn_needs, run_mnn, write_mnn
from prunus.ship.mnn.mnn_zeros import best_block, weight_layers
from prunus.ship.raw_model import RawModel, raw_answers, raw_inputs

__all__ = ["FORMATS", "ExportedFile", "check_format", "export_file", "relative_difference"]

FORMATS = ("mnn", "onnx")
_BATCHES = (1, 3, 8)
_ANY = Span(1, None, BATCH)
_TOLERANCE = 1e-3
"""Of the largest output. Measured on 13 architectures: at most 3e-6 in ONNX Runtime, 2e-5 in MNN, 2e-4 of transformers there."""


@dataclass(frozen=True)
class ExportedFile:
    """What was written, and how far its answers are from the bundle's, as a share of the largest output.

    ``sizes`` are the shapes that it takes. ``zeros`` says how the zeros are used: ``"1x1"`` or ``"4x1"`` blocks by sparse kernels,
    or ``"no"``: all kernels are dense. ``note`` says why sizes that are free in the bundle aren't in the file.
    """

    path: str
    format: str
    size_bytes: int
    difference: float
    batches: tuple[int, ...]
    zeros: str = "no"
    sizes: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"batches": list(self.batches), "sizes": list(self.sizes)}


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
    if any(entry.listed for entry in takes):
        raise ModelError(
            "the model takes a list with a tensor for each example, and a file takes tensors: bundle a module of yours that makes "
            "the list of one tensor, and export that"
        )
    if to == "mnn":
        if (len(takes), keywords_of(takes), n_outputs) != (1, (), 1):
            raise ModelError(
                f"mnn files are written of models with one positional input and one output: this one takes {len(takes)} "
                f"({', '.join(keywords_of(takes)) or 'positional'}) and gives {n_outputs}; export it to ONNX"
            )
        mnn_needs()
        return _export_mnn(bundle, path)
    require("onnxruntime", extra="onnx")
    try:
        return _export_onnx(bundle, takes, path)
    except ModelError as error:
        if not any(entry.spans for entry in takes):
            raise
        made = _export_onnx(bundle, _as_example(takes), path)
        return replace(made, note=f"sizes are those of the example, since others can't be exported ({error})")


def _export_onnx(bundle: Bundle, takes: Inputs, path: Path) -> ExportedFile:
    """Write the file, compared on several batches, and on one of other sizes where they may vary."""
    model = RawModel(bundle).eval()
    proto = export_onnx(model, raw_inputs(bundle, takes, 2), [(_ANY, *entry.allowed[1:]) for entry in takes])
    batches = [raw_inputs(bundle, takes, size) for size in _BATCHES]
    expected = [raw_answers(model, batch) for batch in batches]
    compared = len(batches)
    for entries in other_sizes(takes):
        other = raw_inputs(bundle, entries, _BATCHES[1])
        try:
            expected.append(raw_answers(model, other))
        except Exception as error:  # sizes that the model itself doesn't take
            raise_if_out_of_memory(error)
        else:
            batches.append(other)
            break
    if len(batches) == compared and any(entry.spans for entry in takes):
        raise ModelError(f"{path}: the model takes no other sizes that the file could be compared on")
    with atomic_path(path) as temporary:
        temporary.write_bytes(proto)
        session = OnnxModel(proto)
        answers = [session.outputs(batch) for batch in batches]
        difference = _check(path, expected, answers)
    return ExportedFile(str(path), "onnx", path.stat().st_size, difference, _BATCHES, sizes=_sizes(takes))


def _export_mnn(bundle: Bundle, path: Path) -> ExportedFile:
    takes, model = _as_example(bundle.manifest.takes), RawModel(bundle).eval()
    batches = [raw_inputs(bundle, takes, size) for size in _BATCHES]
    proto = export_onnx(model, raw_inputs(bundle, takes, 2))
    with atomic_path(path) as temporary:
        block = best_block(weight_layers(proto))
        write_mnn(proto, temporary, block=block)
        answers = [[answer] for answer in run_mnn(temporary, batches)]
        difference = _check(path, [raw_answers(model, batch) for batch in batches], answers)
    zeros = "no" if block is None else f"{block}x1"
    return ExportedFile(str(path), "mnn", path.stat().st_size, difference, _BATCHES, zeros, _sizes(takes))


def _check(path: Path, expected: Sequence[Sequence[Tensor]], answers: Sequence[Sequence[Tensor]]) -> float:
    """Return the largest relative difference of any output."""
    outputs = zip(zip(*expected, strict=True), zip(*answers, strict=True), strict=True)
    difference = max(relative_difference(*pair) for pair in outputs)
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{path}: the file would give other outputs than the bundle: they may differ by {_TOLERANCE:g} of the largest one, "
            f"got {difference:.2g}; nothing was written"
        )
    return difference


def _as_example(takes: Inputs) -> Inputs:
    """Return the description with all sizes as they are."""
    return tuple(entry.model_copy(update={"spans": ()}) for entry in takes)


def _sizes(takes: Inputs) -> tuple[str, ...]:
    return tuple(f"{e.name + ' ' if e.name else ''}({', '.join(('n', *map(str, e.allowed[1:])))})" for e in takes)


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
