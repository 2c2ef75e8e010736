"""How does ``prunus.prune`` train what it has cut: on which examples, with which loss, and which epoch is taken?

The data are split as those of ``ModelOptimizer`` are: one part trains, one chooses the epoch (none, where all of them made it
worse), one tells which units matter, and what is said of the result is measured on a part that had no say.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from prunus.core.calls import call, select_rows
from prunus.core.errors import DataError, RecipeError
from prunus.core.events import Event, Listener
from prunus.core.recipes.recipe import Data
from prunus.core.recipes.recipe_file import explained
from prunus.core.recipes.section import Count
from prunus.core.recipes.train_sections import Recovery
from prunus.core.runtime import device_of, generator
from prunus.data import PARTS, Batch, Batched, Batches, Examples, Prepared, Takes, is_stream, open_drawn, prepare_drawn
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.auto.implied import Objective
from prunus.recover import TrainingStep, distillation_loss, train
from prunus.recover.training.training_batches import n_training_batches
from prunus.tasks import Agreement, Classification, Task, own_losses
from prunus.tasks.own import OtherLoss

__all__ = ["Asked", "Recovered", "Trainer", "asked_recovery", "divided", "first_part", "kept"]

_STAGE = "prune / recover"


class Asked(Recovery):
    """What ``recovery=`` may say: the keys of a recipe's ``recovery``, and two of its own."""

    method: Literal["fine_tune", "distil"] = "fine_tune"
    epochs: int = Field(3, ge=1)
    steps: Count | None = Field(
        None, description="instead of epochs; from a whole epoch on they are rounded up to epochs"
    )
    control: Literal["none", "same_budget"] = Field(
        "none", description="train a copy of the dense model for as long, too"
    )


@dataclass(frozen=True)
class Recovered:
    """What a training of the cut model gave.

    ``validation`` is the loss on the examples that chose the epoch, before the training and after each epoch; ``taken`` is the
    epoch that was taken (0: none helped). ``before``, ``after``, ``dense`` and ``control`` (the dense model trained for as long;
    None: it wasn't) are losses on the ``n_test`` examples that had no say.
    """

    method: str
    loss: str
    epochs: int
    steps: int
    taken: int
    n_train: int
    n_validation: int
    n_test: int
    validation: tuple[float, ...]
    before: float
    after: float
    dense: float
    control: float | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        took = f"epoch {self.taken} is taken" if self.taken else "no epoch helped, so that none is taken"
        dense = (
            "the dense model has had no more training" if self.control is None else f"{self.control:.4g} after as long"
        )
        return (
            f"trained on for {epochs} ({self.steps} steps, {self.n_train} examples) with {self.loss}; {took}: loss "
            f"{self.before:.4g} -> {self.after:.4g}, dense {self.dense:.4g} ({dense}), on {self.n_test} examples that chose nothing"
        )

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self) | {"validation": list(self.validation)}


def asked_recovery(given: int | Mapping[str, Any] | None, data: Any) -> Asked | None:
    """Return how it is trained.

    Raises:
        RecipeError: an unknown key, or a value out of its range.
        DataError: there is nothing to train on, or only a stream.
    """
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, Mapping)):
        raise RecipeError(f"recovery: expected a number of epochs, or keys like {{'epochs': 3}}: got {given!r}")
    keys = {"epochs": given} if isinstance(given, int) else dict(given)
    if "adjust" in keys:
        raise RecipeError(f"recovery.adjust: prune has an argument for it: give adjust={keys['adjust']!r}")
    if keys.get("epochs") is not None and keys.get("steps") is not None:
        raise RecipeError(f"recovery: give epochs or steps, not both: got {keys['epochs']} and {keys['steps']}")
    try:
        asked = Asked.model_validate(keys)
    except ValidationError as error:
        raise RecipeError(explained(error, Asked, "recovery")) from None
    if data is None:
        raise DataError("recovery trains on examples: got no data; give data=..., with targets or without")
    if any(map(is_stream, _parts(data).values())):
        raise DataError(
            "recovery goes through the data again and again: got a stream; give a map-style Dataset, a DataLoader of one, or arrays"
        )
    return asked


def _parts(data: Any) -> dict[str, Any]:
    """Return the user's own parts, or all of the data as the one that is split."""
    if isinstance(data, Mapping) and "train" in data and data.keys() <= set(PARTS):
        return dict(data)
    return {"train": data}


def first_part(data: Any) -> Any:
    """Return the data that are trained on, or split."""
    return _parts(data)["train"]


def divided(data: Any, model: nn.Module, objective: Objective, *, seed: int) -> Prepared:
    """Return the parts of the data: to train on, to choose by, to judge units by, and to tell the result by."""
    task = _task(objective)
    takes = Takes.of(model)
    sources = {
        part: open_drawn(given, takes, "data" if part == "train" else f"data[{part!r}]", labelled=objective.labelled)
        for part, given in _parts(data).items()
    }
    config = Data.model_validate({"source": "data", "standardize": False, "split": {"seed": seed}})
    teacher = duplicate(model).eval() if task.of_dense else None
    return prepare_drawn(sources, config, task, device=device_of(model), teacher=teacher)


