"""Does a model that came trained know the inputs and the labels as prunus gives them?

Scaling belongs to the model: one that was trained on pixels from 0 to 1 is at a loss with pixels from 0 to 255, and nothing but its
answers tell. What a broken dense model is compared with always looks well, so that the run stops instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunus.core.calls import answer, call
from prunus.core.errors import ModelError
from prunus.data import Batch, Scaler
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import base_loss
from prunus.tasks import Classification, Observed, Regression, Task, value_of

__all__ = ["check_given", "worse_than_guessing"]

N_EXAMPLES = 512
MOST_VALUES = 1 << 25
FITTED = 2048
"""Examples that another scaling is fitted on where each has to be read for it."""
CLEARLY = 0.7
"""Of the loss as the recipe has it: another scaling that does as well as this was the one that the weights were trained with."""
MARGIN = 0.05
"""Of what guessing leaves to be known: a score that is surely below it is no score."""


class _Way(NamedTuple):
    """A scaling of the inputs, and what to say in a recipe to have it."""

    scaler: Scaler
    key: str


@dataclass(frozen=True)
class _Score:
    """How well answers fit labels: a mean loss, and the share that is right, or of the variance that is explained.

    Of classes, the share is the mean over them: a rare one that is found counts as much as a common one that is missed.
    """

    loss: float
    value: float
    error: float
    n: int

    def surely_below(self, bound: float) -> bool:
        """Tell whether 95 % of the chance lies below ``bound`` (two standard errors, and one example)."""
        return self.value + 2 * self.error + 1 / self.n < bound


def check_given(job: Job, model: nn.Module) -> None:
    """Stop where given weights answer as badly as guessing, or clearly better with inputs that are scaled in another way.

    Asked on validation examples; models with answers or a loss of their own kind aren't judged.

    Raises:
        ModelError: it says what was measured, and what to look at.
    """
    data = job.data
    source = job.recipe.model
    if job.named_builder and source.weights is None and not source.is_function:
        return  # a built-in model as it is drawn: nothing was given, and cuts at the start of a training are asked for so
    if job.training_step is not None or not job.recipe.data.check_weights or len(data.validation) == 0:
        return
    n = _n_judged(data.source.input_shape)
    batch = next(iter(data.validation.batches(n)))
    training = model.training
    model.eval()
    try:
        now = _score(job, model, batch)
        if now is None:
            return
        raw = data.validation.source.inputs(data.validation.rows[:n])
        others = list(_other_ways(job, raw)) if isinstance(raw, Tensor) and raw.is_floating_point() else []
        scores = [(_score(job, model, batch._replace(inputs=way.scaler(raw).to(job.device))), way) for way in others]
    finally:
        model.train(training)
    found = [(score, way) for score, way in scores if score is not None and score.loss == score.loss]
    best, way = min(found, key=lambda one: one[0].loss, default=(now, None))
    guess = _guessing(job, batch.targets)
    known = guess + MARGIN * (1 - guess)
    scaled = way is not None and not now.loss <= best.loss / CLEARLY and best.value > now.value
    if way is not None and scaled and not best.surely_below(known):
        raise ModelError(
            f"the given weights do clearly better on inputs that are scaled in another way: {_said(job, best)} with {way.key}, "
            f"{_said(job, now)} as data says (on {now.n} validation examples); set {way.key}, which they were trained with, or "
            "data.check_weights: false"
        )
    if now.surely_below(known):
        raise ModelError(
            f"the given weights do no better than guessing: {_said(job, now)} on {now.n} validation examples, where guessing has "
            f"{_said(job, replace(now, value=max(guess, 0.0)))}; look at the scaling of the inputs (data.scale, mean, std), the "
            "order of the classes, the label column and the weights (are they trained at all?), or set data.check_weights: false"
        )


def worse_than_guessing(task: Task, seen: Observed, targets: Tensor | None) -> str:
    """Return what to say of a dense model that was trained here and knows nothing of its task; "" where it does.

    It doesn't know classes where it is surely right less often than who always says the most frequent one, and finds each class's
    examples no more often than chance; and no values where their mean explains as much.
    """
    doubt = 'what it is compared with here says little, also a "better": train it longer (train.epochs), or look at the labels'
    if isinstance(task, Regression):
        explained = value_of(task, "r2", seen)
        return (
            f"the dense model does no better than the mean of the targets (R² {explained:.3g}): {doubt}"
            if explained < -MARGIN
            else ""
        )
    if not isinstance(task, Classification) or targets is None or len(targets) == 0:
        return ""
    count = torch.bincount(targets.cpu())
    n, n_classes = len(targets), int((count > 0).sum())
    right, recall = value_of(task, "accuracy", seen), value_of(task, "recall_macro", seen)
    often = float(count.max()) / n
    score = _Score(math.nan, right, math.sqrt(right * (1 - right) / n), n)
    if not score.surely_below(often) or recall > 1 / n_classes + MARGIN * (1 - 1 / n_classes):
        return ""
    return (
        f"the dense model is right less often than who always says the most frequent class ({100 * right:.1f} % against "
        f"{100 * often:.1f} % of {n} test examples): {doubt}"
    )


@torch.no_grad()
def _score(job: Job, model: nn.Module, batch: Batch) -> _Score | None:
    """Return how well the model answers; None where its answers aren't what the task has."""
    answered, n = call(model, batch.inputs), len(batch.index)
    outputs = answer(answered)
    task = job.data.train.task
    shape = (n, job.data.train.n_outputs)
    judged = task.exclusive or isinstance(task, Regression)
    if not judged or (tuple(outputs.shape) != shape and outputs.numel() != n * shape[1]):
        return None
    loss = float(base_loss(job)(answered, batch))
    if task.exclusive:
        right = (outputs.reshape(shape).argmax(dim=1) == batch.targets).double().cpu()
        count = torch.bincount(batch.targets.cpu(), minlength=shape[1]).double()
        there = count > 0
        hits, count = torch.bincount(batch.targets.cpu(), right, minlength=shape[1])[there], count[there]
        recall, likely = hits / count, (hits + 1) / (count + 2)  # none of six is no certainty
        spread = (likely * (1 - likely) / count).sum().sqrt() / len(recall)
        return _Score(loss, float(recall.mean()), float(spread), n)
    wanted = batch.targets.double()
    rest = (outputs.reshape(n).double() - wanted).square().sum()
    return _Score(loss, float(1 - rest / (wanted - wanted.mean()).square().sum().clamp_min(1e-12)), 0.0, n)


