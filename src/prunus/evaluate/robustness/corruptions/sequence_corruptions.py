"""How do signals get worse: noise, another loudness, holes? ``(n, ..., time)``, time being the longest dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.evaluate.robustness.corruptions.corruption import InputFacts, corruption

__all__: list[str] = []


def _loudness(x: Tensor) -> Tensor:
    """Return the root mean square of each example."""
    level: Tensor = x.flatten(1).square().mean(dim=1).sqrt()
    return level.reshape(-1, *[1] * (x.ndim - 1))


@corruption("signal_noise", "sequence")
def signal_noise(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the signals with white noise, 20 to 0 decibels below the signal."""
    ratio = 10 ** (-(20, 15, 10, 5, 0)[severity - 1] / 20)
    return x + ratio * _loudness(x) * torch.randn(x.shape, generator=draw, dtype=x.dtype)


@corruption("gain", "sequence")
def gain(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the signals louder or softer, by 3 to 20 decibels either way."""
    factor = 10 ** ((3, 6, 9, 12, 20)[severity - 1] / 20)
    louder = torch.rand(len(x), generator=draw).reshape(-1, *[1] * (x.ndim - 1)) < 0.5
    return torch.where(louder, x * factor, x / factor)


@corruption("holes", "sequence")
def holes(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the signals with one stretch of silence each, 5 to 50 % of them."""
    time = 1 + max(range(x.ndim - 1), key=lambda dim: x.shape[dim + 1])
    length = x.shape[time]
    width = max(1, round((0.05, 0.1, 0.2, 0.3, 0.5)[severity - 1] * length))
    start = torch.randint(0, length - width + 1, (len(x),), generator=draw)
    at = torch.arange(length)
    silent = (at >= start[:, None]) & (at < start[:, None] + width)
    shape = [len(x), *[1] * (x.ndim - 1)]
    shape[time] = length
    return torch.where(silent.reshape(shape), torch.zeros((), dtype=x.dtype), x)
