"""Which sizes of its inputs does a traced computation follow as the model does?

It is compared with the model at other sizes of each dimension, also just beyond what the model asked about its sizes. Where
something differs it holds no further; where the model itself stops, so does the search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from prunus.apply.traced.limits import BATCH, Span
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.quiet import quiet
from prunus.core.runtime import seeded
from prunus.core.structures.forms import tensors_of
from prunus.graph.solver.axes import find
from prunus.graph.solver.sizes import FollowedSizes
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.states import as_it_was

__all__ = ["Affordable", "Spans", "find_spans"]

Place = tuple[int, int]
"""An input and one of its dimensions."""

Spans = tuple[tuple[Span, ...], ...]
"""The sizes that every dimension of every input may have."""

Affordable = Callable[[Any, Sequence[Tensor]], bool | None]
"""Whether a traced computation may be run on inputs like these (on the meta device); None where its cost isn't known."""

_MOST_DOUBLINGS = 12
_FAR = 64
"""Beyond so many times the example's size a run is made only if it is known to be affordable."""


def find_spans(
    model: nn.Module,
    graph: nn.Module,
    solver: Solver,
    inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    followed: FollowedSizes | None,
    affordable: Affordable | None = None,
    batch_first: bool = False,
) -> tuple[Spans, bool]:
    """Return the sizes for which ``graph`` computes what ``model`` does, which it was traced from, and whether it erred anywhere.

    Dimensions that must be the same size vary together, and are called the same. A size that ``model`` itself doesn't take says
    nothing, if larger (or smaller) ones are right.

    Args:
        batch_first: whether the first dimensions of all inputs are one.
        affordable: where it is given, sizes are doubled as long as runs may be made, to find the largest that the model takes.
    """
    leaves, spec = pytree.tree_flatten((tuple(inputs), dict(kwargs)))
    at = [number for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    spans = [[Span(size, size) for size in leaves[number].shape] for number in at]

    def agree(sizes: Mapping[Place, int]) -> bool | None:
        others = list(leaves)
        for (number, dim), size in sizes.items():
            others[at[number]] = _resized(others[at[number]], dim, size)
        given, named = pytree.tree_unflatten(others, spec)
        expected = _outputs(model, given, named)
        if expected is None:
            return None
        got = _outputs(graph, given, named)
        return got is not None and len(got) == len(expected) and all(map(_alike, expected, got))

    def may_run(sizes: Mapping[Place, int]) -> bool | None:
        if affordable is None:
            return False
        shapes = [list(leaves[number].shape) for number in at]
        for (number, dim), size in sizes.items():
            shapes[number][dim] = size
        return affordable(
            graph, [torch.empty(s, dtype=leaves[n].dtype, device="meta") for s, n in zip(shapes, at, strict=True)]
        )

    def search(places: Sequence[Place], example: int, tried: dict[int, bool | None]) -> None:
        """Try until it is known where the sizes begin and end that the model takes."""
        for _ in range(_MOST_DOUBLINGS):
            largest = max(tried)
            if not tried[largest] or largest < example:
                break
            allowed = may_run(dict.fromkeys(places, 2 * largest))
            if allowed is False:
                break
            tried[2 * largest] = agree(dict.fromkeys(places, 2 * largest))
            if allowed is None:
                break  # once only: nobody knows what twice as much would cost
        right = [example, *(size for size, agrees in tried.items() if agrees)]
        for inside, beyond in (
            (max(right), min((size for size in tried if size > max(right)), default=None)),
            (min(right), max((size for size in tried if size < min(right)), default=None)),
        ):
            while beyond is not None and abs(beyond - inside) > 1:
                middle = (inside + beyond) // 2
                tried[middle] = agree(dict.fromkeys(places, middle))
                inside, beyond = (middle, beyond) if tried[middle] else (inside, middle)

    wrong = False
    elsewhere: dict[Place, int] = {}
    stuck: dict[int, list[Place]] = {}

    def settle(places: Sequence[Place], name: str) -> None:
        """Find the span of dimensions that vary together."""
        nonlocal wrong
        example = leaves[at[places[0][0]]].shape[places[0][1]]
        tried = {
            n: agree(dict.fromkeys(places, n))
            for n in _sizes_to_try(example, places, followed)
            if n < _FAR * example + _FAR or may_run(dict.fromkeys(places, n)) is not False
        }
        if tried.get(1) and example > 2 and not any(right for n, right in tried.items() if 1 < n < example):
            tried[1] = None  # one is taken for any number of them, and isn't a size that the model takes
        if any(tried.values()) and name != BATCH:
            search(places, example, tried)
        wrong = wrong or False in tried.values()
        found = _span(example, tried, name)
        for number, dim in places:
            spans[number][dim] = found
        if found.name:
            near = min((n for n, right in tried.items() if right and n in found), key=lambda n: (abs(n - example), n))
            elsewhere.update(dict.fromkeys(places, near))
        elif set(tried.values()) == {None}:
            stuck.setdefault(example, []).extend(places)

    groups = _together(solver, followed, batch_first=batch_first)
    for number, places in enumerate(groups):
        settle(places, BATCH if (0, 0) in places else f"size_{number}")
    for number, places in enumerate([*stuck.values()]):  # what the model takes only if they are the same
        if len(places) > 1:
            settle(places, f"size_{len(groups) + number}")
    if agree(elsewhere) is False:  # each for itself is right, all at once they aren't
        wrong = True
        spans = [
            [s if s.name in ("", BATCH) else Span(n, n) for s, n in zip(own, leaves[number].shape, strict=True)]
            for own, number in zip(spans, at, strict=True)
        ]
    return tuple(map(tuple, spans)), wrong


def _together(solver: Solver, followed: FollowedSizes | None, *, batch_first: bool) -> list[list[Place]]:
    """Return the dimensions of the inputs, those together that have one size."""
    found: dict[Any, list[Place]] = {}
    for number, axes in enumerate(solver.inputs):
        for dim, atom in enumerate(axes):
            place = (0 if batch_first and dim == 0 else number, dim)
            symbol = None if followed is None else followed.symbol_of.get(place)
            key = find(solver.inputs[0][0] if place == (0, 0) else atom) if symbol is None else symbol
            found.setdefault(key, []).append((number, dim))
    return list(found.values())


def _sizes_to_try(example: int, places: Sequence[Place], followed: FollowedSizes | None) -> list[int]:
    """Return other sizes: next to it, twice as many, half, one, and the first beyond each condition that the model asked about."""
    sizes = {example + 1, 2 * example, example - 1, -(-example // 2), 1}
    sizes |= set() if followed is None else set(followed.beyond(places, example))
    return sorted(size for size in sizes if size > 0 and size != example)


def _span(example: int, tried: Mapping[int, bool | None], name: str) -> Span:
    """Return the sizes around that of the example up to those that are wrong or that the model stops at; else nothing but it."""
    right = [size for size, agrees in tried.items() if agrees]
    if not right:
        return Span(example, example)
    low, high = min([example, *right]), max([example, *right])
    ends = [size for size, agrees in tried.items() if agrees is False or (agrees is None and not low <= size <= high)]
    below = max((size for size in ends if size < example), default=0)
    above = min((size for size in ends if size > example), default=None)
    if not any(below < size < example for size in right):
        below = example - 1
    if not any(example < size and (above is None or size < above) for size in right):
        above = example + 1
    if (below + 1, above) == (example, example + 1):
        return Span(example, example)
    return Span(below + 1, None if above is None else above - 1, name)


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
        except Exception as error:
            raise_if_out_of_memory(error)
            return None
    return tensors_of(out)
