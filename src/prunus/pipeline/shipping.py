"""How does the result of a run leave as a bundle, and how is it found again, with the dense model that it came from?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.calls import answer, arguments, call, map_tensors, n_examples, select_rows, tensors
from prunus.core.errors import BundleError
from prunus.core.files.urls.store import refused_as
from prunus.core.text import plain
from prunus.data import DrawnSource, holds_ids
from prunus.data.sources.source import CHUNK_ROWS
from prunus.graph.tracing.states import as_it_was
from prunus.pipeline.jobs.card_of_run import card_of_job
from prunus.pipeline.jobs.job import Candidate, Job, SeedResult
from prunus.pipeline.jobs.run_folder import RECORD
from prunus.report import load_record
from prunus.ship import Bundle, CardFacts, load_bundle, save_bundle, stored_size_bytes
from prunus.tasks import Regression

__all__ = [
    "DENSE",
    "bundle_folder",
    "check_made_there",
    "dense_folder",
    "load_checked",
    "model_fingerprint",
    "open_dense",
    "ship",
    "ship_candidate",
    "ship_dense",
    "sizes_on_disk",
]

DENSE = "dense"
"""The folder of a run with the bundle of its dense model."""


def ship(job: Job, result: SeedResult, folder: Path, card: CardFacts | None = None) -> str:
    """Write the pruned model of ``result`` to ``folder`` and return the bundle's hash; ``card`` says what was found out."""
    with job.workspace.stage("ship"):
        return ship_candidate(job, result.seed, result.pruned, folder, card)


def ship_dense(job: Job, result: SeedResult, run: Path) -> None:
    """Write the dense model of ``result`` beside the pruned one, to compare with; a note says where it can't be bundled."""
    with job.workspace.stage("ship the dense model"):
        try:
            ship_candidate(job, result.seed, Candidate(result.dense), run / DENSE)
        except BundleError as error:
            job.workspace.note("ship the dense model", f"it isn't kept: {error}")


def ship_candidate(job: Job, seed: int, candidate: Candidate, folder: Path, card: CardFacts | None = None) -> str:
    """Write a model to ``folder`` and return the bundle's hash.

    Raises:
        BundleError: the model can't be brought into a bundle.
        OutputError: the disk is full or the folder can't be written.
    """
    data, recipe = job.data, job.recipe
    example = _example(job)
    return save_bundle(
        folder,
        candidate.model,
        built_by=recipe.model if job.named_builder else None,
        dense=None if candidate.kind == "graph" else job.build(seed),
        input_shape=data.source.input_shape or _first_shape(example),
        n_outputs=_n_outputs(job, candidate.model, example),
        task=data.train.task,
        example=example,
        class_names=data.train.class_names,
        feature_names=data.train.feature_names,
        columns=data.columns,
        scaler=data.scaler,
        target_scaler=data.train.target_scaler if isinstance(data.train.task, Regression) else None,
        facts={"name": recipe.name, "seed": seed, "data": recipe.data.model_dump(mode="json")},
        card=card or card_of_job(job),
    )


def _example(job: Job) -> Any:
    """Return two examples of what the model takes, whose whole numbers show how large they get; None: a tensor of fractions."""
    source = job.data.source
    if isinstance(source, DrawnSource):
        inputs = next(iter(job.data.calibration.batches(2))).inputs
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            return None
        return _with_largest(inputs, job)
    return _ids(job) if holds_ids(source) else None


def _with_largest(inputs: Any, job: Job) -> Any:
    """Return two rows of inputs, with the largest whole number that a calibration example has in its place."""
    largest: dict[str, int] = {}
    for batch in job.data.calibration.batches(CHUNK_ROWS):
        for where, value in tensors(batch.inputs):
            if not value.is_floating_point() and value.dtype != torch.bool and value.numel():
                largest[where] = max(largest.get(where, 0), int(value.max()))
    n = n_examples(arguments(inputs))
    two = map_tensors(lambda value: value.cpu().clone(), select_rows(inputs, torch.arange(2) % n))
    for where, value in tensors(two):
        if where in largest and value.dim():
            value.view(-1)[0] = largest[where]
    return two


def _first_shape(example: Any) -> tuple[int, ...]:
    """Return the shape of the first of several inputs."""
    shapes = [tuple(value.shape[1:]) for _, value in tensors(example) if value.dim() > 1]
    return shapes[0] if shapes else (1,)


