"""How fast are bundles and their dense model, in every runtime that is installed?

Whoever prunes for speed could have picked the fastest runtime for the dense model instead: that is what a pruned model is compared
with, for each batch size and number of threads. One that isn't measurably faster than it is called that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from prunus import models
from prunus.core.code.imports import one_line
from prunus.core.errors import BundleError, ModelError, RecipeError, raise_if_out_of_memory
from prunus.core.events import Listener, silent
from prunus.core.files.plain_files import open_plain
from prunus.core.recipes.recipe import Model
from prunus.evaluate.timing.bench_runtimes import Subject
from prunus.evaluate.timing.in_turns import DENSE, bench_subjects
from prunus.pipeline.shipping import bundle_folder, dense_folder
from prunus.ship import Bundle, load_bundle
from prunus.ship.openvino_file import BIN, XML, OpenVinoFile
from prunus.ship.quantize.int8_formats import INT8_RUNTIMES
from prunus.ship.raw_model import RawModel, raw_inputs
from prunus.ship.timed.all_runtimes import ALL_RUNTIMES

__all__ = ["bench_bundles"]


@dataclass
class _Entry:
    """A model that takes part: by what name, where from, and what is told of it."""

    name: str
    subject: Subject
    facts: dict[str, Any] = field(default_factory=dict)


def bench_bundles(
    paths: Sequence[Path],
    *,
    dense: Path | None = None,
    batch_sizes: Sequence[int] = (1, 32),
    threads: Sequence[int] | None = None,
    runtimes: Sequence[str] | None = None,
    repeats: int = 30,
    warm_up: int = 5,
    seed: int = 0,
    trust_code: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Return how long each bundle and the dense model take, in each runtime, at each batch size and number of threads.

    Args:
        paths: bundles, or runs that have one; and ONNX files of their models, or folders of OpenVINO, in int8, say.
        dense: the dense model's bundle; default: that of the run which the first bundle comes from, or the structure that its
            builder makes, or the first bundle itself where others follow.
        threads: default: one, and as many as there are processors.
        runtimes: names of ``ALL_RUNTIMES``; default: all that are installed.
        repeats: rounds that count; in each, every model in every runtime takes a turn.

    Raises:
        BundleError: there is no bundle, a damaged one, or none that could be the dense one.
        RecipeError: a runtime is unknown, a number isn't at least one, or the bundles take different inputs.
        MissingExtraError: a runtime that was asked for isn't installed.
    """
    files = [path for path in paths if path.suffix == ".onnx" or (path / XML).is_file()]
    folders = [bundle_folder(path) for path in paths if path not in files]
    if not folders:
        raise RecipeError(
            f"a file is timed beside a bundle, which says what it takes: got {', '.join(map(str, paths))}"
        )
    if len({*folders, *files}) < len(paths):
        raise RecipeError(f"every bundle may be given once: got {', '.join(map(str, paths))}")
    bundles = [load_bundle(folder, trust_code=trust_code) for folder in folders]
    given = None if dense is None else bundle_folder(dense)
    entries = _entries(folders, bundles, given, trust_code)
    entries += [_of_file(path, bundles[0]) for path in files]
    takes = bundles[0].manifest.takes
    example = {size: raw_inputs(bundles[0], takes, size) for size in {2, *batch_sizes}}
    return bench_subjects(
        {entry.name: entry.subject for entry in entries},
        example,
        facts={entry.name: entry.facts for entry in entries},
        threads=threads,
        batch_sizes=batch_sizes,
        runtimes=runtimes,
        repeats=repeats,
        warm_up=warm_up,
        seed=seed,
        listener=listener,
        known=ALL_RUNTIMES,
    )


