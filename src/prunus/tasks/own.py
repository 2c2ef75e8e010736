"""How does what a user brings become a task: a class of one's own, or just a loss and a metric?

A metric is any function of outputs and targets that returns one number, or an object of torchmetrics. Where an example's outputs
and targets are few numbers, they're kept, and the metric is computed anew for each resample. Otherwise it is computed for each
example by itself, and what is measured is the mean: the same for a mean over examples, another number for anything else. Reports
then call it so, once :meth:`OwnMetrics.check` has seen an answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.batch import Batch
from prunus.core.calls import answer, described, select_rows
from prunus.core.code.imports import object_named, one_line
from prunus.core.errors import ModelError, PrunusError, RecipeError, raise_if_out_of_memory
from prunus.core.predictions import Prediction
from prunus.core.types import Floats, Ints
from prunus.tasks.metric import Metric, metrics, metrics_of
from prunus.tasks.one_tensor import plain_answer
from prunus.tasks.regression import Regression
from prunus.tasks.task import Observed, Task, made_of, make_task, pooled, tasks

__all__ = ["OtherLoss", "OwnMetrics", "as_task", "own_task"]

Loss = Callable[[Any, Any], Tensor]
Measure = Callable[[Any, Any], Any]

_FEW = 1024
"""Numbers of an example that are kept for computing a metric anew."""


def as_task(given: str | Task | type[Task], **facts: Any) -> Task:
    """Return the task that is meant: a name, a :class:`Task` or a class of them, or the ``module:object`` where one lies.

    ``module:object`` is imported: whoever calls this has decided that it may be.

    Raises:
        RecipeError: there is none; it says what fits.
    """
    found: Any = given
    if isinstance(given, str):
        if ":" not in given:
            return make_task(given, **facts)
        found = object_named(given, error=RecipeError)
    if isinstance(found, type) and issubclass(found, Task):
        try:
            return _with_metrics(made_of(found, **facts))
        except TypeError as error:
            raise RecipeError(f"task {found.__name__} can't be made: {one_line(error)}; give an instance") from error
    if isinstance(found, Task):
        return _with_metrics(found)
    raise RecipeError(
        f"task must be one of {', '.join(tasks)}, a prunus.tasks.Task, a class of them, or module:object of one: got {given!r}"
        + (f", a {type(found).__name__}" if found is not given else "")
    )


def _with_metrics(task: Task) -> Task:
    if not metrics_of(task.name):
        raise RecipeError(
            f"task {type(task).__name__} has no metric: give it a name = ..., and register functions of its totals with "
            "prunus.tasks.metric(..., task=name)"
        )
    return task


def own_task(
    base: Task | None = None,
    *,
    loss: Loss | None = None,
    metric: Measure | Mapping[str, Measure] | None = None,
    higher_is_better: bool | None = None,
) -> Task:
    """Return ``base`` with another loss, or a task that measures ``metric``.

    Args:
        base: gives the loss where none is said, and how answers are read.
        loss: ``(outputs, targets) -> scalar``, a mean over the examples. A ``nn.Module`` gets the logits where the answer is a
            structure that has some; a function gets the answer as it is.
        metric: ``(outputs, targets) -> number``, an object of torchmetrics, or several by name. Modules get the logits, too.
        higher_is_better: of a metric that doesn't say so itself, as those of torchmetrics do.

    Raises:
        RecipeError: neither is given, or it isn't known whether a higher metric is better.
    """
    for what, given in (("loss", loss), ("metric", metric)):
        if given is not None and not callable(given) and not (what == "metric" and isinstance(given, Mapping)):
            raise RecipeError(
                f"{what} must be a function of outputs and targets, or a module: got {type(given).__name__}"
            )
    if loss is not None:
        base = OtherLoss(loss, base)
    if metric is None:
        if base is None or (isinstance(base, OtherLoss) and base.base is None):
            raise RecipeError("a task needs something to measure: give metric=, a task, or both")
        return base
    named = metric if isinstance(metric, Mapping) else {_name_of(metric): metric}
    return OwnMetrics(dict(named), base, higher_is_better)


@dataclass(frozen=True, eq=False)
class OtherLoss(Task):
    """A task whose loss is the user's."""

    function: Loss
    base: Task | None = None

    def __post_init__(self) -> None:
        if self.base is not None:
            for name in ("name", "reads", "labelled", "of_dense", "exclusive", "class_names"):
                object.__setattr__(self, name, getattr(self.base, name))

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that the loss is one number, and what the task itself sees to."""
        if self.base is not None:
            self.base.check(outputs, batch)
        self.loss(outputs, batch)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the user's loss."""
        found = _run(self.function, "loss", outputs, batch.targets)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise ModelError(
                f"the loss {_name_of(self.function)} must give one number, the mean over the batch: got {described(found)}"
            )
        return found.reshape(())

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each example by itself."""
        if isinstance(self.function, nn.Module) and hasattr(self.function, "reduction"):
            single = copy.copy(self.function)
            single.reduction = "none"  # type: ignore[assignment]
            found = _run(single, "loss", outputs, batch.targets)
            if isinstance(found, Tensor) and found.ndim and len(found) == len(batch.index):
                return found.flatten(1).mean(dim=1) if found.ndim > 1 else found
        return torch.stack([self.loss(*one) for one in _one_by_one(outputs, batch)])

    @property
    def reader(self) -> Task | None:
        """That of the task itself; without one answers are numbers."""
        return Regression() if self.base is None else self.base.reader

    @property
    def counted_names(self) -> tuple[str, ...]:
        """Those of the task itself."""
        return self._base.counted_names

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return what the task itself observes."""
        return self._base.observe(outputs, batch)

    def settled(self, observed: Observed) -> Observed:
        """Return what the task itself makes of it."""
        return self._base.settled(observed)

    def totals(self, observed: Observed, weights: Floats) -> Any:
        """Return the task's own totals."""
        return self._base.totals(observed, weights)

    def pooled(self, observed: Observed, groups: Ints, n_groups: int) -> Observed | None:
        """Return what the task itself makes of groups."""
        return pooled(self._base, observed, groups, n_groups)

    def imagine(self, observed: Observed) -> Any:
        """Return the task's own imagined example."""
        return self._base.imagine(observed)

    def decode(self, outputs: Any) -> Prediction:
        """Return what the task itself reads; without one the numbers of the answer."""
        return Prediction(plain_answer(outputs)) if self.base is None else self.base.decode(outputs)

    @property
    def _base(self) -> Task:
        assert self.base is not None, "a loss alone measures nothing"
        return self.base


