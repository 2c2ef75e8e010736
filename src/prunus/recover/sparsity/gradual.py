"""How are weights pruned while a training goes on that isn't prunus's own?

The loop says how far it is, after every optimizer step; whatever is due then is cut, and everything cut before stays zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from prunus.apply import Masks
from prunus.core.errors import ModelError, RecipeError
from prunus.core.recipes.recipe import Schedule
from prunus.core.types import Floats
from prunus.score import Evidence, check_criterion, prunable_weights, score_weights
from prunus.select import allocations, keep_fractions, schedules, select

__all__ = ["GradualPruning", "check_options"]


class GradualPruning:
    """Masks of a model in training that close round by round.

    Zeros that a parameter has already (unless it is zero as a whole) count as cut: a model that was pruned before keeps its zeros,
    and a training that goes on from a checkpoint finds its masks again.

    Args:
        model: its weights are set to zero in place.
        keep_fraction: the share of the weights that stays at the end, in (0, 1]; None cuts nothing and only holds what is zero.
        schedule: how the share falls over the rounds: one_shot, linear or cubic.
        rounds: how many cuts; the first comes before the first step, the last when ``until`` of the training is done.
        until: share of the training after which nothing is cut any more, so that the rest recovers; in (0, 1].
        granularity: ``weight``, or ``N:M``: at most N of M weights that lie next to each other along the input dimension stay
            (then there is no ``keep_fraction``; weights whose input size M doesn't divide stay whole).
        criterion: one that reads weights alone.
        allocation: ``global`` ranks all weights together, ``uniform`` keeps the same share of every layer. N:M has neither.
        exclude: name patterns (fnmatch) of parameters or layers that stay as they are.
        seed: for the criterion ``random``.

    Raises:
        RecipeError: settings that contradict each other or are out of range.
        ModelError: no weight can be pruned.

    References:
        Zhu and Gupta, 2017, arXiv:1710.01878 (gradual pruning); Mishra et al., 2021, arXiv:2104.08378 (2:4).

    >>> layer = nn.Linear(8, 4)
    >>> pruning = GradualPruning(layer, keep_fraction=0.25, schedule="linear", rounds=3, until=0.5)
    >>> [(pruning.at(progress), pruning.keep_fraction)[1] for progress in (0.0, 0.1, 0.25, 0.5)]
    [0.75, 0.75, 0.5, 0.25]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        keep_fraction: float | None = None,
        schedule: Literal["one_shot", "linear", "cubic"] = "cubic",
        rounds: int = 20,
        until: float = 0.7,
        granularity: str = "weight",
        criterion: str = "magnitude_l2",
        allocation: Literal["uniform", "global"] = "global",
        exclude: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        block, self.fractions = check_options(
            keep_fraction=keep_fraction,
            schedule=schedule,
            rounds=rounds,
            until=until,
            granularity=granularity,
            criterion=criterion,
            allocation=allocation,
            exclude=exclude,
            seed=seed,
        )
        self.model, self.block, self.until = model, block, until
        self.criterion, self.allocation, self.seed = criterion, allocation, seed
        self.names = [name for name in prunable_weights(model, exclude) if block is None or self._divides(name)]
        if not self.names:
            reason = f"of an input size that {block[1]} divides " if block else ""
            raise ModelError(f"the model has no weight {reason}that may be pruned: exclude less")
        self.n_done = 0
        self._use({name: _alive(model.get_parameter(name).detach()) for name in self.names})

    @property
    def keep_fraction(self) -> float:
        """The share of the prunable weights that stays now."""
        return self.masks.keep_fraction

    @property
    def is_done(self) -> bool:
        """Whether every round was cut."""
        return self.n_done == len(self.fractions)

    def at(self, progress: float) -> None:
        """Cut what is due when the share ``progress`` of the training is done, and hold every zero.

        Call it before the first step with 0, and after every optimizer step.
        """
        last = len(self.fractions) - 1
        due = sum(progress >= self.until * number / max(last, 1) for number in range(last + 1))
        if due > self.n_done:
            self._cut(self.fractions[due - 1])
            self.n_done = due
        self.masks.enforce()

    def _use(self, keep: Mapping[str, Tensor]) -> None:
        self.keep = dict(keep)
        self.masks = Masks(self.model, self.keep)

    def _cut(self, fraction: float) -> None:
        weights = Evidence({name: self.model.get_parameter(name).detach() for name in self.names})
        strata = score_weights(weights, self.names, self.criterion, seed=self.seed)
        if self.block is not None:
            n, m = self.block
            # The goal is a whole number of every block, and so is every round on the way.
            self._use({s.name: self._blocks(s.name, s.saliency, max(n, round(fraction * m)), m) for s in strata})
            return
        alive = {name: np.flatnonzero(mask.cpu().numpy()) for name, mask in self.keep.items()}
        left = sum(map(len, alive.values()))
        wanted = round(fraction * sum(mask.numel() for mask in self.keep.values()))
        living = [replace(s, saliency=s.saliency[alive[s.name]], unit=alive[s.name]) for s in strata]
        living = [s for s in living if len(s.saliency)]
        if wanted >= left or not living:
            return
        chosen = select(living, keep_fraction=wanted / left, allocation=self.allocation)
        masks = {name: torch.zeros(mask.numel(), dtype=torch.bool) for name, mask in self.keep.items()}
        for stratum, stays in zip(living, chosen, strict=True):
            masks[stratum.name][torch.from_numpy(stratum.units[stays])] = True
        self._use({name: mask.view(self.keep[name].shape) for name, mask in masks.items()})

    def _blocks(self, name: str, saliency: Floats, n: int, m: int) -> Tensor:
        """Return the mask with the ``n`` best of every ``m`` inputs next to each other, among what is alive."""
        keep, dim = self.keep[name].cpu(), self._input_dim(name)
        score = torch.from_numpy(saliency).view(keep.shape).masked_fill(~keep, -torch.inf)
        rows = torch.unflatten(score.movedim(dim, -1), -1, (-1, m))
        best = torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, rows.topk(n, dim=-1).indices, True)
        return best.flatten(-2).movedim(-1, dim) & keep

    def _input_dim(self, name: str) -> int:
        module = self.model.get_submodule(name.rpartition(".")[0])
        # transformers' Conv1D is a linear layer that holds its weight the other way round.
        return 0 if isinstance(module, _ConvTransposeNd) or type(module).__name__ == "Conv1D" else 1

    def _divides(self, name: str) -> bool:
        assert self.block is not None
        return self.model.get_parameter(name).shape[self._input_dim(name)] % self.block[1] == 0


