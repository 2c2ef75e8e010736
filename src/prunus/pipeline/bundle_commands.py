"""What is done with a bundle or a run that is already there: evaluate, predict, export, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.code.imports import one_line
from prunus.core.errors import NotFiniteError, PlanError, PrunusError
from prunus.core.recipes.recipe import Data, Recipe
from prunus.evaluate import measure_cost
from prunus.pipeline.bundle_examples import all_examples, in_units, run_examples
from prunus.pipeline.carried import data_of_bundle
from prunus.pipeline.inputs_of_files import inputs_of_file
from prunus.pipeline.jobs.run_folder import RECORD, SAFETY
from prunus.pipeline.measure import quality_of
from prunus.pipeline.shipping import bundle_folder, load_checked, open_dense
from prunus.report import RunRecord, SafetyFacts, load_record, load_safety, write_html
from prunus.ship import (
    Bundle,
    bundle_size_bytes,
    export_file,
    format_of,
    is_scaled,
    stored_size_bytes,
)

__all__ = ["evaluate_bundle", "export_bundle", "predict_file", "write_report"]

_LIKE_DENSE = "agreement"
_REAL = 32
"""How many real examples an exported file is compared on."""


def evaluate_bundle(
    path: Path,
    *,
    dense: Path | None = None,
    source: str | None = None,
    target: str | None = None,
    data: Data | None = None,
    trust_code: bool = False,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Return the quality of a bundle on ``data`` (train and test), or on all examples of ``source``.

    Args:
        dense: the dense model's bundle, which a bundle of the task ``agreement`` is measured by; default: the run's own, beside it.
        data: default: the data of the bundle's own recipe, if they come with prunus or the bundle is trusted.
        trust_code: allow the bundle to name functions, which are imported and called, and files, which are read.
        note: is told when the bundle's graph was measured because its class may not be built.

    Raises:
        DataError: the data don't fit the bundle, by which they are encoded, scaled and numbered.
        PlanError: the bundle doesn't say on which data it was made, or names some that aren't allowed.
        BundleError: the bundle is damaged, or has no graph and needs code that isn't trusted.
    """
    folder = bundle_folder(path)
    bundle = load_checked(folder, trust_code, note)
    other = open_dense(folder, bundle, dense, trust_code, note) if bundle.task == _LIKE_DENSE else None
    teacher = None if other is None else other[1].model
    if source is None:
        config = data_of_bundle(bundle, folder, trust_code=trust_code) if data is None else data
        splits = run_examples(config, bundle, note, teacher=teacher)
    else:
        config = Data(source=source, target=target, task=bundle.task)
        splits = all_examples(config, bundle, note, teacher=teacher)
    recipe, model = Recipe(data=config), in_units(bundle, splits)
    rows = {name: quality_of(model, examples, recipe).to_dict() for name, examples in splits.items()}
    batch = next(iter(next(iter(splits.values())).batches(1)))
    sizes = {"size_bytes": stored_size_bytes(bundle.model), "bundle_bytes": bundle_size_bytes(folder)}
    cost = measure_cost(bundle.model, batch.inputs).to_dict() | sizes
    return {"bundle": str(folder), "sha256": bundle.sha256, "kind": bundle.kind, "splits": rows, "cost": cost}


