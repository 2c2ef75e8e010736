"""How long does one call of each of several models take, when they take turns?

A *contestant* is a model in a runtime, ready to be called. All of them are called once a round, in a fresh random order, so that
whatever else the machine does hits them alike; what is claimed is the median of the ratios within rounds. A contestant that is so
fast that a clock hardly sees it is called several times a turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch

from prunus.core.runtime import derive_seed
from prunus.core.types import Floats, Measurement
from prunus.evaluate.resample import interval

__all__ = ["COLD_S", "Clock", "Contestant", "InProcess", "clock_for", "milliseconds", "paired_speedup", "take_turns"]

Clock = Literal["processor", "wall"]
Key = TypeVar("Key")

COLD_S = 0.1
"""A turn of a model that takes less begins with a call that doesn't count: the others have had the caches since its last one."""
_LEAST_S, _MOST_CALLS = 0.004, 1000
_RESAMPLES = 1000


@runtime_checkable
class Contestant(Protocol):
    """A model in a runtime."""

    def seconds(self, n_calls: int) -> float:
        """Return how long so many calls took together."""
        ...

    def close(self) -> None:
        """Give back what it holds."""
        ...


class InProcess:
    """A model that is called in this process.

    Args:
        run: calls it once.
        clock: ``processor`` counts what this process had of the processors, which is the time of a single thread whatever else the
            machine does; ``wall`` is for several threads.
    """

    def __init__(self, run: Callable[[], Any], clock: Clock) -> None:
        self._run = run
        self._clock = time.process_time if clock == "processor" else time.perf_counter

    def seconds(self, n_calls: int) -> float:
        """Return how long so many calls took together."""
        run, clock = self._run, self._clock
        with torch.inference_mode():
            start = clock()
            for _ in range(n_calls):
                run()
            return clock() - start

    def close(self) -> None:
        """Forget the model."""
        self._run = _nothing


def _nothing() -> None: ...


def clock_for(threads: int) -> Clock:
    """Return which clock counts: the processor's where one thread does it all."""
    return "processor" if threads == 1 else "wall"


def take_turns(
    contestants: Mapping[Key, Contestant],
    *,
    repeats: int,
    warm_up: int,
    seed: int,
    tick: Callable[[int, int], None] | None = None,
) -> dict[Key, Floats]:
    """Return the seconds of one call of each contestant, round by round.

    Args:
        repeats: rounds that count.
        warm_up: rounds before, of one call each; the last says how many calls a turn needs.
        tick: is told how many rounds of all are done.

    Shapes:
        Each array is ``(repeats,)``; its n-th entry was measured in the same round as the others' n-th.
    """
    rng = np.random.default_rng(derive_seed(seed, "bench"))
    names = list(contestants)
    taken = {name: np.zeros(repeats) for name in names}
    n_calls, one_call = dict.fromkeys(names, 1), dict.fromkeys(names, 0.0)
    first = max(1, warm_up)
    for turn in range(first + repeats):
        for position in rng.permutation(len(names)):
            name = names[position]
            if turn and one_call[name] < COLD_S:
                contestants[name].seconds(1)
            spent = contestants[name].seconds(n_calls[name])
            one_call[name] = spent / n_calls[name]
            if turn >= first:
                taken[name][turn - first] = spent / n_calls[name]
            elif turn == first - 1:
                n_calls[name] = min(_MOST_CALLS, max(1, ceil(_LEAST_S / max(spent, 1e-9))))
        if tick is not None:
            tick(turn + 1, first + repeats)
    return taken


def milliseconds(seconds: Floats) -> Measurement:
    """Return the median of a call's time, with quartiles.

    >>> print(milliseconds(np.array([0.001, 0.002, 0.003, 0.004, 0.005])))
    milliseconds 3 (2 to 4) ms
    """
    low, median, high = 1000 * np.quantile(seconds, [0.25, 0.5, 0.75])
    return Measurement("milliseconds", float(median), float(low), float(high), "ms", False)


def paired_speedup(slow: Floats, fast: Floats, *, seed: int) -> Measurement:
    """Return how many times as fast the second is: the median of the ratios within rounds, with its 95 % interval.

    >>> print(paired_speedup(np.array([0.2, 0.4, 0.6]), np.array([0.1, 0.2, 0.3]), seed=0))
    speedup 2 (2 to 2) x
    """
    ratios = slow / fast
    rng = np.random.default_rng(derive_seed(seed, "bench", "bootstrap"))
    medians = np.median(ratios[rng.integers(0, len(ratios), (_RESAMPLES, len(ratios)))], axis=1)
    return Measurement("speedup", float(np.median(ratios)), *interval(medians, 0.95), "x", True)
