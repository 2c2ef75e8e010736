"""How far does a training move each weight away from zero?

What is added up is minus weight times gradient, as it stands when the optimizer takes its step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["MovementRecorder"]


class MovementRecorder:
    """Add up the movement of the parameters ``names`` over a training: give :meth:`attach` to ``train`` as ``on_optimizer``.

    Memory:
        One number per weight.
    References:
        Sanh et al., NeurIPS 2020, arXiv:2005.07683 (the score of movement pruning, without its mask during training).
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        known = dict(model.named_parameters())
        self._held = {name: known[name] for name in names}
        self._sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self._held.items()}

    def attach(self, optimizer: Optimizer) -> None:
        """Look before each of ``optimizer``'s steps."""
        optimizer.register_step_pre_hook(self._before_step)

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for name, parameter in self._held.items():
            if parameter.grad is not None:
                self._sums[name].addcmul_(parameter, parameter.grad, value=-1)

    @property
    def movement(self) -> Mapping[str, Tensor]:
        """What was added up, by parameter name."""
        return self._sums
