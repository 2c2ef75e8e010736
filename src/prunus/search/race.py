"""Is a trial so far behind others that it isn't worth its training?

While the pruned model recovers it is looked at after 1, 2, 4 and so on epochs. A trial stops where its quality on the validation
examples is below the median of those that cost no more than it, after as many epochs: the median stopping rule of Golovin et al.
(Google Vizier, KDD 2017), among trials that are no dearer, since a small model may well be worse than a large one and worth having.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from torch import nn

__all__ = ["LEAST", "Behind", "Rival", "Runner"]

LEAST = 4
"""So many rivals it takes to call a trial behind."""


class Behind(Exception):  # noqa: N818 - it ends a trial, and nothing is wrong
    """A trial is behind; ``model`` is what it had."""

    def __init__(self, message: str, model: nn.Module) -> None:
        super().__init__(message)
        self.model = model


@dataclass(frozen=True)
class Rival:
    """A finished trial: its MACs, and its quality after so many epochs, by stage and epochs."""

    macs: float
    rungs: Mapping[str, float]


@dataclass
class Runner:
    """A trial on its way: what was seen of it (``rungs``), and against whom it runs."""

    rivals: Sequence[Rival]
    higher_is_better: bool
    quality: Callable[[nn.Module], float]
    cost: Callable[[nn.Module], float]
    rungs: dict[str, float] = field(default_factory=dict)
    macs: float = 0.0

    def look(self, stage: str, model: nn.Module, done: int) -> None:
        """Look at a model after ``done`` epochs of a stage.

        Raises:
            Behind: most of those that cost no more were better by then.
        """
        if done & (done - 1):  # no power of two
            return
        rung = f"{_part(stage)}, {done}"
        self.macs = self.cost(model)
        value = self.rungs[rung] = self.quality(model)
        others = [rival.rungs[rung] for rival in self.rivals if rival.macs <= self.macs and rung in rival.rungs]
        if len(others) < LEAST:
            return
        middle = median(others)
        if value < middle if self.higher_is_better else value > middle:
            raise Behind(
                f"after {done} epoch{'s' if done > 1 else ''} of {_part(stage)} it had {value:.4g}, and half of {len(others)} "
                f"trials that cost no more had {middle:.4g} or better",
                model,
            )


def _part(stage: str) -> str:
    """Return a stage's name without its seed: only like parts are compared.

    >>> _part("seed 0 / recover 1 of 2")
    'recover 1 of 2'
    """
    return stage.partition(" / ")[2]
