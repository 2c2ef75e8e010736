"""In which file does a model leave for another runtime, and does that file answer as the bundle does?

The file takes raw inputs and gives the outputs of ``Bundle.predict``: the scalers are in it. The batch is free, and so are the
sizes that are free in the bundle, where the format can say that. It is run on random inputs before it takes its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.errors import ModelError
from prunus.core.files.plain_files import atomic_path
from prunus.ship.bundle import Bundle
from prunus.ship.formats import BATCHES, ExportSource, Format, format_of

__all__ = ["ExportedFile", "export_file", "relative_difference"]

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


def export_file(bundle: Bundle, to: str, path: Path) -> ExportedFile:
    """Write the model of ``bundle`` to ``path`` in one step, and return the facts of the file.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: a package for the format isn't installed.
        ModelError: the model can't be exported, or the file gives other answers than the bundle; nothing was written.
        OutputError: the disk is full or the folder can't be written.
    """
    form = format_of(to)
    source = ExportSource.of(bundle)
    if any(entry.listed for entry in source.takes):
        raise ModelError(
            "the model takes a list with a tensor for each example, and a file takes tensors: bundle a module of yours that makes "
            "the list of one tensor, and export that"
        )
    form.check_model(source)
    form.check_installed()
    if form.free == "batch" or not source.is_free:
        return _export(form, source.fixed(), path)
    try:
        return _export(form, source, path)
    except ModelError as error:
        made = _export(form, source.fixed(), path)
        return replace(made, note=f"sizes are those of the example, since others can't be exported ({error})")


def _export(form: Format, source: ExportSource, path: Path) -> ExportedFile:
    """Write the file, compared on several batches, and on one of other sizes where they may vary."""
    compared = [(inputs, source.answers(inputs)) for inputs in source.batches()]
    if source.is_free:
        other = next(source.of_other_sizes(), None)
        if other is None:
            raise ModelError(f"{path}: the model takes no other sizes that the file could be compared on")
        compared.append(other)
    with atomic_path(path) as temporary:
        written = form.write(source, temporary)
        answers = form.answers(temporary, [inputs for inputs, _ in compared])
        difference = _check(path, [expected for _, expected in compared], answers)
    return ExportedFile(str(path), form.name, path.stat().st_size, difference, BATCHES, written.zeros, source.sizes)


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
