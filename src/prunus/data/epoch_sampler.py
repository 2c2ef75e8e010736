"""Which examples does each epoch train on, so that the gradient of all of them is the one that is expected?

Every epoch draws examples anew, each with a probability of its own, and weighs what was drawn by one over that probability. So the
mean of the weighted losses is, in expectation over the draws, the mean over all examples, whatever the probabilities: they only
change how much it scatters. Probabilities are whole numbers of small steps, so this holds exactly, and not up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from prunus.core.errors import DataError, RecipeError
from prunus.core.runtime import generator
from prunus.core.types import Floats, Ints

__all__ = ["EpochSampler", "inclusion_steps"]

STEPS = 1 << 30
"""A probability of 1 has so many steps."""


class EpochSampler(Sampler[int]):
    """Draw a share of the examples for each epoch, without replacement, each with the probability that its score asks for.

    In a loop, whose data set gives the position of each example, too::

        sampler = EpochSampler(len(dataset), keep_fraction=0.5, seed=0)
        loader = DataLoader(dataset, batch_size=64, sampler=sampler)
        for epoch in range(n_epochs):
            sampler.set_epoch(epoch)  # with scores=..., from a recorder or the last losses, they are the chances from now on
            for position, inputs, targets in loader:
                losses = cross_entropy(model(inputs), targets, reduction="none")
                loss = (sampler.weights[position] * losses).mean()

    Every epoch has exactly ``n_drawn`` examples: the share, as a multiple of the ranks, so that none waits for another. An epoch's
    draw hangs on seed, epoch and scores alone, so any number of workers gives the same, and so does a resume.

    Args:
        n_examples: how many there are.
        keep_fraction: share of them in each epoch.
        least: no example has less than this share of the mean score: what is never drawn can't be weighted. More bounds weights.
        seed: of the draws.
        rank: of this process, where several train together: each gets its own part of the same draw.
        n_ranks: how many there are.

    Raises:
        RecipeError: a share out of range, fewer examples in an epoch than ranks, or a rank that isn't there.

    References:
        Systematic sampling with unequal probabilities, in a random order (Madow, Annals of Mathematical Statistics 20(3), 1949);
        the weights are Horvitz and Thompson's (JASA 47, 1952). InfoBatch (Qin et al., ICLR 2024, arXiv:2303.04947) prunes per epoch
        with rescaled gradients, too.
    """

    def __init__(
        self,
        n_examples: int,
        *,
        keep_fraction: float,
        least: float = 0.1,
        seed: int = 0,
        rank: int = 0,
        n_ranks: int = 1,
    ) -> None:
        if not 0 < keep_fraction <= 1 or not 0 < least <= 1:
            raise RecipeError(f"keep_fraction and least must be in (0, 1]: got {keep_fraction!r} and {least!r}")
        if not 0 <= rank < n_ranks:
            raise RecipeError(f"rank must be from 0 to {n_ranks - 1} of n_ranks {n_ranks}: got {rank}")
        self.n_examples, self.least, self.seed, self.rank, self.n_ranks = n_examples, least, seed, rank, n_ranks
        self.n_drawn = min(round(keep_fraction * n_examples / n_ranks), n_examples // n_ranks) * n_ranks
        if self.n_drawn == 0:
            raise RecipeError(
                f"keep_fraction {keep_fraction:g} of {n_examples} examples is less than one for each of {n_ranks} ranks: raise it"
            )
        self._steps = inclusion_steps(np.ones(n_examples), self.n_drawn, least=least)
        self._epoch, self._start = 0, 0

    @property
    def chance(self) -> Floats:
        """With which probability each example is in the epoch, ``(n,)``."""
        return self._steps / STEPS

    @property
    def weights(self) -> Tensor:
        """What each example's loss counts, ``(n,)``: 1 where all have the same chance."""
        return torch.from_numpy(self.n_drawn / (self.n_examples * self.chance)).float()

    def set_epoch(self, epoch: int, scores: npt.ArrayLike | Tensor | None = None) -> None:
        """Draw for this epoch from now on, from its beginning.

        Args:
            epoch: its number.
            scores: one per example, not negative: chances are in proportion to them, as far as none exceeds 1. None: as before (all
                alike at first). Every rank needs the same ones.

        Raises:
            DataError: not one score per example, or one that is negative or not finite.
        """
        if scores is not None:
            given = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores, np.float64)
            if given.shape != (self.n_examples,):
                raise DataError(f"expected one score per example, ({self.n_examples},): got shape {given.shape}")
            self._steps = inclusion_steps(given, self.n_drawn, least=self.least)
        self._epoch, self._start = epoch, 0

    def drawn(self, epoch: int) -> Tensor:
        """Return the positions that an epoch trains on, of all ranks, in their order."""
        draw = generator(self.seed, "epoch sampler", epoch)
        order = torch.randperm(self.n_examples, generator=draw).numpy()
        start = int(torch.randint(1, STEPS + 1, (), generator=draw))
        found = order[_under_pointers(self._steps[order], start)]
        return torch.from_numpy(found)[torch.randperm(len(found), generator=draw)]

    def __len__(self) -> int:
        """Return how many examples of this rank are left in the epoch."""
        return self.n_drawn // self.n_ranks - self._start

    def __iter__(self) -> Iterator[int]:
        """Yield the positions of this rank's part of the epoch, from where it was left."""
        yield from self.drawn(self._epoch)[self.rank :: self.n_ranks][self._start :].tolist()

    def state_dict(self, n_taken: int) -> dict[str, Any]:
        """Return where the sampler is, for a checkpoint.

        Args:
            n_taken: how many examples of this rank the loop took in this epoch. Only the loop knows: a loader's workers run ahead.
        """
        facts = {"n_examples": self.n_examples, "n_drawn": self.n_drawn, "n_ranks": self.n_ranks, "seed": self.seed}
        return {**facts, "epoch": self._epoch, "n_taken": n_taken, "steps": torch.from_numpy(self._steps.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was.

        Raises:
            DataError: it is the state of a sampler of other examples, another share, seed or number of ranks.
        """
        for key in ("n_examples", "n_drawn", "n_ranks", "seed"):
            if state.get(key) != getattr(self, key):
                raise DataError(
                    f"the state is of a sampler with {key} {state.get(key)}: got {getattr(self, key)}; make the sampler as it was"
                )
        self._steps = state["steps"].numpy().copy()
        self._epoch, self._start = int(state["epoch"]), int(state["n_taken"])


def inclusion_steps(scores: Floats, n_drawn: int, *, least: float) -> Ints:
    """Return in steps of ``1 / STEPS`` with which probability each example is drawn: in proportion to its score, at most 1.

    Shapes:
        ``(n,)`` to ``(n,)``; the sum is exactly ``n_drawn * STEPS``.
    Raises:
        DataError: a score is negative or not finite.

    >>> (inclusion_steps(np.array([1.0, 1.0, 2.0, 9.0]), 2, least=0.1) / STEPS).round(3).tolist()
    [0.25, 0.25, 0.5, 1.0]
    """
    bad = np.flatnonzero(~(np.isfinite(scores) & (scores >= 0)))
    if len(bad):
        raise DataError(f"scores must be finite and not negative: example {bad[0]} has {scores[bad[0]]}")
    # As shares of the largest: sums of the greatest and the smallest floats stay numbers.
    scores = scores / scores.max() if scores.any() else np.ones(len(scores))
    raised = np.maximum(scores, least * scores.mean())
    sure = np.zeros(len(scores), np.bool_)
    while True:
        share = (n_drawn - np.count_nonzero(sure)) * raised / raised[~sure].sum() if not sure.all() else raised
        over = ~sure & (share >= 1.0)
        if not over.any():
            break
        sure |= over
    steps = np.where(sure, STEPS, np.clip(np.floor(share * STEPS), 1, STEPS)).astype(np.int64)
    # What rounding left goes to those that have room, a step each.
    left = n_drawn * STEPS - int(steps.sum())
    open_ = np.flatnonzero(~sure)
    while left:
        room = open_[steps[open_] < STEPS] if left > 0 else open_[steps[open_] > 1]
        some = room[: abs(left)]
        steps[some] += int(np.sign(left))
        left -= int(np.sign(left)) * len(some)
    return steps


def _under_pointers(steps: Ints, start: int) -> Ints:
    """Return which of the lengths, laid end to end, lie under the pointers at ``start``, ``start + STEPS`` and so on.

    A length of s steps is under a pointer for exactly s of the ``STEPS`` starts from 1 on, and none is under two.
    """
    ends = np.cumsum(steps)
    passed = (ends - start) // STEPS + 1  # how many pointers stand at or before each end
    return np.flatnonzero(np.diff(passed, prepend=0)).astype(np.int64)
