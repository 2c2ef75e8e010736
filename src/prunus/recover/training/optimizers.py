"""How do parameters move: which optimizer, how fast at which step?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from prunus.core.recipes.recipe import Train

__all__ = ["clip_gradients", "learning_rate", "make_optimizer"]


def make_optimizer(parameters: Sequence[Tensor], config: Train) -> Optimizer:
    """Return the optimizer that ``config`` names; only parameters of two or more dimensions decay (no bias, no norm scale)."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One fused kernel per step instead of a dozen: for small models that is most of the step.
    fused = all(p.dtype in (torch.float32, torch.float64) and p.device.type in ("cpu", "cuda") for p in parameters)
    if config.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=fused, foreach=not fused)
        if fused and config.momentum:
            sgd.register_step_pre_hook(_begin_momentum)
        return sgd
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=fused, foreach=not fused)


def _begin_momentum(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Let the momentum of whatever has its first gradient begin at zero.

    The fused step wants that of all parameters to begin at once: one that only some examples reach (an expert) may begin later.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def learning_rate(config: Train, step: int, n_steps: int) -> float:
    """Return the learning rate of ``step`` (0, 1, ...) of ``n_steps``.

    It rises linearly over the first twentieth (at most 200 steps), then stays or falls along half a cosine to nearly zero.

    >>> constant = Train(learning_rate=1.0, decay="constant")
    >>> [learning_rate(constant, step, 60) for step in (0, 1, 2, 3, 59)]
    [0.3333333333333333, 0.6666666666666666, 1.0, 1.0, 1.0]
    """
    warm_up = min(200, n_steps // 20)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    if config.decay == "constant":
        return config.learning_rate
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (n_steps - warm_up)))


def clip_gradients(
    parameters: Sequence[Tensor], largest: float, total: Callable[[Tensor], Tensor] | None = None
) -> None:
    """Scale all gradients down together, in place, so that their joint norm is at most ``largest``.

    ``total`` adds up over processes, where each has a part of the parameters.

    Nothing waits for the device. A gradient that isn't finite makes all of them NaN, which the training loop then sees.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if total is not None:
        norm = total(norm.square()).sqrt()
    torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
