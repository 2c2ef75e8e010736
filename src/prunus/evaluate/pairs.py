"""What are two models compared on: what was observed of both on the same examples, seed by seed, and how intervals are drawn?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from prunus.core.errors import DataError
from prunus.core.types import Floats, Ints
from prunus.evaluate.resample import resample
from prunus.tasks import Imagined, Observed, Pooling, Task, rows_of

__all__ = ["Pairs"]


@dataclass(frozen=True)
class Pairs:
    """What a task observed of the dense and of the pruned model of each seed, in one order, on the same examples.

    Intervals hold with ``confidence``; they come from ``bootstrap`` resamples, drawn under ``seed``.

    Raises:
        DataError: no seeds, or not one pruned model for each dense one.
    """

    dense: Sequence[Observed]
    pruned: Sequence[Observed]
    task: Task
    confidence: float = 0.95
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.dense or len(self.dense) != len(self.pruned):
            raise DataError(
                "a paired comparison needs the outputs of one dense and one pruned model per seed: got "
                f"{len(self.dense)} and {len(self.pruned)}"
            )

    def of(self, rows: Ints) -> Pairs:
        """Return the same of some examples alone."""
        dense, pruned = ([rows_of(seen, rows) for seen in models] for models in (self.dense, self.pruned))
        return replace(self, dense=dense, pruned=pruned)

    def resampled(
        self,
        statistic: Callable[[Observed, Floats], Floats],
        reads: Sequence[str],
        made: Imagined | None,
        shares: Floats | None,
        pool: Pooling | None = None,
        within: Ints | None = None,
    ) -> Floats:
        """Return a statistic of both models, ``(dense or pruned, seeds, 1 + resamples, values)``: plain, then resampled."""
        n_seeds = len(self.dense)
        kinds = [[True] * n_seeds + [False] * n_seeds, [False] * n_seeds + [True] * n_seeds]
        values = resample(
            (*self.dense, *self.pruned),
            statistic,
            reads=reads,
            imagined=None if made is None or shares is None else (kinds, made, shares),
            pool=pool,
            within=within,
            resamples=self.bootstrap,
            seed=self.seed,
        )
        return values.reshape(2, n_seeds, *values.shape[1:])
