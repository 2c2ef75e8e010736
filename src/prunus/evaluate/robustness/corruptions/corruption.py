"""What is a corruption: a way in which an input gets worse, in five steps, drawn so that the same seed gives the same inputs?

A corruption takes inputs as the data have them, before any scaling, and what is known of their range. Severities are those of
ImageNet-C where it has the corruption (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261); none needs data or a package of
its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "InputFacts", "Kind", "corruption"]

Kind = Literal["image", "table", "tokens", "sequence"]
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class InputFacts:
    """What is known of inputs, from examples: the range of an image's or a sequence's numbers, or of each feature of a table.

    ``mean`` and ``deviation`` are of each feature (of all numbers where there are none), ``graded`` which features have more
    than two values; ``padding`` is the token that fills rows, and ``tokens`` how often each occurs.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor
    graded: Tensor
    padding: int = 0
    tokens: Tensor | None = None

    @property
    def span(self) -> Tensor:
        """How far the range reaches, 1 where it doesn't."""
        reach = self.high - self.low
        return torch.where(reach > 0, reach, torch.ones_like(reach))


Function = Callable[[Tensor, int, torch.Generator, InputFacts], Tensor]


@dataclass(frozen=True)
class Corruption:
    """One way in which inputs of a kind get worse; ``keeps_places``: what stands at a place still stands there."""

    name: str
    kind: Kind
    function: Function
    says: str
    keeps_places: bool = True


CORRUPTIONS: dict[Kind, dict[str, Corruption]] = {"image": {}, "table": {}, "tokens": {}, "sequence": {}}


def corruption(name: str, kind: Kind, *, keeps_places: bool = True) -> Callable[[Function], Function]:
    """Register a function; the first line of its docstring says what it does."""

    def register(function: Function) -> Function:
        says = (function.__doc__ or "").strip().partition("\n")[0].removeprefix("Return ").rstrip(".")
        CORRUPTIONS[kind][name] = Corruption(name, kind, function, says, keeps_places)
        return function

    return register
