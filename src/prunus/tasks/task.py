"""What is asked of a model? A loss, what to observe of each example, what a metric sees of that, and how a person reads an answer.

Everything that measures takes an example's *observation*: a few numbers, the same columns for each. A metric is a function of
totals over examples, and totals are taken under weights: how often an example counts. A weight of two is the example seen twice, so
that one formula gives the value, its bootstrap interval and the paired comparison.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.code.registry import TASKS, Registry
from prunus.core.predictions import Prediction
from prunus.core.types import Bools, Floats, Ints

__all__ = ["Choices", "Imagined", "Observed", "Task", "made_of", "make_task", "n_observed", "rows_of", "task", "tasks"]

Observed = Mapping[str, npt.NDArray[Any]]
"""What was seen of some examples: columns by name, each ``(n, ...)``, with one row per example."""


class Imagined(NamedTuple):
    """Examples that nobody saw, for a bootstrap of models that never err: shares, and what either answer gives."""

    shares: Floats
    right: Observed
    wrong: Observed


class Choices(NamedTuple):
    """Where one of several classes is chosen: scores ``(places, classes)``, the right class, and whose example each place is of."""

    scores: Tensor
    right: Tensor
    example: Tensor


class Task(ABC):
    """What is asked of a model; an instance knows what the data say (its classes, say), and nothing of any model.

    A subclass is registered with :func:`task`, which enrols it in the suite that takes every task through a whole run.
    """

    name: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    """The columns that :meth:`totals` reads."""
    labelled: ClassVar[bool] = True
    """Whether it can't do without targets."""
    of_dense: ClassVar[bool] = False
    """Whether its targets are the dense model's answers, and never the data's."""
    exclusive: ClassVar[bool] = False
    """Whether each example has one class and gets one, in the columns ``true`` and ``predicted``."""
    told_by_model: ClassVar[bool] = False
    """Whether the model gives the loss itself, when it is handed the targets (``own_losses``)."""
    class_names: tuple[str, ...] = ()

    @property
    def counted_names(self) -> tuple[str, ...]:
        """The names of what a :class:`Tally` counts: the classes, where a task doesn't count something else."""
        return self.class_names

    @property
    def reader(self) -> Task | None:
        """The registered task that reads answers as this one does; None where it takes this one's code."""
        return self if self.name in tasks and tasks[self.name] is type(self) else None

    @abstractmethod
    def check(self, outputs: Any, batch: Batch) -> None:
        """See that a model's answer and the targets are what this task has.

        Raises:
            ModelError: the answer isn't; one line says what came, and what fits.
            DataError: the targets aren't.
        """

    @abstractmethod
    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each example, ``(n,)``, with its gradient."""

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the one number to minimise: the mean, unless examples count differently."""
        return self.losses(outputs, batch).mean()

    def weight_of(self, batch: Batch) -> Tensor | int:
        """Return what the loss of a batch is a mean over: examples, unless it is what lies in them (tokens, pixels)."""
        return len(batch.index)

    @abstractmethod
    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return what metrics need to know of each example; ``right`` (booleans) where an answer is right or wrong."""

    def settled(self, observed: Observed) -> Observed:
        """Return the observations of a whole set, given those of all its batches: where they hang on each other, as ranks do."""
        return observed

    @abstractmethod
    def totals(self, observed: Observed, weights: Floats) -> Any:
        """Return what metrics are functions of, for each row of ``weights`` ``(resamples, n)``: arrays ``(resamples, ...)``."""

    def pooled(self, observed: Observed, groups: Ints, n_groups: int) -> Observed | None:
        """Return what is observed of groups of examples, each as if it were one example that counts as often as it has members.

        Where totals are sums over examples that is possible, and a bootstrap of very many takes as long as one of the groups; None
        where they aren't. A group without members may hold anything.

        Args:
            groups: the number of each example's group, 0 to ``n_groups`` - 1.
        """
        return None

    @abstractmethod
    def decode(self, outputs: Any) -> Prediction:
        """Return what a person reads."""

    def choices(self, outputs: Any, batch: Batch) -> Choices | None:
        """Return every choice of one class among several that an answer makes, with its scores; None where it makes none.

        What is said of probabilities (calibration, attacks, membership) is said of these, so that one formula serves every task.
        """
        return None

    def imagine(self, observed: Observed) -> Imagined | None:
        """Return one imagined example, as a mixture whose shares sum to 1; None where answers aren't right or wrong."""
        return None


tasks: Registry[type[Task]] = Registry("task", group=TASKS)

T = TypeVar("T", bound=type[Task])


def make_task(name: str, **facts: Any) -> Task:
    """Return the task that is called ``name``, with what is known of the data: the facts that it has a field for.

    Raises:
        UnknownNameError: there is none.
    """
    return made_of(tasks[name], **facts)


def made_of(kind: type[Task], **facts: Any) -> Task:
    """Return a task of a class, with the facts that it has a field for."""
    known: set[str] = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    made: Task = kind(**{key: value for key, value in facts.items() if key in known})
    return made


def task(name: str) -> Callable[[T], T]:
    """Register a task under ``name``."""

    def register(kind: T) -> T:
        kind.name = name
        tasks.add(name, kind)
        return kind

    return register


def pooled(task: Task, observed: Observed, groups: Ints, n_groups: int) -> Observed | None:
    """Return what is observed of groups of examples; None where a class has totals of its own, and pools as another does."""
    kinds = type(task).__mro__
    owners = [next(kind for kind in kinds if name in vars(kind)) for name in ("totals", "pooled")]
    return task.pooled(observed, groups, n_groups) if owners[0] is owners[1] else None


def group_means(column: Floats, groups: Ints, n_groups: int) -> Floats:
    """Return the mean of each group's rows, zero of none; ``column`` is ``(n,)`` or ``(n, values)``."""
    sizes = np.maximum(np.bincount(groups, minlength=n_groups), 1)
    if column.ndim == 1:
        return np.bincount(groups, weights=column, minlength=n_groups) / sizes
    return np.stack([group_means(one, groups, n_groups) for one in column.T], axis=1)


def n_observed(observed: Observed) -> int:
    """Return of how many examples something was observed."""
    return len(next(iter(observed.values())))


def rows_of(observed: Observed, rows: npt.NDArray[np.intp] | Bools) -> Observed:
    """Return the observations of some examples."""
    return {name: column[rows] for name, column in observed.items()}