def _n_judged(shape: tuple[int, ...]) -> int:
    """Return how many examples are looked at: fewer of large ones, which are all in memory at once."""
    return min(N_EXAMPLES, max(64, MOST_VALUES // max(math.prod(shape), 1)))


def _guessing(job: Job, targets: Tensor) -> float:
    """Return the share of each class that is right without looking at any input; a regression's mean explains nothing."""
    if not job.data.train.task.exclusive:
        return -MARGIN
    return 1 / max(int((torch.bincount(targets.cpu()) > 0).sum()), 1)


def _other_ways(job: Job, raw: Tensor) -> Iterator[_Way]:
    """Yield the usual scalings but the one that the recipe has."""
    source, shape = job.data.source, tuple(job.data.source.input_shape)
    ways = [_Way(Scaler.identity(), "data.standardize: false")]
    pixels = len(shape) == 3 and bool((raw >= 0).all()) and float(raw.max()) > 2
    if pixels:
        ways.append(_Way(Scaler.given(shape, scale=255, mean=None, std=None), "data.scale: 255"))
        if shape[0] == 3:
            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            said = f"data.scale: 255, mean: {list(mean)}, std: {list(std)}"
            ways.append(_Way(Scaler.given(shape, scale=255, mean=mean, std=std), said))
        ways.append(
            _Way(Scaler.given(shape, scale=255, mean=(0.5,), std=(0.5,)), "data.scale: 255, mean: 0.5, std: 0.5")
        )
    rows = job.data.train.rows
    fitted_on = rows if job.data.train.fixed else rows[:FITTED]
    ways.append(_Way(Scaler.fit(source, fitted_on), "data.standardize: true"))
    mine = job.data.scaler
    for way in ways:
        if not _alike(way.scaler, mine):
            yield way


def _alike(one: Scaler, other: Scaler) -> bool:
    pairs = zip((one.mean, one.deviation), (other.mean, other.deviation), strict=True)
    return all(bool(torch.isclose(a, b).all()) for a, b in pairs)


def _said(job: Job, score: _Score) -> str:
    if job.data.train.task.exclusive:
        return f"{100 * score.value:.1f} % right"
    return f"R² {score.value:.3g}"
