"""For which inputs does a traced computation hold, and what does it say to others?

A trace shows one path. Where a length is built in, or a number that the model read out of a tensor, it is another function for
other inputs than the example. So it is compared with the model at other sizes of each dimension, also just beyond what the model
asked about its sizes, and refuses what it isn't right for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.core.errors import ModelError, ShapeError
from prunus.core.quiet import quiet
from prunus.core.runtime import seeded
from prunus.graph.axes import find
from prunus.graph.sizes import FollowedSizes
from prunus.graph.solve import Solver
from prunus.graph.states import as_it_was
from prunus.graph.trace import plain

__all__ = ["Limits", "Span", "find_spans", "same_read"]

Place = tuple[int, int]
"""An input and one of its dimensions."""


@dataclass(frozen=True)
class Span:
    """The sizes from ``least`` to ``most`` that a dimension may have; None is any above."""

    least: int
    most: int | None

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

    def check_sizes(self, given: Sequence[Tensor]) -> None:
        """Raise unless inputs have sizes that the computation holds for.

        Raises:
            ShapeError: it names the input, the dimension and what would fit.
        """
        for number, (tensor, spans) in enumerate(zip(given, self.spans, strict=False)):
            for dim, (size, span) in enumerate(zip(tensor.shape, spans, strict=False)):
                if size not in span:
                    raise ShapeError(
                        f"input {number} must have the size {span} in dimension {dim}: got {tuple(tensor.shape)}; "
                        f"this is a traced computation, which holds for {self}"
                    )

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


def same_read(now: Tensor, then: Tensor) -> bool:
    """Tell whether two values that were read are the same, up to rounding."""
    if now.shape != then.shape:
        return False
    if not now.is_floating_point():
        return torch.equal(now.cpu(), then.cpu())
    return torch.allclose(now.double().cpu(), then.double().cpu(), rtol=1e-5, atol=1e-12, equal_nan=True)


def _shown(value: Tensor) -> str:
    return f"{value.item():.6g}" if value.numel() == 1 else f"an array of the shape {tuple(value.shape)}"


def find_spans(
    model: nn.Module,
    graph: nn.Module,
    solver: Solver,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    followed: FollowedSizes | None,
) -> tuple[tuple[tuple[Span, ...], ...], bool]:
    """Return the sizes for which ``graph`` computes what ``model`` does, which it was traced from, and whether it erred anywhere.

    Dimensions that must be the same size vary together. A size that ``model`` itself doesn't take says nothing.
    """
    leaves, spec = pytree.tree_flatten((tuple(inputs), dict(kwargs)))
    at = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    spans = [[Span(size, size) for size in leaves[number].shape] for number in at]

    def agree(places: Sequence[Place], size: int) -> bool | None:
        others = list(leaves)
        for number, dim in places:
            others[at[number]] = _resized(others[at[number]], dim, size)
        given, named = pytree.tree_unflatten(others, spec)
        expected = _outputs(model, given, named)
        if expected is None:
            return None
        got = _outputs(graph, given, named)
        return got is not None and len(got) == len(expected) and all(map(_alike, expected, got))

    wrong = False
    for places in _together(solver, followed):
        example = spans[places[0][0]][places[0][1]].least
        tried = [(n, agree(places, n)) for n in _sizes_to_try(example, places, followed)]
        wrong = wrong or any(agrees is False for _, agrees in tried)
        found = _span(example, tried)
        for number, dim in places:
            spans[number][dim] = found
    return tuple(map(tuple, spans)), wrong


def _together(solver: Solver, followed: FollowedSizes | None) -> list[list[Place]]:
    """Return the dimensions of the inputs, those together that have one size."""
    found: dict[Any, list[Place]] = {}
    for number, axes in enumerate(solver.inputs):
        for dim, atom in enumerate(axes):
            symbol = None if followed is None else followed.symbol_of.get((number, dim))
            found.setdefault(find(atom) if symbol is None else symbol, []).append((number, dim))
    return list(found.values())


def _sizes_to_try(example: int, places: Sequence[Place], followed: FollowedSizes | None) -> list[int]:
    """Return other sizes: next to it, twice as many, half, one, and the first beyond each condition that the model asked about."""
    sizes = {example + 1, 2 * example, example - 1, -(-example // 2), 1}
    sizes |= set() if followed is None else set(followed.beyond(places, example))
    return sorted(size for size in sizes if size > 0 and size != example)


def _span(example: int, tried: Sequence[tuple[int, bool | None]]) -> Span:
    """Return the sizes around that of the example between those that are wrong; nothing else where none was right."""
    right = [size for size, agrees in tried if agrees]
    wrong = [size for size, agrees in tried if agrees is False]
    if not right:
        return Span(example, example)
    below = max((size for size in wrong if size < example), default=0)
    above = min((size for size in wrong if size > example), default=None)
    if not any(below < size < example for size in right):
        below = example - 1
    if not any(example < size and (above is None or size < above) for size in right):
        above = example + 1
    return Span(below + 1, None if above is None else above - 1)


def _resized(value: Tensor, dim: int, size: int) -> Tensor:
    return value.detach().index_select(dim, torch.arange(size, device=value.device) % value.shape[dim])


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or not one.is_floating_point():
        return one.shape == other.shape and torch.equal(one, other)
    scale = float(one.nan_to_num().abs().max()) if one.numel() else 0.0
    return torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-5 * max(scale, 1e-6), equal_nan=True)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor] | None:
    """Return the output tensors; None where the model doesn't run."""
    with as_it_was(model), seeded(0, "limits"), quiet(model):
        try:
            out = model.eval()(*inputs, **kwargs)
        except Exception:
            return None
    return [leaf for leaf in pytree.tree_leaves(plain(out)) if isinstance(leaf, Tensor)]