def _task(objective: Objective) -> Task:
    """Return what tells how examples are read: without targets they get the dense model's answers."""
    if not objective.labelled and (objective.task is None or objective.task.labelled):
        return Agreement()
    task = objective.task
    if isinstance(task, Classification) and not task.class_names:
        return replace(task, class_names=tuple(map(str, range(task.n_classes or 2))))
    return OtherLoss(lambda outputs, targets: objective.loss(outputs, targets)) if task is None else task


def kept(examples: Examples, n: int, *, labelled: bool) -> Batches:
    """Return at most ``n`` examples, as a choice has them: without labels there are no targets, not the dense model's answers."""
    n, left, parts = min(n, len(examples)), min(n, len(examples)), []
    for batch in examples.batches(min(n, 64)):
        rows = torch.arange(min(len(batch.index), left))
        parts.append((select_rows(batch.inputs, rows), select_rows(batch.targets, rows) if labelled else None))
        left -= len(rows)
        if left == 0:
            break
    return Batches(parts)


@dataclass(frozen=True)
class Trainer:
    """Trains what was cut from ``dense``, as ``asked``."""

    asked: Asked
    parts: Prepared
    objective: Objective
    dense: nn.Module
    seed: int
    tell: Listener

    def __post_init__(self) -> None:
        if self.asked.method == "distil" and self._told_by_model:
            raise RecipeError(
                "recovery.method: distil compares answers, and this model tells its loss itself in training: got distil; choose "
                "fine_tune"
            )

    def __call__(self, model: nn.Module) -> Recovered:
        """Train ``model`` in place, leave it at its best epoch, and say how it went."""
        examples, config, steps = self._budget()
        before = self._loss(model, self.parts.test)
        taken, curve = self._best(model, examples, config, _STAGE)
        control = None
        if self.asked.control == "same_budget":
            twin = duplicate(self.dense)
            self._best(twin, examples, config, f"{_STAGE} / dense control")
            control = self._loss(twin, self.parts.test)
        return Recovered(
            config.method,
            self.objective.said if self.objective.labelled else "the distance to the dense model's answers",
            config.epochs,
            steps,
            taken,
            len(examples),
            len(self.parts.validation),
            len(self.parts.test),
            tuple(curve),
            before,
            self._loss(model, self.parts.test),
            self._loss(self.dense, self.parts.test),
            control,
        )

    def _budget(self) -> tuple[Examples, Asked, int]:
        """Return the examples of an epoch, how many epochs, and the steps that makes."""
        examples, asked = self.parts.train, self.asked
        size = asked.batch_size * asked.accumulate
        whole = n_training_batches(len(examples), size)
        if asked.steps is None:
            return examples, asked, asked.epochs * whole
        epochs = math.ceil(asked.steps / whole)
        if asked.steps < whole:
            drawn = torch.randperm(len(examples), generator=generator(self.seed, _STAGE, "drawn"))
            keep = np.zeros(len(examples), np.bool_)
            keep[drawn[: asked.steps * size].numpy()] = True
            examples = examples.select(keep)
        return examples, asked.model_copy(update={"epochs": epochs}), epochs * min(whole, asked.steps)

    def _best(self, model: nn.Module, examples: Examples, config: Asked, stage: str) -> tuple[int, list[float]]:
        """Train in place, and go back to the epoch that the validation examples like best."""
        curve = [self._loss(model, self.parts.validation)]
        best, state = 0, copy.deepcopy(model.state_dict())

        def look(epoch: int) -> None:
            nonlocal best, state
            value = self._loss(model, self.parts.validation)
            if value < curve[best]:
                best, state = epoch, copy.deepcopy(model.state_dict())
            curve.append(value)

        def after_epoch(done: int) -> None:
            if config.average.kind == "none" or done < config.epochs:  # an average is taken once the last epoch is done
                look(done)

        loss = self.objective.loss if self.objective.labelled else _task(self.objective).loss
        told = self._told_by_model
        if config.method == "distil":
            loss = distillation_loss(self.dense, config.distil, loss, examples=examples)
        self.tell(Event("start", stage, f"{config.epochs} epochs on {len(examples)} examples"))
        train(
            model,
            examples,
            config,
            seed=self.seed,
            stage=stage,
            loss=None if told else loss,
            training_step=own_losses if told else None,
            after_epoch=after_epoch,
            listener=self.tell,
        )
        if len(curve) <= config.epochs:
            look(config.epochs)
        model.load_state_dict(state)
        return best, curve

    @property
    def _told_by_model(self) -> bool:
        task = self.objective.task
        return task is not None and task.told_by_model and self.objective.said == f"the loss of {task.name}"

    @torch.no_grad()
    def _loss(self, model: nn.Module, examples: Batched) -> float:
        """Return the mean loss over a part; a NaN counts as the worst."""
        step: TrainingStep = own_losses if self._told_by_model else self._step
        model.eval()
        total = 0.0
        for batch in examples.batches(self.asked.batch_size):
            total += float(step(model, batch)) * len(batch.index)
        mean = total / len(examples)
        return mean if math.isfinite(mean) else math.inf

    def _step(self, model: nn.Module, batch: Batch) -> Tensor:
        loss: Callable[[Any, Batch], Tensor] = (
            self.objective.loss if self.objective.labelled else _task(self.objective).loss
        )
        return loss(call(model, batch.inputs), batch)
