"""Is the pruned model no worse than the dense one on what is asked, and when is that shown, or the contrary?

Two tests run beside each other: against the labels that come as feedback, and against the dense model's answers. Both hold
however often one looks (:mod:`prunus.serve.traffic.betting`), and neither forgets what it has shown. They suppose that what comes
next is no worse, on average and given all before, than the bound that is tested: a test over live traffic says something of that
traffic.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from prunus.core.errors import RecipeError
from prunus.serve.traffic.betting import interval, log_wealth_above, log_wealth_below

__all__ = ["Comparison", "Promise", "RunningTest"]


@dataclass(frozen=True)
class Promise:
    """How much worse the pruned model may be: accuracy lost by labels, share of other decisions, and the chance of a wrong word."""

    max_drop: float = 0.01
    max_disagreement: float = 0.05
    error: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < 1:
                raise RecipeError(f"--{name.replace('_', '-')} must be above 0 and below 1: got {value}")


@dataclass
class RunningTest:
    """Counts of how much worse the pruned model was on an example (-1, 0 or 1; 0 or 1), and what they have shown so far."""

    margin: float
    error: float
    signed: bool
    counts: Counter[float] = field(default_factory=Counter)
    shown: str | None = None
    _next_look: int = 1

    def observe(self, worse: list[int]) -> None:
        """Take in some examples."""
        self.counts.update((1 + value) / 2 if self.signed else float(value) for value in worse)
        n = self.counts.total()
        if self.shown is None and n >= self._next_look:
            # A test that holds at every time holds at some of them, and looking costs more than counting.
            self._next_look = n + 1 + n // 50
            enough = math.log(1 / self.error)
            if log_wealth_below(self.counts, self._bound) >= enough:
                self.shown = "no worse"
            elif log_wealth_above(self.counts, self._bound) >= enough:
                self.shown = "worse"

    @property
    def _bound(self) -> float:
        return (1 + self.margin) / 2 if self.signed else self.margin

    def report(self) -> dict[str, Any]:
        """Return what is known by now."""
        n = self.counts.total()
        low, high = interval(self.counts, self.error)
        mean = sum(value * count for value, count in self.counts.items()) / n if n else None
        if self.signed:
            low, high, mean = 2 * low - 1, 2 * high - 1, None if mean is None else 2 * mean - 1
        return {
            "n": n,
            "n_worse": self.counts[1.0],
            "n_better": self.counts[0.0] if self.signed else None,
            "drop" if self.signed else "disagreement": mean,
            "interval": [low, high],
            "margin": self.margin,
            "confidence": 1 - self.error,
            "shown": self.shown,
        }


class Comparison:
    """Both tests of one pair of models."""

    def __init__(self, promise: Promise) -> None:
        self.labels = RunningTest(promise.max_drop, promise.error, signed=True)
        self.answers = RunningTest(promise.max_disagreement, promise.error, signed=False)

    @property
    def verdict(self) -> str | None:
        """What was shown. Labels say who is right; that answers differ doesn't, and counts where labels have shown nothing."""
        return self.labels.shown or self.answers.shown

    def report(self) -> dict[str, Any]:
        """Return what is known by now."""
        return {"verdict": self.verdict, "labels": self.labels.report(), "answers": self.answers.report()}
