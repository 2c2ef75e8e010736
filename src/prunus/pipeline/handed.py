"""What becomes of the data that somebody hands over with a model?

One tensor of inputs with a class or a number for each example is scaled, searched for duplicates and kept as files are. All else is
taken as it is and read when it is needed: data sets, loaders, several inputs, targets of any shape, or inputs alone, for which the
model's own answers are what is to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from prunus.core.batch import Batch
from prunus.core.calls import answer, call, described, map_tensors
from prunus.core.code.imports import is_reference, object_named, one_line
from prunus.core.errors import DataError, ModelError, RecipeError, raise_if_out_of_memory
from prunus.core.recipes.recipe import Data, Recipe
from prunus.data import (
    PARTS,
    DrawnSource,
    Prepared,
    Takes,
    handed_by,
    is_array,
    is_stream,
    is_text,
    known_labels,
    open_drawn,
    prepare,
    prepare_arrays,
    prepare_dataset,
    prepare_drawn,
    prepare_parts,
)
from prunus.graph.tracing.states import as_it_was, duplicate
from prunus.models import build, load_weights
from prunus.pipeline.auto.implied import implied_task
from prunus.pipeline.token_ids import are_ids, first_inputs
from prunus.tasks import Agreement, Task, as_task, own_task, tasks

__all__ = ["is_of_anything", "is_of_parts", "prepared_for", "prepared_of", "taken_as_it_is"]

_PLAIN = (None, "auto", "classification", "regression")
_OF_STREAM = 512
"""Examples of a stream that are kept for calibration."""


def prepared_of(
    data: Any,
    config: Data,
    device: torch.device,
    model: nn.Module,
    *,
    task: str | Task | None = None,
    trained: bool = False,
    measures: Mapping[str, Any] | None = None,
) -> Prepared:
    """Return the examples of whatever holds them.

    Args:
        task: what the targets are for; None: what they tell themselves.
        trained: the model has its weights; without targets its answers are kept.
        measures: functions of outputs and targets to measure by, by name, instead of the task's metrics.

    Raises:
        DataError: nothing that holds examples, or examples that the model or the task can't take.
    """
    if isinstance(data, Prepared):
        return data
    if isinstance(data, str):
        return prepare(config, device=device)
    parts = data if is_of_parts(data) else {"train": data}
    name = config.source if config.is_function else "data"
    if measures or taken_as_it_is(data, model, task):
        return _drawn(parts, config, device, model, task, trained, name, measures or {})
    if len(parts) > 1:
        return prepare_parts(parts, config, device=device, ids=are_ids(first_inputs(parts["train"]), model))
    (plain,) = parts.values()
    if isinstance(plain, TensorDataset):
        return prepare_dataset(plain, config, device=device, ids=are_ids(plain.tensors[0], model))
    return prepare_arrays(plain[0], plain[1], config, device=device, ids=are_ids(plain[0], model))


def taken_as_it_is(data: Any, model: nn.Module, task: str | Task | None = None) -> bool:
    """Tell whether data are read when they are needed, and inputs go to the model as they come."""
    if isinstance(data, (Prepared, str)):
        return False
    if task not in _PLAIN or Takes.of(model).required != 1:
        return True
    parts = data if is_of_parts(data) else {"train": data}
    return not all(_is_plain(part, alone=len(parts) == 1) for part in parts.values())


def prepared_for(recipe: Recipe, device: torch.device) -> tuple[Prepared, bool]:
    """Return the examples of a recipe, and whether a function of the user's gave a test set of its own.

    Such a function may return all that ``ModelOptimizer`` takes; a data set of (input, target) pairs is read as files are.
    """
    config = recipe.data
    measures = _own_measures(recipe)
    if not config.is_function or config.own_parts or Path(config.source).exists():
        if is_reference(config.task) or measures:
            key, named = (
                ("data.task", config.task)
                if is_reference(config.task)
                else ("evaluation.metrics", next(iter(measures)))
            )
            raise RecipeError(
                f"{key}: {named} needs data as they are: expected a function as data.source (module:function) that returns them, "
                f"got {config.source!r}"
            )
        return prepare(config, device=device), False
    task = config.task if config.task in _PLAIN else as_task(config.task)
    given = handed_by(config)
    pairs = task in _PLAIN and not measures and not is_of_anything(given)
    if pairs and not _starts_whole(given):
        return prepare(config, device=device, given=given), False
    train = given["train"] if is_of_parts(given) else given
    shape, n_outputs, numbers = _sizes(train, config.source)
    model = build(recipe.model, input_shape=shape, n_outputs=n_outputs, seed=recipe.seeds[0])
    if pairs and are_ids(first_inputs(given), model):
        return prepare_dataset(given, config, device=device, ids=True), False
    if pairs:
        return prepare(config, device=device, given=given), False
    if recipe.model.weights is not None:
        load_weights(model, recipe.model.weights)
    if (measures or taken_as_it_is(given, model, task)) and not numbers:
        config = config.model_copy(update={"standardize": False})
    trained = recipe.model.weights is not None or recipe.train.epochs == 0
    made = prepared_of(given, config, device, model, task=task, trained=trained, measures=measures)
    return made, isinstance(given, Mapping) and "test" in given


def _own_measures(recipe: Recipe) -> dict[str, Any]:
    """Return the functions that a recipe measures by, by the name that they have there.

    Raises:
        RecipeError: one isn't there, or others are measured beside them.
    """
    own = list(filter(is_reference, recipe.evaluation.metrics))
    if own and len(own) < len(recipe.evaluation.metrics):
        others = [name for name in recipe.evaluation.metrics if name not in own]
        raise RecipeError(
            f"evaluation.metrics: functions of your own are measured without the task's: got {own[0]!r} beside {others[0]!r}; take "
            "one kind away"
        )
    return {name: object_named(name, error=RecipeError) for name in own}


def _starts_whole(given: Any) -> bool:
    """Tell whether the first input of a data set of pairs is made of whole numbers, which may be ids."""
    first = first_inputs(given)
    return first is not None and first.dtype.kind in "iu" and first.dtype.itemsize > 1


def is_of_anything(given: Any) -> bool:
    """Tell whether data are none of (input, target) pairs, of which the model can be built."""
    if isinstance(given, (DataLoader, Mapping, tuple, Tensor, np.ndarray)):
        return not isinstance(given, DataLoader) or not is_stream(given)
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__") or isinstance(given, (str, bytes)):
        return False
    try:
        first = given[0]
    except Exception as error:  # what is wrong with it is said when it is read
        raise_if_out_of_memory(error)
        return False
    if isinstance(first, Mapping):
        return True
    if not isinstance(first, (tuple, list)) or len(first) != 2:
        return isinstance(first, (tuple, list)) and len(first) > 2
    inputs, target = first
    several = isinstance(inputs, Mapping) or (isinstance(inputs, (tuple, list)) and any(map(is_array, inputs)))
    return several or isinstance(target, Mapping) or (is_array(target) and int(np.prod(target.shape)) != 1)


def _sizes(train: Any, name: str) -> tuple[tuple[int, ...], int | None, bool]:
    """Return what a builder may ask for, as far as the data tell: the shape of an input, and how many classes there are.

    And whether inputs are one tensor of fractional numbers, which can be scaled.
    """
    try:
        source = open_drawn(train, Takes(), name)
    except DataError:  # several inputs: a builder has to know their shapes itself
        return (), None, False
    labels = known_labels(source)
    n = len(source.class_names) or (None if labels is None else int(labels.max()) + 1)
    inputs = source.inputs(torch.arange(1))
    return source.input_shape, n, isinstance(inputs, Tensor) and inputs.is_floating_point()


def is_of_parts(data: Any) -> bool:
    """Tell whether data are a mapping of the user's own parts."""
    return isinstance(data, Mapping) and "train" in data and data.keys() <= set(PARTS)