@dataclass(frozen=True, eq=False)
class OwnMetrics(Task):
    """A task that measures functions of outputs and targets."""

    reads: ClassVar[tuple[str, ...]] = ("outputs", "targets", "values")
    functions: dict[str, Measure]
    base: Task | None = None
    higher_is_better: bool | None = None
    class_names: tuple[str, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if not self.functions:
            raise RecipeError("a task needs something to measure: got no metric")
        object.__setattr__(self, "name", f"own ({', '.join(self.functions)})")
        object.__setattr__(self, "class_names", self.base.class_names if self.base is not None else ())
        for place, (name, function) in enumerate(self.functions.items()):
            _register(name, self.name, self._direction(name, function), place)

    def _direction(self, name: str, function: Measure) -> bool:
        known = self.higher_is_better
        said = getattr(function, "higher_is_better", None)
        known = said if known is None else known
        if known is None:
            raise RecipeError(
                f"metric {name}: is higher better? Say higher_is_better=True or False, or set it on the function"
            )
        return bool(known)

    @property
    def reader(self) -> Task | None:
        """That of the task that gives the loss; without one answers are numbers."""
        return Regression() if self.base is None else self.base.reader

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that each metric is one number on a batch, and what a task that gives the loss sees to."""
        if self.base is not None:
            self.base.check(outputs, batch)
        for name in self.functions:
            said = name if self.keeps(outputs, batch.targets) else f"{name} (mean over examples)"
            metrics.replace(name, replace(metrics[name], label=said))
        self.totals(self.observe(outputs, batch), np.ones((1, len(batch.index))))

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each example."""
        return self._losing.losses(outputs, batch)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss."""
        return self._losing.loss(outputs, batch)

    def weight_of(self, batch: Batch) -> Tensor | int:
        """Return what that loss is a mean over."""
        return self._losing.weight_of(batch)

    @property
    def _losing(self) -> Task:
        if self.base is None:
            raise RecipeError(
                f"{self.name} has no loss: give loss=, a function of outputs and targets, or a task that has one"
            )
        return self.base

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return outputs and targets where they are few numbers, else each metric's value of every example."""
        n, targets = len(batch.index), batch.targets
        nothing = np.zeros((n, 0))
        if self.keeps(outputs, targets):
            kept = (outputs.detach().cpu(), targets.detach().cpu())
            return {"outputs": kept[0].float().numpy(), "targets": kept[1].numpy(), "values": nothing}
        rows = [
            [_number(name, function, *pair) for name, function in self.functions.items()]
            for pair in ((one, single.targets) for one, single in _one_by_one(outputs, batch))
        ]
        return {"outputs": nothing, "targets": nothing, "values": np.asarray(rows, np.float64).reshape(n, -1)}

    def keeps(self, outputs: Any, targets: Any) -> bool:
        """Tell whether metrics are computed anew for each resample; otherwise means over the examples are measured."""
        both = (outputs, targets)
        return all(isinstance(one, Tensor) and 1 <= one.ndim <= 2 and one[0].numel() <= _FEW for one in both)

    def totals(self, observed: Observed, weights: Floats) -> dict[str, Floats]:
        """Return every metric under each row of weights."""
        values = observed["values"]
        if values.shape[1]:
            means = weights @ values / weights.sum(axis=1, keepdims=True)
            return {name: means[:, place] for place, name in enumerate(self.functions)}
        outputs, targets = (torch.from_numpy(observed[name]) for name in ("outputs", "targets"))
        places = torch.arange(len(outputs))
        found: dict[str, list[float]] = {name: [] for name in self.functions}
        for row in weights:
            drawn = places.repeat_interleave(torch.from_numpy(np.rint(row).astype(np.int64)))
            for name, function in self.functions.items():
                found[name].append(_number(name, function, outputs[drawn], targets[drawn]))
        return {name: np.asarray(column) for name, column in found.items()}

    def decode(self, outputs: Any) -> Prediction:
        """Return what the task that gives the loss reads; without one the numbers of the answer."""
        return Prediction(plain_answer(outputs)) if self.base is None else self.base.decode(outputs)


def _register(name: str, task: str, higher_is_better: bool, place: int) -> None:
    """Make a metric known under its name, for this task beside others that have one of that name."""
    known = metrics[name] if name in metrics else None  # noqa: SIM401 - a registry has no get
    if known is not None and (not isinstance(known.function, _Named) or known.higher_is_better != higher_is_better):
        raise RecipeError(
            f"metric {name!r} is there already and isn't this one: give yours another name, metric={{NAME: ...}}"
        )
    of = (task,) if known is None else tuple(dict.fromkeys((*known.tasks, task)))
    summary = "a metric of the user's own"
    made = Metric(name, of, _Named(name), higher_is_better, name, summary=summary, default=place)
    metrics.replace(name, made if known is None else replace(made, default=min(place, known.default or 0)))


@dataclass(frozen=True)
class _Named:
    """Pick a metric from the totals of a task that computes them itself."""

    name: str

    def __call__(self, totals: Mapping[str, Floats]) -> Floats:
        return totals[self.name]


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _one_by_one(outputs: Any, batch: Batch) -> list[tuple[Any, Batch]]:
    """Return the answer and the batch of each example alone."""
    parts = []
    for row in range(len(batch.index)):
        which = torch.tensor([row])
        parts.append((select_rows(outputs, which), Batch(*(select_rows(one, which) for one in batch))))
    return parts


def _run(function: Callable[..., Any], what: str, outputs: Any, targets: Any) -> Any:
    given = answer(outputs) if isinstance(function, nn.Module) else outputs
    try:
        if what == "metric" and all(hasattr(function, name) for name in ("reset", "update", "compute")):
            meter: Any = function
            meter.reset()
            meter.update(given, targets)
            found = meter.compute()
            meter.reset()
            return found
        return function(given, targets)
    except PrunusError:
        raise
    except Exception as failure:
        raise_if_out_of_memory(failure)
        raise ModelError(
            f"the {what} {_name_of(function)} failed on outputs {described(outputs)} and targets {described(targets)}: "
            f"{one_line(failure)}"
        ) from failure


def _number(name: str, function: Measure, outputs: Any, targets: Any) -> float:
    found = _run(function, "metric", outputs, targets)
    if isinstance(found, (Tensor, np.ndarray, np.generic)) and np.prod(found.shape) == 1:
        found = found.item()
    if not isinstance(found, (int, float)):
        raise ModelError(f"the metric {name} must give one number: got {described(found)}; reduce it to its mean, say")
    if not np.isfinite(found):
        raise ModelError(
            f"the metric {name} gave {found} on outputs {described(outputs)} and targets {described(targets)}: expected a number "
            "on any choice of examples"
        )
    return float(found)