def _n_outputs(job: Job, model: nn.Module, example: Any) -> int:
    """Return how many numbers the model gives, of each example or at each place."""
    train = job.data.train
    if train.class_names or example is None or isinstance(train.task, Regression):
        return train.n_outputs
    with torch.no_grad(), as_it_was(model):
        made = answer(call(model.eval(), map_tensors(lambda value: value.to(job.device), example)))
    return made.shape[-1] if made.dim() > 1 else 1


def _ids(job: Job) -> Tensor:
    """Return two rows of ids that show how large they get."""
    source, largest = job.data.source, 0
    for first in range(0, len(source.ids), CHUNK_ROWS):
        rows = torch.arange(first, min(first + CHUNK_ROWS, len(source.ids)))
        largest = max(largest, int(source.inputs(rows).max()))
    return torch.full((2, *source.input_shape), largest)


def bundle_folder(path: Path) -> Path:
    """Return the bundle's folder when ``path`` is a run that has one, else ``path``."""
    inner = path / "bundle"
    with refused_as(BundleError):
        return inner if inner.is_dir() else path


def check_made_there(folder: Path, sha256: str) -> None:
    """Refuse a bundle that lies in a run and isn't the one that the run made.

    Raises:
        BundleError: the run's record names another hash.
    """
    record = folder.parent / RECORD
    if folder.name == "bundle" and record.exists():
        made = load_record(record).fingerprints.get("bundle")
        if made is not None and made != sha256:
            raise BundleError(
                f"{folder} isn't the bundle that this run made: its record says {plain(made[:12])}…, got {sha256[:12]}…; "
                "fetch or make it anew, or move it out of the run"
            )


def dense_folder(bundle: Path) -> Path | None:
    """Return the bundle of the dense model that the run of ``bundle`` left beside it; None where there is none."""
    beside = bundle.parent / DENSE
    return beside if bundle.name == "bundle" and (beside / "manifest.json").is_file() else None


def load_checked(folder: Path, trust_code: bool, note: Callable[[str], None] | None) -> Bundle:
    """Return a bundle; one in a run's folder has to be the one that the run made."""
    bundle = load_bundle(folder, trust_code=trust_code)
    check_made_there(folder, bundle.sha256)
    if bundle.note and note is not None:
        note(f"{folder}: {bundle.note}")
    return bundle


def open_dense(
    folder: Path, bundle: Bundle, dense: Path | None, trust_code: bool, note: Callable[[str], None] | None
) -> tuple[Path, Bundle] | None:
    """Return where the dense model's bundle lies, and it: the one that is named, or the run's own beside; None without one.

    Raises:
        BundleError: it is damaged, or not of the same kind.
    """
    beside = dense_folder(folder) if dense is None else bundle_folder(dense)
    if beside is None:
        return None
    other = load_checked(beside, trust_code, note)
    _check_pair(folder, bundle, beside, other)
    return beside, other


def _check_pair(folder: Path, bundle: Bundle, beside: Path | None, dense: Bundle) -> None:
    """Refuse two bundles that don't take the same inputs, encoded and scaled alike, for the same answers."""
    pairs = {
        "task": (bundle.task, dense.task),
        "classes": (bundle.class_names, dense.class_names),
        "columns": (bundle.columns, dense.columns),
        "features": (bundle.feature_names, dense.feature_names),
        "inputs": (bundle.input_shape, dense.input_shape),
    }
    for what, (one, two) in pairs.items():
        if one != two:
            raise BundleError(
                f"{folder} and {beside} can't be compared: their {what} differ; expected the dense model of the same run, got "
                f"{_said(two)} beside {_said(one)}"
            )
    for what, ours, theirs in (
        ("scaling of inputs", bundle.scaler, dense.scaler),
        ("scaling of targets", bundle.target_scaler, dense.target_scaler),
    ):
        if (ours is None) != (theirs is None) or (ours is not None and theirs is not None and not _alike(ours, theirs)):
            raise BundleError(
                f"{folder} and {beside} can't be compared: their {what} differs; expected the dense model of the same run"
            )


def _alike(one: object, two: object) -> bool:
    return all(bool((getattr(one, key) == getattr(two, key)).all()) for key in ("mean", "deviation"))


def _said(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def sizes_on_disk(result: SeedResult) -> dict[str, int]:
    """Return the bytes of both models' weights as a bundle stores them."""
    return {"dense": stored_size_bytes(result.dense), "pruned": stored_size_bytes(result.pruned.model)}


def model_fingerprint(model: nn.Module) -> str:
    """Return a hash of the structure: every tensor's name, shape and type, and the classes of the layers."""
    parts: list[Any] = [(name, type(module).__qualname__) for name, module in model.named_modules()]
    parts += [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in sorted(model.state_dict().items())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