def _is_plain(data: Any, *, alone: bool) -> bool:
    """Tell whether data are one array of inputs with one label or number for each example."""
    if alone and isinstance(data, TensorDataset):
        data = data.tensors
    if (
        not isinstance(data, tuple)
        or len(data) != 2
        or not all(isinstance(one, (Tensor, np.ndarray, list)) for one in data)
    ):
        return False
    inputs, targets = data
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], (Tensor, Mapping)):
        return False
    shape = np.shape(targets) if isinstance(targets, list) else tuple(targets.shape)
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _drawn(
    parts: Mapping[str, Any],
    config: Data,
    device: torch.device,
    model: nn.Module,
    asked: str | Task | None,
    trained: bool,
    name: str,
    measures: Mapping[str, Any],
) -> Prepared:
    kind = None if asked is None or asked == "auto" else as_task(asked)
    takes = Takes.of(model)
    sources = {
        part: open_drawn(
            given,
            takes,
            name if len(parts) == 1 else f"{name}[{part!r}]",
            labelled=kind is None or not kind.of_dense,
            of_stream=_OF_STREAM if part == "calibration" else 0,
        )
        for part, given in parts.items()
    }
    task = _task_of(sources["train"], kind, device, model)
    if measures:
        task = own_task(task, metric=measures)
    teacher = None
    if task.of_dense:
        if not trained:
            raise DataError(
                f"{task.name}: without targets the model's own answers are kept, so it has to be trained: got inputs alone and a "
                "model that isn't; say trained=True, or give targets"
            )
        teacher = duplicate(model).to(device).eval()
    return prepare_drawn(sources, config, task, device=device, teacher=teacher)


