"""Which of several ways to train wins: a selection of the examples, as many by chance, or all of them for as many steps?

Each way is judged on the same examples and the same seeds, so differences are paired. The simplest way that nothing beats
measurably is recommended: to select nothing, then chance, then the selection. The three intervals hold together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from prunus.evaluate.compare import Comparison, compare
from prunus.evaluate.pairs import Pairs
from prunus.tasks import Observed, Task, value_of

__all__ = ["ARMS", "Judged", "judge_arms", "recommended"]

ARMS = ("selection", "random", "full_short")
"""What was selected; as many by chance; all examples, for as many steps."""
_PAIRS = (("selection", "random"), ("selection", "full_short"), ("random", "full_short"))


@dataclass(frozen=True)
class Judged:
    """How each way did, what each differs from the others, and which is recommended.

    ``smaller`` is what to take where fewer examples must be kept: the selection or chance.
    """

    metric: str
    values: Mapping[str, Sequence[float]]
    comparisons: tuple[tuple[str, str, Comparison], ...]
    recommended: str
    smaller: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        arms = [
            {
                "name": name,
                "mean": mean(values),
                "deviation": stdev(values) if len(values) > 1 else None,
                "values": list(values),
            }
            for name, values in self.values.items()
        ]
        comparisons = []
        for one, other, found in self.comparisons:
            number = found.difference.to_dict()
            comparisons.append(
                {"one": one, "other": other, "verdict": found.verdict}
                | {key: number[key] for key in ("value", "low", "high")}
            )
        first = self.comparisons[0][2]
        return {
            "metric": self.metric,
            "higher_is_better": bool(first.difference.higher_is_better),
            "method": first.method,
            "arms": arms,
            "comparisons": comparisons,
            "recommended": self.recommended,
            "smaller": self.smaller,
        }


def judge_arms(
    observed: Mapping[str, Sequence[Observed]],
    task: Task,
    metric: str,
    *,
    confidence: float = 0.95,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Judged:
    """Return which way of training wins by ``metric``.

    Args:
        observed: of each of ``ARMS``, what ``task`` saw of the model of each seed, on the same examples.
        task: what was asked.
        metric: a name in ``prunus.tasks.metrics``.
        confidence: of the three intervals together.
        bootstrap: resamples behind them.
        seed: of the resamples.

    Raises:
        DataError: not one model per seed of each way.
        RecipeError: an unknown metric, or one of another task.
    """
    each = 1 - (1 - confidence) / len(_PAIRS)
    comparisons = tuple(
        (
            one,
            other,
            compare(
                Pairs(observed[other], observed[one], task, confidence=each, bootstrap=bootstrap, seed=seed),
                [metric],
            )[0],
        )
        for one, other in _PAIRS
    )
    verdicts = {(one, other): found.verdict for one, other, found in comparisons}
    best, smaller = recommended(verdicts)
    values = {name: [value_of(task, metric, seen) for seen in observed[name]] for name in ARMS}
    return Judged(metric, values, comparisons, best, smaller)


def recommended(verdicts: Mapping[tuple[str, str], str]) -> tuple[str, str]:
    """Return what to do, and what to do where fewer examples must be kept.

    >>> recommended({("selection", "random"): "better", ("selection", "full_short"): "no measurable difference"})
    ('full_short', 'selection')
    """
    smaller = "selection" if verdicts["selection", "random"] == "better" else "random"
    wins = verdicts.get((smaller, "full_short")) == "better"
    return (smaller if wins else "full_short"), smaller