def predict_file(
    path: Path,
    inputs: str,
    *,
    own_size: bool = False,
    trust_code: bool = False,
    note: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """Return one row per example of a file without labels: its id, and its label with a probability, or its value.

    What can't be predicted doesn't stop the others: its row has ``error``: the row, the column, what was expected, what came.
    Images keep their ``own_size``, or are resized to that of the training. ``note`` is told when the bundle's graph predicted
    because its class may not be built.
    """
    bundle = load_checked(bundle_folder(path), trust_code, note)
    bundle.reader()  # said before any work
    given = inputs_of_file(inputs, bundle, own_size=own_size)
    for line in given.notes:
        if note is not None:
            note(f"{inputs}: {line}")
    rows: list[dict[str, Any]] = [{"id": name} for name in given.ids]
    for bad in given.bad:
        rows[bad.row]["error"] = {"row": bad.row, "column": bad.column, "expected": bad.expected, "got": bad.got}
    places: list[int] = []
    answers: list[Tensor] = []
    for own, values in given.parts:
        for place, answer in zip(own, _answers(bundle, values), strict=True):
            if answer is None:
                got = "NaN or infinity: it is far from what the model learnt from"
                rows[place]["error"] = {"row": place, "column": None, "expected": "a finite answer", "got": got}
            else:
                places.append(place)
                answers.append(answer)
    if not places:
        return rows
    found = bundle.postprocess(torch.stack(answers))
    best = None if found.probabilities is None else found.probabilities.max(dim=1).values.tolist()
    for number, (place, label) in enumerate(zip(places, found.labels, strict=True)):
        rows[place] |= {"value": label} if best is None else {"label": label, "probability": round(best[number], 6)}
    return rows


def _answers(bundle: Bundle, values: Any) -> list[Tensor | None]:
    """Return the model's answer to each example; None where it overflows, if others don't.

    Raises:
        NotFiniteError: no example has a finite answer.
    """
    try:
        return list(bundle.predict(values)) if not isinstance(values, Tensor) or len(values) else []
    except NotFiniteError:
        if not isinstance(values, Tensor) or len(values) == 1:
            raise
        halves = []
        for half in values.chunk(2):
            try:
                halves.append(_answers(bundle, half))
            except NotFiniteError:
                halves.append([None] * len(half))
        found = [answer for half in halves for answer in half]
        if all(answer is None for answer in found):
            raise
        return found


def export_bundle(
    path: Path,
    to: str,
    *,
    out: Path | None = None,
    beside: Path | None = None,
    trust_code: bool = False,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Write a bundle's model as a file of another runtime; return its path, size and how far its answers are from the bundle's.

    Args:
        to: one of ``prunus.ship.FORMATS``.
        out: default: beside the bundle, with the format as its ending. A file that is there is replaced in one step.
        beside: a folder with files of a tokenizer or a processor that go along (``hf``).
        note: is told when the bundle's graph is exported because its class may not be built.

    Raises:
        UnknownNameError: there is no such format.
        ModelError: the model can't be exported, or the file would give other answers; nothing was written.
        MissingExtraError: a package for the format isn't installed.
    """
    form = format_of(to)
    folder = bundle_folder(path)
    bundle = load_checked(folder, trust_code, note)
    if out is None:
        named = folder if folder.name not in ("", "..") else folder.resolve()
        out = named.with_name(f"{named.name}.{form.ending or form.name}")
    made = export_file(bundle, to, out, samples=_real_inputs(bundle, folder, trust_code), beside=beside)
    if made.note and note is not None:
        note(f"{made.path}: {made.note}")
    return {"bundle": str(folder), "sha256": bundle.sha256, "kind": bundle.kind} | made.to_dict()


def _real_inputs(bundle: Bundle, folder: Path, trust_code: bool) -> list[Any]:
    """Return a batch of the test examples that a bundle was made with, as a user has them; none where they can't be had."""
    try:
        config = data_of_bundle(bundle, folder, trust_code=trust_code)
        inputs = next(iter(run_examples(config, bundle, None)["test"].batches(_REAL))).inputs
    except (PrunusError, OSError, StopIteration):
        return []
    raw = isinstance(inputs, Tensor) and is_scaled(bundle.manifest.takes) and bundle.scaler is not None
    return [bundle.scaler.undo(inputs) if raw and bundle.scaler is not None else inputs]


def write_report(folder: Path) -> RunRecord:
    """Return the record of a finished run, and write its ``report.html`` anew.

    Raises:
        PlanError: there is no record, or it is damaged.
        OutputError: the page can't be written.
    """
    record = load_record(folder / RECORD)
    try:
        write_html(record, folder / "report.html", _safety(folder, record))
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        if isinstance(error, PrunusError):
            raise
        raise PlanError(
            f"{folder / RECORD}: its parts don't fit each other ({one_line(error)[:200]}); it was damaged or changed by hand"
        ) from error
    return record


def _safety(folder: Path, record: RunRecord) -> SafetyFacts | None:
    """Return what was measured of the run's models afterwards, where it is there and of these models."""
    path = folder / SAFETY
    if not path.is_file():
        return None
    found = load_safety(path)
    return found if found.hashes.get("bundle") == record.fingerprints.get("bundle") else None
