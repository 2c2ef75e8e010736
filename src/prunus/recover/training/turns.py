"""Which model does a step train, and has the training lost its way? Several models that share weights take turns, a step each.

A step belongs to a model by its number alone, so that a training that was stopped goes on with whose turn it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["InTurns", "Yardstick", "n_turns_of"]


class InTurns(nn.Module):
    """Several models in one: ``turn`` is the number of the one that learns in this step."""

    turn = 0

    @property
    def n_turns(self) -> int:
        """How many there are."""
        raise NotImplementedError

    def begin_step(self, number: int) -> None:
        """Give the turn to the model whose it is in step ``number`` (0, 1, ...) of the whole training."""
        self.turn = number % self.n_turns


def n_turns_of(model: nn.Module) -> int:
    """Return how many models take turns in a training of ``model``."""
    return model.n_turns if isinstance(model, InTurns) else 1


@dataclass
class Yardstick:
    """Whether a state is worth going back to: still finite, a training may long be on its way to infinity.

    A loss is compared with the one of the same model before it learnt anything: a small model that was just cut begins with a
    loss that a large one never comes to. It may be worse by as much as the worst of them began with: models that share weights move
    each other, and of one that answers as its teacher does the first loss is zero.
    """

    n_turns: int
    first: list[float] = field(default_factory=list)
    latest: list[float | None] = field(default_factory=list)

    def begin(self, loss_of: Callable[[int], float]) -> None:
        """Ask for the loss of each model before the first step."""
        self.first = [loss_of(turn) for turn in range(self.n_turns)]

    def is_sound(self, losses: Tensor, sizes: Tensor, first_step: int) -> bool:
        """Say whether no model's loss has doubled: neither its mean over an epoch nor its last one; the first epoch begins it.

        Args:
            losses: of the epoch's steps, ``(steps, ...)``.
            sizes: how many examples each step had.
            first_step: the number of the epoch's first step.
        """
        values = losses.detach().flatten().double().cpu()
        if not self.first:
            self.first = [float(values[0])]
        self.latest = self.latest or [None] * self.n_turns
        for turn in range(self.n_turns):
            start = (turn - first_step) % self.n_turns
            own, weights = values[start :: self.n_turns], sizes[start :: self.n_turns].cpu()
            if len(own):  # a short epoch may have no step of some
                self.latest[turn] = max(float((own * weights).sum() / weights.sum()), float(own[-1]))
        worst = max(map(abs, self.first))
        pairs = zip(self.first, self.latest, strict=True)
        return all(latest is None or latest <= first + worst for first, latest in pairs)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep."""
        return {"first": list(self.first), "latest": list(self.latest)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.first, self.latest = list(state["first"]), list(state["latest"])
