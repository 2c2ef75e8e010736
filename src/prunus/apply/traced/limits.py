"""For which inputs does a traced computation hold, and what does it say to others?

A trace shows one path. Where a length is built in, or a number that the model read out of a tensor, it is another function for
other inputs than the example. So it is compared with the model (:mod:`prunus.apply.traced.spans`) and refuses what it isn't right
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunus.core.errors import ModelError, ShapeError

__all__ = ["BATCH", "Limits", "Span", "misfit", "same_read"]

BATCH = "batch"
"""What the first dimension of every input is called."""


@dataclass(frozen=True)
class Span:
    """The sizes from ``least`` to ``most`` that a dimension may have; None is any above.

    Dimensions of one ``name`` have one size.
    """

    least: int
    most: int | None
    name: str = ""

    def __contains__(self, size: int) -> bool:
        return self.least <= size and (self.most is None or size <= self.most)

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.least)
        if self.most is None:
            return "any" if self.least == 1 else f"{self.least} or more"
        return f"{self.least} to {self.most}"


@dataclass(frozen=True)
class Limits:
    """The sizes of every input, and the numbers that the model read out of tensors on the way, which must come out again."""

    spans: tuple[tuple[Span, ...], ...]
    read: tuple[Tensor, ...] = ()

    def __str__(self) -> str:
        shapes = ", ".join(f"({', '.join(map(str, spans))})" for spans in self.spans)
        values = ", and for those that give the numbers that the model read while it was traced" if self.read else ""
        return f"inputs of the shape {shapes}{values}"

    def check_sizes(self, given: Sequence[Tensor], names: Sequence[str] = ()) -> None:
        """Raise unless inputs have sizes that the computation holds for.

        Raises:
            ShapeError: it names the input, the dimension and what would fit.
        """
        if problem := misfit(given, self.spans, names):
            raise ShapeError(f"{problem}; this is a traced computation, which holds for {self}")

    def check_read(self, read: Sequence[Tensor]) -> None:
        """Raise unless the numbers are those that are built in.

        Raises:
            ModelError: the inputs are others than those that were traced.
        """
        for now, then in zip(read, self.read, strict=True):
            if not same_read(now, then):
                raise ModelError(
                    "these inputs give other numbers where the model read them out of a tensor "
                    f"({_shown(then)} is built in, got {_shown(now)}): this is a traced computation, which holds for {self}"
                )


def misfit(given: Sequence[Tensor], spans: Sequence[Sequence[Span]], names: Sequence[str] = ()) -> str:
    """Return which dimension of which input has a size that it can't have, and what would fit; empty where all do."""
    sizes: dict[str, tuple[int, str]] = {}
    for number, (tensor, allowed) in enumerate(zip(given, spans, strict=False)):
        which = f"input {names[number]!r}" if names else f"input {number}"
        if tensor.dim() != len(allowed):
            return f"{which} must have {len(allowed)} dimensions: got {tuple(tensor.shape)}"
        for dim, (size, span) in enumerate(zip(tensor.shape, allowed, strict=True)):
            if size not in span:
                wanted = "1 or more" if span.most is None and span.least == 1 else str(span)
                return f"{which} must have the size {wanted} in dimension {dim}: got {tuple(tensor.shape)}"
            first, of = sizes.setdefault(span.name, (size, which)) if span.name else (size, which)
            if size != first:
                return f"{which} must have the size {first} in dimension {dim}, as {of} has: got {tuple(tensor.shape)}"
    return ""


def same_read(now: Tensor, then: Tensor) -> bool:
    """Tell whether two values that were read are the same, up to rounding."""
    if now.shape != then.shape:
        return False
    if not now.is_floating_point():
        return torch.equal(now.cpu(), then.cpu())
    return torch.allclose(now.double().cpu(), then.double().cpu(), rtol=1e-5, atol=1e-12, equal_nan=True)


def _shown(value: Tensor) -> str:
    return f"{value.item():.6g}" if value.numel() == 1 else f"an array of the shape {tuple(value.shape)}"
