"""What is done beside each optimizer step, so that training drives to zero what isn't needed?

A sparsity penalty: a proximal step, or gates that close. It belongs to no one training: the loop only lets it attach itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch.optim import Optimizer

__all__ = ["Penalty"]


class Penalty(ABC):
    """What is done beside each optimizer step to drive to zero what isn't needed.

    ``resumable`` says whether a training can go on from the model and the optimizer alone, ``shards`` whether a step can be taken
    where each process has a part of each parameter only.
    """

    resumable: ClassVar[bool] = True
    shards: ClassVar[bool] = False

    @abstractmethod
    def step(self, learning_rate: float) -> None:
        """Move what is penalised once, in place; a proximal operator has the threshold ``learning_rate * strength``."""

    def finish(self) -> None:
        """Leave the model as it is to be scored, when the training is over: a proximal step has nothing left to do."""
        return

    def attach(self, optimizer: Optimizer) -> None:
        """Take a step after each of ``optimizer``'s, at its learning rate: give this to ``train`` as ``on_optimizer``."""
        optimizer.register_step_post_hook(lambda owner, args, kwargs: self.step(float(owner.param_groups[0]["lr"])))