def check_options(
    *,
    keep_fraction: float | None = None,
    schedule: Literal["one_shot", "linear", "cubic"] = "cubic",
    rounds: int = 20,
    until: float = 0.7,
    granularity: str = "weight",
    criterion: str = "magnitude_l2",
    allocation: Literal["uniform", "global"] = "global",
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> tuple[tuple[int, int] | None, tuple[float, ...]]:
    """Return (N, M) or None, and the share that stays after every round, of the options of :class:`GradualPruning`.

    Raises:
        RecipeError: they contradict each other or are out of range.
    """
    block = _block(granularity, keep_fraction)
    schedules[schedule], allocations[allocation]  # an unknown name lists the near ones
    needs = check_criterion(criterion, "weight").needs
    if not set(needs) <= {"weight", "noise"}:
        raise RecipeError(
            f"pruning in a loop of another library reads weights alone: got the criterion {criterion!r}, which needs "
            f"{', '.join(needs)}; take a magnitude"
        )
    if not 0 < until <= 1 or rounds < 1:
        raise RecipeError(f"until must be in (0, 1] and rounds at least 1: got {until=} and {rounds=}")
    goal = block[0] / block[1] if block else keep_fraction
    if goal is None:
        return block, ()
    kind = Schedule(kind=schedule, rounds=1 if schedule == "one_shot" else rounds)
    return block, keep_fractions(kind, goal)


def _block(granularity: str, keep_fraction: float | None) -> tuple[int, int] | None:
    """Return (N, M), or None for single weights."""
    if granularity == "weight":
        return None
    found = re.fullmatch(r"(\d+):(\d+)", granularity)
    if found is None or not 0 < int(found[1]) <= int(found[2]):
        raise RecipeError(f"granularity must be weight or N:M with 0 < N <= M, like 2:4: got {granularity!r}")
    if keep_fraction is not None:
        raise RecipeError(f"{granularity} says how much stays: got keep_fraction {keep_fraction} as well; leave it out")
    return int(found[1]), int(found[2])


def _alive(weight: Tensor) -> Tensor:
    mask = weight != 0
    return mask if bool(mask.any()) else torch.ones_like(mask)
