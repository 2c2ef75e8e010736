"""What do models say of labels that aren't one class for each example: several labels, tokens, values?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.calls import answer, call
from prunus.core.errors import RecipeError, RunError
from prunus.core.recipes.recipe import Clean
from prunus.data import Batch, Examples
from prunus.pipeline.stages.unseen_answers import Read
from prunus.score import LabelVerdicts, Parts, judge_parts, judge_targets
from prunus.tasks import MultiLabel, Regression, Task, TokenClassification
from prunus.tasks.text.tokens import IGNORED

__all__ = ["Folds", "check_labels", "judge_others", "reads"]

_BATCH = 256
Folds = list[tuple[Tensor, dict[str, Tensor]]]


def check_labels(task: Task, clean: Clean, examples: Examples) -> None:
    """Refuse what a task's labels can't have done to them.

    Raises:
        RecipeError: one line says what fits.
    """
    if task.exclusive:
        return
    if not isinstance(task, (MultiLabel, TokenClassification, Regression)):
        raise RecipeError(
            f"examples.clean finds wrong classes, labels, tokens and values: got data.task {task.name}; use examples.remove with "
            "criterion loss, which drops what the model finds hardest"
        )
    if clean.wrong in ("relabel", "both"):
        what = "values" if isinstance(task, Regression) else "several labels for each example"
        raise RecipeError(
            f"examples.clean.wrong: {clean.wrong} replaces one class by another, and the target is {what} (data.task: "
            f"{task.name}): use drop or flag"
        )
    if clean.evidence == "recorded":
        raise RecipeError(
            f"examples.clean.evidence: recorded is there for one class per example: got data.task {task.name}; use folds"
        )
    known = examples.known_targets
    if isinstance(task, Regression) and known is not None and known.dim() != 1:
        raise RecipeError(
            f"examples.clean looks at one value per example: got {tuple(known.shape)}; use examples.remove with criterion loss"
        )


def reads(task: Task) -> Read:
    """Return what is kept of a model's answers to examples of a task."""
    return (
        _of_labels
        if isinstance(task, MultiLabel)
        else _OfTokens(task)
        if isinstance(task, TokenClassification)
        else _of_values
    )


def judge_others(examples: Examples, folds: Folds, clean: Clean, *, confidence: float, seed: int) -> LabelVerdicts:
    """Return what becomes of examples that have more than one class each, or a value."""
    wrong = "drop" if clean.wrong == "drop" else "flag"
    told: dict[str, Any] = {"drop_probability": clean.drop_probability, "confidence": confidence, "seed": seed}
    n = len(examples)
    if isinstance(examples.task, Regression):
        whole = {name: torch.zeros(n, dtype=torch.float64) for name in ("said", "given")}
        for rows, found in folds:
            for name in whole:
                whole[name][rows] = found[name].double()
        said, given = whole["said"].numpy(), whole["given"].numpy()
        read = [examples.in_units(whole[name]).tolist() for name in ("given", "said")]
        words = [(f"{one:.6g}", f"{other:.6g}") for one, other in zip(*read, strict=True)]
        return judge_targets(said, given, wrong=wrong, words=words, **told)  # type: ignore[arg-type]
    parts, present = (_label_parts if isinstance(examples.task, MultiLabel) else _token_parts)(examples, folds)
    return judge_parts(parts, n, present, wrong=wrong, class_floor=clean.class_floor, **told)  # type: ignore[arg-type]


def _label_parts(examples: Examples, folds: Folds) -> tuple[list[Parts], Any]:
    n, width = len(examples), folds[0][1]["probability"].shape[1]
    probability, given = np.zeros((n, width)), np.zeros((n, width), np.int64)
    for rows, found in folds:
        probability[rows.numpy()], given[rows.numpy()] = found["probability"].numpy(), found["given"].numpy()
    names = examples.task.class_names or tuple(map(str, range(width)))
    every, places = np.arange(n), np.zeros(n, np.int64)
    parts = [
        Parts(f"label {name!r}", ("no", "yes"), every, places, given[:, k], np.stack([1 - p, p], axis=1))
        for k, (name, p) in enumerate(zip(names, probability.T, strict=True))
    ]
    return parts, given > 0


def _token_parts(examples: Examples, folds: Folds) -> tuple[list[Parts], Any]:
    columns: Mapping[str, list[Any]] = {"example": [], "place": [], "given": [], "probability": []}
    for rows, found in folds:
        for name, pieces in columns.items():
            pieces.append((rows[found[name]] if name == "example" else found[name]).numpy())
    example, place, given, probability = (np.concatenate(pieces) for pieces in columns.values())
    names = examples.task.class_names or tuple(map(str, range(probability.shape[1])))
    present = np.zeros((len(examples), len(names)), np.bool_)
    present[example, given] = True
    return [Parts("token {place}", names, example, place, given, probability.astype(np.float64))], present


def _of_labels(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    return _collected(model, examples, lambda outputs, batch: {
        "probability": answer(outputs).sigmoid(), "given": (batch.targets > 0).long()
    })  # fmt: skip


def _of_values(model: nn.Module, examples: Examples) -> dict[str, Tensor]:
    return _collected(model, examples, lambda outputs, batch: {
        "said": answer(outputs).reshape(len(batch.index)), "given": batch.targets.reshape(len(batch.index)).float()
    })  # fmt: skip


@dataclass(frozen=True)
class _OfTokens:
    """What is kept of answers to tokens; workers get it, too."""

    task: TokenClassification

    def __call__(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        return _collected(model, examples, self._kept)

    def _kept(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        scores, labels = self.task.read(outputs, batch)
        asked = labels.to(scores.device) != IGNORED
        example = batch.index.to(scores.device)[:, None].expand(labels.shape)
        place = torch.arange(labels.shape[1], device=scores.device).expand(labels.shape)
        found = {"example": example[asked], "place": place[asked], "given": labels.to(scores.device)[asked]}
        return {**found, "probability": scores[asked].float().softmax(dim=1)}


def _collected(
    model: nn.Module, examples: Examples, kept: Callable[[Any, Batch], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return what is kept of the answers to all examples, on the CPU."""
    found: dict[str, list[Tensor]] = {}
    for batch, outputs in _answered(model, examples):
        for name, values in kept(outputs, batch).items():
            if not bool(values.isfinite().all()):
                raise RunError(
                    f"the model's answers from example {examples.ids[int(batch.index[0])]!r} on hold NaN or infinity: train it "
                    "with a lower learning rate"
                )
            found.setdefault(name, []).append(values.cpu())
    return {name: torch.cat(pieces) for name, pieces in found.items()}


def _answered(model: nn.Module, examples: Examples) -> Iterator[tuple[Batch, Any]]:
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            for batch in examples.batches(_BATCH):
                yield batch, call(model, batch.inputs)
    finally:
        for module, training in modes.items():
            module.training = training
