"""On which examples is a bundle measured, and as its model takes them?

Whatever the data are, they go to the model as those did that it learnt from: encoded, scaled and numbered by what the bundle holds,
never by what could be fitted to the data at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.calls import answer
from prunus.core.code.imports import is_reference
from prunus.core.errors import BundleError, DataError, ModelError
from prunus.core.recipes.recipe import Data
from prunus.data import (
    DrawnSource,
    EncodedTable,
    Examples,
    Source,
    Takes,
    class_names_of,
    encoded_as,
    handed_by,
    is_table,
    known_labels,
    open_dataset,
    open_drawn,
    open_source,
    prepare,
    prepare_dataset,
    read_as,
)
from prunus.pipeline.handed import is_of_anything, is_of_parts, prepared_of
from prunus.pipeline.inputs_of_files import inputs_of_file
from prunus.ship import Bundle, arranged, sizes_misfit
from prunus.tasks import Regression, Task, as_task

__all__ = ["all_examples", "in_units", "run_examples"]

Note = Callable[[str], None] | None


def run_examples(
    config: Data,
    bundle: Bundle,
    note: Note,
    *,
    parts: Sequence[str] = ("train", "test"),
    teacher: nn.Module | None = None,
) -> dict[str, Examples]:
    """Return some parts of data that are split as a recipe says.

    Args:
        teacher: the dense model, whose answers are the targets where the bundle's task compares with it.

    Raises:
        DataError: they don't fit the bundle.
        BundleError: the bundle's task can't be measured without what it hasn't got.
    """
    task = _task(bundle, config, teacher)
    if _is_handed(config):
        given = handed_by(config)
        if _is_drawn(given, bundle, config):
            as_they_come = {"standardize": False, "scale": 1.0, "mean": None, "std": None, "label_noise": 0.0}
            for part in given.values() if is_of_parts(given) else (given,):
                _opened(part, config.source, bundle, task)
            plain = config.model_copy(update=as_they_come)
            taught_by = teacher if task.of_dense and teacher is not None else bundle.model
            made = prepared_of(given, plain, torch.device("cpu"), taught_by, task=task, trained=True)
            return {part: _as_taken(getattr(made, part), bundle, task, note, teacher) for part in parts}
        whole = len(bundle.manifest.takes) == 1 and bundle.manifest.takes[0].dtype == "int64"
        prepared = prepare_dataset(given, config, ids=True) if whole else prepare(config, given=given)
    else:
        more = {} if bundle.columns is None else read_as(bundle.columns)
        prepared = prepare(config.model_copy(update=more))
    return {part: _as_taken(getattr(prepared, part), bundle, task, note) for part in parts}


def all_examples(config: Data, bundle: Bundle, note: Note, *, teacher: nn.Module | None = None) -> dict[str, Examples]:
    """Return every example of a source: of each part that it has, or of ``all``.

    Args:
        teacher: as in :func:`run_examples`; then a file is read as ``prunus predict`` reads one, without targets.

    Raises:
        DataError: they don't fit the bundle.
        BundleError: the bundle's task can't be measured without what it hasn't got.
    """
    task = _task(bundle, config, teacher)
    if task.of_dense and not _is_handed(config):
        return {"all": _of_file(config.source, bundle, task, note, teacher)}
    if is_table(config):
        config = config.model_copy(update=read_as(bundle.columns, bundle.feature_names))
    if _is_handed(config):
        given = handed_by(config)
        if _is_drawn(given, bundle, config):
            parts = given if is_of_parts(given) else {"all": given}
            return {name: _all_drawn(part, name, config.source, bundle, task, teacher) for name, part in parts.items()}
        found = open_dataset(config, given)
    else:
        found = open_source(config)
    return {"all": _encoded(found, torch.arange(len(found.ids)), None, bundle, task, note)}


def in_units(bundle: Bundle, examples: Mapping[str, Examples]) -> nn.Module:
    """Return the model that gives answers in the units of the examples' targets: those that are read when needed aren't scaled."""
    drawn = any(isinstance(part.source, DrawnSource) for part in examples.values())
    return bundle.model if not drawn or bundle.target_scaler is None else _InUnits(bundle)


class _InUnits(nn.Module):
    """A model with the scaling of its targets undone."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model, self.scaler = bundle.model, bundle.target_scaler

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return the answer as the targets were."""
        assert self.scaler is not None
        return self.scaler.undo(answer(self.model(*inputs, **named)))


def _task(bundle: Bundle, config: Data, teacher: nn.Module | None) -> Task:
    """Return what is asked of the model: the user's own task, where a recipe that may names it, else the bundle's."""
    own = is_reference(config.task)
    task = as_task(config.task, class_names=bundle.class_names) if own else bundle.reader()
    if task.of_dense and teacher is None:
        raise BundleError(
            f"the bundle was made for {task.name}, how closely its model answers as the dense one, which it doesn't hold: give the "
            "dense model's bundle (--dense; a run leaves it with keep_dense: true), or compare in Python (ModelOptimizer.evaluate)"
        )
    return task


def _is_handed(config: Data) -> bool:
    """Tell whether data come from a function of the user's alone."""
    return config.is_function and not config.own_parts and not Path(config.source).exists()