def _entries(folders: Sequence[Path], bundles: Sequence[Bundle], given: Path | None, trust_code: bool) -> list[_Entry]:
    """Return the dense model and the others, by name."""
    names = _names(folders)
    first = bundles[0]
    if given is not None:
        dense = _of_bundle(DENSE, given, load_bundle(given, trust_code=trust_code))
    elif (beside := dense_folder(folders[0])) is not None:
        dense = _of_bundle(DENSE, beside, load_bundle(beside, trust_code=trust_code))
    elif len(bundles) > 1:
        dense, bundles, names, folders = _of_bundle(DENSE, folders[0], first), bundles[1:], names[1:], folders[1:]
    else:
        dense = _rebuilt(folders[0], first, trust_code)
    entries = [dense, *(_of_bundle(name, f, b) for name, f, b in zip(names, folders, bundles, strict=True))]
    for entry in entries[1:]:
        if entry.facts["takes"] != first.manifest.takes:
            raise RecipeError(
                f"{entry.facts['bundle']}: it takes other inputs than {folders[0]}: bundles that are timed together take the same"
            )
    for entry in entries:
        del entry.facts["takes"]
    return entries


def _names(folders: Sequence[Path]) -> list[str]:
    """Return what bundles are called: ``pruned`` if there is one, else what tells their paths apart."""
    if len(folders) == 1:
        return ["pruned"]
    named = [str(folder.parent if folder.name == "bundle" else folder) for folder in folders]
    return [f"{name} (bundle)" if name == DENSE else name for name in named]


def _of_bundle(name: str, folder: Path, bundle: Bundle) -> _Entry:
    facts = {"bundle": str(folder), "sha256": bundle.sha256, "kind": bundle.kind, "takes": bundle.manifest.takes}
    return _entry(name, RawModel(bundle), bundle, facts)


def _entry(name: str, model: nn.Module, bundle: Bundle, facts: dict[str, Any]) -> _Entry:
    counted = {"parameters": sum(p.numel() for p in model.parameters())}
    return _Entry(name, Subject(model, raw_inputs(bundle, bundle.manifest.takes, 2)), facts | counted)


def _of_file(path: Path, like: Bundle) -> _Entry:
    """Return an exported file that takes what a bundle takes; its size in bytes is told."""
    example = raw_inputs(like, like.manifest.takes, 2)
    runtime = INT8_RUNTIMES["openvino" if path.suffix != ".onnx" else "onnx"]
    try:
        file: Any = (
            _content(path) if path.suffix == ".onnx" else OpenVinoFile(_content(path / XML), _content(path / BIN))
        )
        subject = runtime.timed(file, example, None)
    except BundleError:
        raise
    except Exception as error:
        raise_if_out_of_memory(error)
        raise ModelError(f"{path}: {runtime.called} can't open it: {one_line(error)[:200]}") from error
    return _Entry(str(path), subject, {"file": str(path), "size_bytes": len(file)})


def _content(path: Path) -> bytes:
    try:
        with open_plain(path) as opened:
            return opened.read()
    except OSError as error:
        raise BundleError(f"{path}: it can't be read: {error.strerror or error}") from error


def _rebuilt(folder: Path, bundle: Bundle, trust_code: bool) -> _Entry:
    """Return the dense structure that the bundle's builder makes; its weights are drawn, which time doesn't depend on."""
    manifest = bundle.manifest
    builder: Callable[[], nn.Module] | None = _dense_builder(bundle, trust_code)
    if builder is None:
        raise BundleError(
            f"{folder}: there is no dense model to compare with: it isn't beside the bundle, and the bundle doesn't know how to "
            f"build it{'' if trust_code or manifest.model.builder is None else ' without --trust-code'}; name it (--dense BUNDLE)"
        )
    try:
        model = builder()
    except Exception as error:
        raise_if_out_of_memory(error)
        raise BundleError(f"{folder}: its builder doesn't make the dense model: {one_line(error)}") from error
    whole = Bundle(model.eval(), manifest, bundle.scaler, bundle.target_scaler, "", "eager")
    facts = {"bundle": None, "weights": "drawn", "takes": manifest.takes}
    return _entry(DENSE, RawModel(whole), whole, facts)


def _dense_builder(bundle: Bundle, trust_code: bool) -> Callable[[], nn.Module] | None:
    """Return what makes the dense structure of a bundle; None where it can't be had."""
    source, manifest = bundle.manifest.model, bundle.manifest
    if source.builder is None or (source.needs_code and not trust_code):
        return None
    config = Model(builder=source.builder, args=source.args)
    return lambda: models.build(config, input_shape=manifest.input_shape, n_outputs=manifest.n_outputs, seed=0)
