"""How do rows of a table get worse: values that are missing, noise, columns that got mixed up? Rows are ``(n, features)``."""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.evaluate.robustness.corruptions.corruption import InputFacts, corruption

__all__: list[str] = []


@corruption("missing", "table")
def missing(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the rows with some values replaced by the feature's mean, as a missing one is."""
    share = (0.05, 0.1, 0.2, 0.3, 0.5)[severity - 1]
    return torch.where(torch.rand(x.shape, generator=draw) < share, facts.mean.to(x.dtype), x)


@corruption("feature_noise", "table")
def feature_noise(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the rows with normal noise on each feature of more than two values, a share of its own deviation."""
    share = (0.1, 0.2, 0.4, 0.6, 1.0)[severity - 1]
    noise = share * facts.deviation * torch.randn(x.shape, generator=draw, dtype=x.dtype)
    return torch.where(facts.graded, x + noise, x)


@corruption("shuffled_columns", "table")
def shuffled_columns(x: Tensor, severity: int, draw: torch.Generator, facts: InputFacts) -> Tensor:
    """Return the rows with some columns dealt anew among the rows."""
    n_columns = max(1, round((0.0, 0.1, 0.2, 0.3, 0.5)[severity - 1] * x.shape[1]))
    chosen = torch.randperm(x.shape[1], generator=draw)[:n_columns]
    shuffled = x.clone()
    for column in chosen.tolist():
        shuffled[:, column] = x[torch.randperm(len(x), generator=draw), column]
    return shuffled
