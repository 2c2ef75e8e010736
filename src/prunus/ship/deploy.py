"""In which file does a model leave for another runtime, and does that file answer as the bundle does?

The file takes raw inputs and gives the outputs of ``Bundle.predict``: the scalers are in it. The batch is free, and so are the
sizes that are free in the bundle, where the format can say that. Before it takes its name its runtime answers random inputs, and
real ones where there are any; a file that can't run here is read back and its parts compared with the model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.errors import ModelError, OutputError
from prunus.core.files.plain_files import atomic_folder, atomic_path, size_of
from prunus.ship.bundle import Bundle
from prunus.ship.formats import BATCHES, ExportSource, Format, format_of, n_rows

__all__ = ["ExportedFile", "check_place", "export_file", "relative_difference"]

_TOLERANCE = 1e-3
"""Of the largest output. Measured on 13 architectures: at most 3e-6 in ONNX Runtime, 2e-5 in MNN, 2e-4 of transformers there."""


@dataclass(frozen=True)
class ExportedFile:
    """What was written, and how far its answers are from the bundle's, as a share of the largest output.

    ``difference`` is None where the file can't run here; ``checked`` then says what was found right without running it.
    ``batches`` are the sizes of the batches of random inputs that were compared, ``n_samples`` how many real examples.
    ``sizes`` are the shapes that it takes. ``zeros`` says how the zeros are used: ``"1x1"`` or ``"4x1"`` blocks by sparse kernels,
    or ``"no"``: all kernels are dense. ``version`` is the format's, such as the opset. ``note`` says what whoever takes the
    file should know: why sizes that are free in the bundle aren't in the file, say.
    """

    path: str
    format: str
    size_bytes: int
    difference: float | None
    batches: tuple[int, ...]
    zeros: str = "no"
    sizes: tuple[str, ...] = ()
    note: str = ""
    version: str = ""
    n_samples: int = 0
    checked: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        lists = ("batches", "sizes", "checked")
        return asdict(self) | {name: list(getattr(self, name)) for name in lists}


def export_file(
    bundle: Bundle, to: str, path: Path, *, samples: Sequence[Any] = (), beside: Path | None = None
) -> ExportedFile:
    """Write the model of ``bundle`` to ``path`` in one step, and return the facts of the file.

    Args:
        samples: batches of real inputs, as the user has them, that the file is to be compared on, too.
        beside: a folder with files of a tokenizer or a processor, which go along where the format is a folder for transformers.

    Raises:
        UnknownNameError: there is no such format.
        MissingExtraError: a package for the format isn't installed.
        ModelError: the model can't be exported, or the file gives other answers than the bundle; nothing was written.
        OutputError: the disk is full or the folder can't be written.
    """
    form = format_of(to)
    if beside is not None and not form.takes_processor:
        raise ModelError(f"{to}: it has no room for a processor: got --processor {str(beside)!r}; leave it out")
    source = replace(ExportSource.of(bundle, samples), beside=beside)
    if any(entry.listed for entry in source.takes):
        raise ModelError(
            "the model takes a list with a tensor for each example, and a file takes tensors: bundle a module of yours that makes "
            "the list of one tensor, and export that"
        )
    form.check_model(source)
    form.check_installed()
    check_place(form, path)
    if form.free == "none":
        return _export(form, source.one_by_one(), path)
    if form.free == "bounded":
        source = source.bounded()
    if form.free == "batch" or not source.is_free:
        return _export(form, source.fixed(), path)
    try:
        return _export(form, source, path)
    except ModelError as error:
        made = _export(form, source.fixed(), path)
        return replace(made, note=f"sizes are those of the example, since others can't be exported ({error})")


def _export(form: Format, source: ExportSource, path: Path) -> ExportedFile:
    """Write the file, compared on several batches, on one of other sizes where they may vary, and on real samples."""
    compared = [(inputs, source.answers(inputs)) for inputs in source.batches()]
    if source.is_free:
        other = next(source.of_other_sizes(), None)
        if other is None:
            raise ModelError(f"{path}: the model takes no other sizes that the file could be compared on")
        compared.append(other)
    samples = source.fitting_samples()
    compared += [(inputs, source.answers(inputs)) for inputs in samples]
    with _in_one_step(form, path) as temporary:
        written = form.write(source, temporary)
        if form.runs_here():
            answers = form.answers(temporary, [inputs for inputs, _ in compared])
            difference: float | None = _check(path, [expected for _, expected in compared], answers)
            checked: tuple[str, ...] = ()
        else:
            difference, checked = None, form.inspect(source, temporary)
    return ExportedFile(
        str(path),
        form.name,
        size_of(path),
        difference,
        ((1,) if source.most_examples == 1 else BATCHES) if form.runs_here() else (),
        written.zeros,
        source.sizes,
        note=written.note,
        version=written.version,
        n_samples=sum(map(n_rows, samples)) if form.runs_here() else 0,
        checked=checked,
    )


def check_place(form: Format, path: Path) -> None:
    """Raise where a folder would take the place of something that no export has made: nobody's files are lost by a typing error."""
    if not form.files or not (path.exists() or path.is_symlink()):
        return
    is_folder = path.is_dir() and not path.is_symlink()
    others = form.others(path) if is_folder else []
    if others or not is_folder:
        what = f"a folder with other things in it ({others[0]})" if others else "no folder"
        raise OutputError(
            f"can't write {path}: {form.name} is a folder with {', '.join(form.files)}, and {what} is there; choose another place"
        )


