"""How do texts get worse: tokens that are lost, swapped with a neighbour, or replaced? Rows of numbers, ``(n, tokens)``."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.evaluate.robustness.corruptions.corruption import InputFacts, corruption

__all__: list[str] = []

_SHARES = (0.05, 0.1, 0.15, 0.2, 0.3)


def _chosen(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    return (torch.rand(x.shape, generator=draw) < _SHARES[severity - 1]) & (x != facts.padding)


@corruption("token_drop", "tokens", keeps_places=False)
def token_drop(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the rows without some of their tokens; what follows moves up, and padding fills the end."""
    gone = _chosen(x, severity, draw, facts)
    order = torch.argsort(gone.long(), dim=1, stable=True)
    return torch.where(gone, facts.padding, x).gather(1, order)


@corruption("token_swap", "tokens", keeps_places=False)
def token_swap(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the rows with some tokens and their right neighbours in each other's place."""
    chosen = _chosen(x, severity, draw, facts)
    chosen[:, 1:] &= x[:, 1:] != facts.padding
    swapped = x.clone()
    taken = torch.zeros(len(x), dtype=torch.bool)
    for place in range(x.shape[1] - 1):
        now = chosen[:, place] & ~taken & (x[:, place + 1] != facts.padding)
        swapped[now, place], swapped[now, place + 1] = x[now, place + 1], x[now, place]
        taken = now
    return swapped


@corruption("token_replace", "tokens")
def token_replace(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the rows with some tokens replaced by others, drawn as often as the data have them."""
    assert facts.tokens is not None
    chosen = _chosen(x, severity, draw, facts)
    other = torch.multinomial(facts.tokens, x.numel(), replacement=True, generator=draw).reshape(x.shape)
    return torch.where(chosen, other.to(x.dtype), x)
