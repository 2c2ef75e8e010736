"""How is a bundle loaded anywhere, without pickle and without trusting its sender?

A bundle is a folder with ``model.safetensors``, ``manifest.json`` and mostly ``graph.json``. Loading checks sizes and hashes.
With a builder that may be used, it builds the dense structure, makes it smaller by the edits, and fills in the weights; without
one, the traced computation takes the weights, and no code of anyone runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from prunus import data
from prunus.core.errors import BundleError, PrunusError, ShapeError, raise_if_out_of_memory
from prunus.core.files.urls.store import refused_as
from prunus.core.files.urls.url_path import path_at
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.ship.assembly import assemble, assemble_graph, skeleton
from prunus.ship.calling import arranged, as_numbers, check_finite, in_batches
from prunus.ship.graph_files.graph_file import sizes_of_inputs
from prunus.ship.graph_limits import GraphLimits, usual_limits
from prunus.ship.inputs import beyond, is_scaled, output_tensors
from prunus.ship.manifest import (
    GRAPH,
    MANIFEST,
    Contents,
    Manifest,
    read_contents,
)

if TYPE_CHECKING:
    from prunus.data import Columns, Scaler

from prunus.tasks import Task, task_of_options

__all__ = ["Bundle", "load_bundle", "meanings"]

Kind = Literal["eager", "graph"]


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: the model in evaluation mode, and what its inputs and outputs mean.

    ``kind`` says what the model is: ``eager``, the Python class, or ``graph``, the traced computation; ``note`` why, where the
    class was there to have. ``folder`` is where it lay.
    """

    model: nn.Module
    manifest: Manifest
    scaler: Scaler | None
    target_scaler: Scaler | None
    sha256: str
    kind: Kind = "eager"
    note: str = ""
    folder: Path | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the outputs are called; empty for regression."""
        return self.manifest.class_names

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What the inputs are called; empty where they have no names."""
        return self.manifest.feature_names

    @property
    def columns(self) -> Columns | None:
        """What the features of a table are made of; None where the inputs are no table's."""
        return self.manifest.columns

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one raw input, before features are selected."""
        return self.manifest.input_shape

    @property
    def task(self) -> str:
        """What the model was trained for, by its registered name."""
        return self.manifest.task

    def predict(self, inputs: Any, *, batch_size: int = 256) -> Tensor:
        """Return the model's outputs for raw inputs (the scaler is applied here), on the CPU.

        Args:
            inputs: a tensor, a tuple (positional) or a mapping (keywords), the batch first in each tensor. Whole numbers that the
                model takes as such stay what they are.

        Shapes:
            Each input is ``(n, *shape)``, where ``manifest.takes`` says which sizes may vary; the result ``(n, outputs)``.

        Raises:
            ShapeError: the inputs have another type or shape, or the model gives several tensors.
            DataError: an input is NaN or infinite; the message names its row.
            RunError: an output is.
        """
        takes = self.manifest.takes
        if self.manifest.n_output_tensors != 1:
            raise ShapeError(
                f"predict is for models of one output: this one gives {self.manifest.n_output_tensors}; use outputs(...), or answer"
            )
        given = arranged(takes, as_numbers(takes, inputs))
        check_finite(given)
        if is_scaled(takes):
            given = {key: self._scaled(value) for key, value in given.items()}
        if not len(next(iter(given.values()))):
            return torch.zeros(0, self.manifest.n_outputs)
        (outputs,) = output_tensors(in_batches(self.model, takes, given, batch_size))
        outputs = outputs if self.target_scaler is None else self.target_scaler.undo(outputs)
        check_outputs_finite(outputs)
        return outputs

    def outputs(self, inputs: Any, *, batch_size: int = 256) -> tuple[Tensor, ...]:
        """Return every tensor that the model gives, on the CPU, for inputs as the model takes them: nothing is scaled.

        Args:
            inputs: a tensor, a tuple (positional) or a mapping (keywords), the batch first in each tensor; a list with one tensor
                for each example where the model takes that.

        Raises:
            ShapeError: other tensors than the manifest's ``takes`` describes.
        """
        return tuple(output_tensors(self.answer(inputs, batch_size=batch_size)))

    def answer(self, inputs: Any, *, batch_size: int = 256) -> Any:
        """Return the model's answer as it gives it, a mapping or a list with one for each example, say, on the CPU.

        Args:
            inputs: as for :meth:`outputs`; nothing is scaled.

        Raises:
            ShapeError: other tensors than the manifest's ``takes`` describes.
        """
        given = arranged(self.manifest.takes, inputs)
        if not len(next(iter(given.values()))):
            raise ShapeError("at least one example is needed: got none")
        return in_batches(self.model, self.manifest.takes, given, batch_size)

    def postprocess(self, outputs: Any, *, task: Task | None = None) -> Prediction:
        """Return the labels (and probabilities) that ``outputs`` mean.

        Args:
            task: reads them instead of the bundle's own.

        Raises:
            BundleError: the bundle's task is Python code, and ``task`` isn't given.
        """
        return (self.reader() if task is None else task).decode(outputs)

    def reader(self) -> Task:
        """Return the task that reads the model's answers, with the options that it was made with.

        Raises:
            BundleError: it is Python code, which no bundle holds.
        """
        manifest = self.manifest
        if manifest.own_task is not None:
            raise BundleError(
                f"this bundle's task is {manifest.own_task}, Python code that no bundle holds: read its answers with "
                "postprocess(outputs, task=TASK), and measure with a recipe that names it (data.task: module:object)"
            )
        return task_of_options(manifest.task, manifest.task_options, class_names=manifest.class_names)

    def _scaled(self, inputs: Tensor) -> Tensor:
        return (self.scaler or data.Scaler.identity())(inputs)


def load_bundle(
    folder: str | Path,
    *,
    trust_code: bool = False,
    builder: Callable[..., nn.Module] | None = None,
    prefer: Kind = "eager",
    device: str = "cpu",
    graph_limits: GraphLimits | None = None,
    sha256: str | None = None,
    size: float | None = None,
) -> Bundle:
    """Return the bundle at ``folder``; nothing in it is run as code, and nothing is parsed before its hash was checked.

    The model is of its Python class where the builder is a built-in one, trusted or given; otherwise it is the traced computation,
    for which no builder is needed.

    Args:
        folder: where it lies, on this machine or at a URL.
        trust_code: allow the manifest to name a ``module:function`` that is imported to build the model.
        builder: a function of your own that builds the dense model, instead of the manifest's; it gets the manifest's args, and
            ``input_shape`` and ``n_outputs`` if it takes arguments of these names.
        prefer: ``graph`` takes the traced computation also where the class could be built.
        graph_limits: how much memory and arithmetic the traced computation may take, when it is loaded and whenever it runs;
            default: the usual limits, times the user's ``PRUNUS_GRAPH_LIMITS``.
        sha256: the hash that the bundle must have: that of :func:`prunus.ship.signing.verify_bundle`, so that what was verified is
            what is loaded, whatever became of the folder in between.
        size: which one of several sizes (``prunus sizes``), by its keep fraction; ``folder`` is theirs, or a run or search that has
            them. The folder of one size is a bundle like any other.

    Raises:
        BundleError: no bundle, a damaged or another one, or one without a graph that needs code that wasn't trusted.
    """
    folder = path_at(folder)
    with refused_as(BundleError):
        contents = _contents(folder, sha256, size)
    manifest, folder = contents.manifest, contents.folder
    kind, note = _kind_of(folder, manifest, builder is not None, trust_code, prefer)
    if kind == "graph":
        model: nn.Module = assemble_graph(contents, device, graph_limits)
    else:
        model = assemble(contents, lambda: skeleton(folder, manifest, builder))
    scalers = meanings(contents, graph_limits)
    return Bundle(model.to(device).eval(), manifest, *scalers, manifest.sha256, kind, note, folder)


def _contents(folder: Path, sha256: str | None, size: float | None) -> Contents:
    """Return what lies in a bundle, or what one size of a folder of sizes is."""
    from prunus.ship.sizes import find_sizes, folder_of_size, list_sizes, read_size, size_of_folder

    if size is not None:
        return read_size(find_sizes(folder), size, sha256=sha256)
    if (own := size_of_folder(folder)) is not None:
        return read_size(folder.parent, own, sha256=sha256)
    if not (folder / MANIFEST).exists() and (sizes := list_sizes(find_sizes(folder))):
        there = ", ".join(f"{one:g}" for one in sizes)
        raise BundleError(
            f"{folder} holds a model in several sizes ({there}): say which, load_bundle(..., size={sizes[-1]:g}), or give its "
            f"folder, {folder_of_size(find_sizes(folder), sizes[-1])}"
        )
    return read_contents(folder, sha256=sha256)


def meanings(contents: Contents, limits: GraphLimits | None = None) -> tuple[Scaler | None, Scaler | None]:
    """Return what scales a bundle's inputs and outputs.

    Raises:
        BundleError: it doesn't fit them; or the manifest allows sizes of inputs that the graph doesn't take.
    """
    folder, manifest = contents.folder, contents.manifest
    scalers = _scaler(folder, manifest, "scaler"), _scaler(folder, manifest, "target_scaler")
    if any(entry.spans for entry in manifest.takes):
        most = (limits or usual_limits()).n_nodes
        has = GRAPH in manifest.files
        spans = sizes_of_inputs(contents.json(GRAPH, max_rows=most), most_nodes=most) if has else ()
        if problem := beyond(manifest.takes, spans):
            raise BundleError(f"{folder}: the manifest says that {problem}; fetch or make the bundle anew")
    return scalers


def _kind_of(folder: Path, manifest: Manifest, given: bool, trust_code: bool, prefer: Kind) -> tuple[Kind, str]:
    """Return which of the two models to load, and a note where the other one was there to have."""
    if manifest.edits is None:
        return "graph", ""
    source = manifest.model
    has_graph = GRAPH in manifest.files
    without = f"{folder}: no graph goes along with this bundle ({manifest.no_graph or 'it was left out'})"
    if prefer == "graph":
        if not has_graph:
            raise BundleError(f"{without}; load it with prefer='eager'")
        return "graph", ""
    if given or not source.needs_code or (trust_code and source.builder is not None):
        return "eager", ""
    if source.builder is None:
        way = "pass load_bundle(..., builder=FUNCTION) with a function that returns the dense model"
        if not has_graph:
            raise BundleError(f"{without}, it was saved from a model object and doesn't know how to build it: {way}")
        return "graph", f"loaded as a graph of tensor operations, which needs no code; for the Python class {way}"
    if not has_graph:
        raise BundleError(
            f"{without}, and it builds its model with {source.builder!r}, which is code outside of prunus: "
            "if you trust it, allow it (load_bundle(..., trust_code=True), or --trust-code), or pass builder=FUNCTION"
        )
    return "graph", (
        f"loaded as a graph of tensor operations: {source.builder!r}, which builds the Python class, is code outside of prunus "
        "and wasn't run; if you trust it, allow it (--trust-code, or trust_code=True)"
    )


def _scaler(folder: Path, manifest: Manifest, which: Literal["scaler", "target_scaler"]) -> Scaler | None:
    values = getattr(manifest, which)
    if values is None:
        return None
    try:
        scaler = data.Scaler.from_dict(values)
        shape = torch.Size(manifest.input_shape if which == "scaler" else ())
        fits = torch.broadcast_shapes(scaler.mean.shape, shape) == shape  # type: ignore[no-untyped-call]
    except (PrunusError, RuntimeError) as error:
        raise_if_out_of_memory(error)
        raise BundleError(
            f"{folder}: the manifest's {which} can't be used: {error}; fetch or make the bundle anew"
        ) from error
    if not fits:
        raise BundleError(
            f"{folder}: the {which} must fit values of shape {list(shape)}: got {list(scaler.mean.shape)}"
        )
    return scaler