@contextmanager
def _in_one_step(form: Format, path: Path) -> Iterator[Path]:
    with atomic_folder(path) if form.files else atomic_path(path) as temporary:
        yield temporary


def _check(path: Path, expected: Sequence[Sequence[Tensor]], answers: Sequence[Sequence[Tensor]]) -> float:
    """Return the largest relative difference of any output."""
    counts = {len(one) for one in expected}, {len(one) for one in answers}
    if counts[0] != counts[1]:
        raise ModelError(
            f"{path}: the file would give {max(counts[1])} outputs, and the bundle {max(counts[0])}; nothing was written"
        )
    pairs = list(zip(zip(*expected, strict=True), zip(*answers, strict=True), strict=True))
    for number, (wanted, had) in enumerate(pairs):
        _check_finite(path, f"output {number}", wanted, had)
    difference = max(relative_difference(*pair) for pair in pairs)
    if not difference <= _TOLERANCE:
        raise ModelError(
            f"{path}: the file would give other outputs than the bundle: they may differ by {_TOLERANCE:g} of the largest one, "
            f"got {difference:.2g}; nothing was written"
        )
    return difference


def _check_finite(path: Path, name: str, expected: Sequence[Tensor], got: Sequence[Tensor]) -> None:
    """Raise where an output isn't a number: in the bundle itself, or in the file alone, which then overflows."""
    wanted = sum(int(one.isnan().sum()) for one in expected)
    if wanted:
        n_values = sum(one.numel() for one in expected)
        raise ModelError(
            f"{path}: {wanted} of {n_values} values of the bundle's own {name} are NaN; nothing was written"
        )
    fits = [(one, other) for one, other in zip(expected, got, strict=True) if one.shape == other.shape]
    lost = sum(int((~other.isfinite() & one.isfinite()).sum()) for one, other in fits)
    if lost:
        raise ModelError(
            f"{path}: {name} of the file overflows: {lost} of {sum(one.numel() for one, _ in fits)} values are infinite or NaN "
            "where the bundle's are numbers; nothing was written"
        )


def relative_difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return the largest difference over the largest expected output; infinity where shapes differ or a value isn't a number.

    An infinite value is right where the same one is expected.

    >>> relative_difference([torch.tensor([1.0, -4.0])], [torch.tensor([1.0, -3.0])])
    0.25
    """
    if [tuple(one.shape) for one in expected] != [tuple(one.shape) for one in got]:
        return math.inf
    wanted, had = (torch.cat([one.flatten().double() for one in outputs]) for outputs in (expected, got))
    apart = torch.where(wanted == had, 0.0, (wanted - had).abs())
    largest = torch.where(wanted.isinf(), 0.0, wanted.abs()).max().clamp(min=torch.finfo(torch.float32).tiny)
    found = float(apart.max() / largest)
    return found if math.isfinite(found) else math.inf