def _is_drawn(given: Any, bundle: Bundle, config: Data) -> bool:
    """Tell whether what a function returned is read when needed, and goes to the model as it comes."""
    plain = bundle.task in ("classification", "regression") and not is_reference(config.task)
    return is_of_anything(given) or len(bundle.manifest.takes) != 1 or not plain


def _all_drawn(
    given: Any, part: str, name: str, bundle: Bundle, task: Task, teacher: nn.Module | None = None
) -> Examples:
    source = _opened(given, name if part == "all" else f"{name}[{part!r}]", bundle, task)
    rows = torch.arange(len(source))
    return Examples(source, rows, task=task, scaler=bundle.scaler, teacher=teacher if task.of_dense else None)


def _of_file(path: str, bundle: Bundle, task: Task, note: Note, teacher: nn.Module | None) -> Examples:
    """Return the inputs in a file, without targets; rows that the model can't take are said and left out."""
    found = inputs_of_file(path, bundle)
    for line in (
        *found.notes,
        *(f"{found.ids[bad.row]} is left out: expected {bad.expected}, got {bad.got}" for bad in found.bad),
    ):
        if note is not None:
            note(f"{path}: {line}")
    ((_, inputs),) = found.parts
    return _all_drawn(inputs, "all", path, bundle, task, teacher)


def _opened(given: Any, name: str, bundle: Bundle, task: Task) -> DrawnSource:
    """Return data that are read when needed; classes have the bundle's names, in their order, and its model takes the inputs.

    Raises:
        DataError: they haven't, or it doesn't.
    """
    own, known = class_names_of(given), bundle.class_names
    numbered = known == tuple(map(str, range(len(known))))
    if own and known and own != known and not numbered:
        raise DataError(
            f"{name}: expected class numbers that stand for {', '.join(known)}, in this order: got {', '.join(own)}"
        )
    source = open_drawn(given, Takes.of(bundle.model), name, labelled=not task.of_dense)
    source.task, source.class_names = task.name, tuple(task.class_names)
    source.labels = known_labels(source) if task.exclusive else None
    try:
        arranged(bundle.manifest.takes, source.inputs(torch.arange(1)))
    except ModelError as error:
        raise DataError(f"{name}: the bundle doesn't take such inputs: {error}") from error
    return source


def _as_taken(part: Examples, bundle: Bundle, task: Task, note: Note, teacher: nn.Module | None = None) -> Examples:
    """Return examples as the model of a bundle takes them, whatever they were encoded and scaled by."""
    source = part.source
    if not isinstance(source, DrawnSource):
        return _encoded(source, part.rows, part, bundle, task, note)
    return Examples(source, part.rows, task=task, scaler=bundle.scaler, teacher=teacher if task.of_dense else None)


def _encoded(source: Source, rows: Tensor, part: Examples | None, bundle: Bundle, task: Task, note: Note) -> Examples:
    """Return rows of a source, labels numbered as the bundle numbers them; those of ``part`` may be others than the source's."""
    found = encoded_as(source, bundle.columns, bundle.feature_names)
    _check_fits(found, bundle)
    other = getattr(source, "columns", None) != bundle.columns
    if isinstance(found, EncodedTable) and note is not None and other:
        for line in found.strange(rows):
            note(f"{source.name}: {line}")
    if not isinstance(task, Regression):
        number = torch.tensor([bundle.class_names.index(name) for name in found.class_names])
        targets = number[(found.targets[rows] if part is None else part.targets).cpu()]
        return Examples(found, rows, targets=targets, task=task, scaler=bundle.scaler)
    return Examples(found, rows, scaler=bundle.scaler, target_scaler=bundle.target_scaler)


def _check_fits(found: Source, bundle: Bundle) -> None:
    """Refuse data that a bundle can't have been made for."""
    takes = bundle.manifest.takes
    if len(takes) != 1 or sizes_misfit(takes, [torch.empty(1, *found.input_shape, device="meta")]):
        wanted = ", ".join(f"({', '.join(('n', *map(str, entry.allowed[1:])))})" for entry in takes)
        got = ", ".join(("n", *map(str, found.input_shape)))
        raise DataError(f"{found.name}: the bundle needs inputs of shape {wanted}, got ({got})")
    if found.task != bundle.task:
        raise DataError(f"{found.name}: the bundle was made for {bundle.task}, got data for {found.task}")
    unknown = [name for name in found.class_names if name not in bundle.class_names]
    if unknown:
        raise DataError(
            f"{found.name}: the bundle knows the classes {', '.join(bundle.class_names)}, got {unknown[0]!r}"
        )