def _task_of(source: DrawnSource, asked: Task | None, device: torch.device, model: nn.Module) -> Task:
    """Return the task that is asked for, else what the model's answer and the targets of a few examples tell."""
    rows = torch.arange(min(4, len(source)))
    inputs, targets = source.at(rows)
    outputs = _answer(model, inputs, device, source.name)
    task = asked
    if task is None:
        task = Agreement() if targets is None else implied_task(outputs, Batch(rows, inputs, targets))
    if task is None:
        raise DataError(
            f"{source.name}: targets {described(targets)} beside outputs {described(outputs)} don't tell what is asked of the "
            f"model: {'encode text as class numbers, or ' if is_text(targets) else ''}say task=..., one of {', '.join(tasks)}"
        )
    if targets is None and task.labelled and not task.of_dense:
        raise DataError(
            f"{source.name}: the task {task.name} needs targets: got inputs alone, {described(inputs)}; give them, or take the "
            "task agreement, which keeps the model's own answers"
        )
    if not is_dataclass(task) or task.class_names or "class_names" not in {field.name for field in fields(task)}:
        return task
    names = _names(source, model, task, outputs)
    return replace(task, class_names=names) if names else task


@torch.no_grad()
def _answer(model: nn.Module, inputs: Any, device: torch.device, name: str) -> Any:
    there = map_tensors(lambda value: value.to(device), inputs)
    twin = duplicate(model).to(device).eval()
    try:
        with as_it_was(twin):
            return call(twin, there)
    except Exception as failure:
        raise_if_out_of_memory(failure)
        raise ModelError(
            f"{name}: the model fails on inputs {described(inputs)}: {one_line(failure)}; give inputs as it takes them (a tuple is "
            "positional arguments, a mapping is keywords)"
        ) from failure


def _names(source: DrawnSource, model: nn.Module, task: Task, outputs: Any) -> tuple[str, ...]:
    """Return the names of classes that the data set or the model has; else numbers, where each example has one class."""
    if source.class_names or not task.exclusive:
        return source.class_names or _own_names(model)
    scores = answer(outputs)
    n = max(scores.shape[1], 2) if scores.dim() == 2 else 2
    names = _own_names(model)
    if len(names) == n:
        return names
    source.label_kind = "i"
    return tuple(map(str, range(n)))


def _own_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names that the model itself has for its classes, as models of transformers do; not those that are made up."""
    named = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(named, Mapping) or all(str(name).startswith("LABEL_") for name in named.values()):
        return ()
    return tuple(str(named[key]) for key in sorted(named))
