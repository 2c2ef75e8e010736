"""How does each example's loss change along one direction of the weights, and which direction lowers a loss that the model bends?

The derivative of every loss along a direction is one pass in forward mode: no gradient of an example is written out or kept. The
direction itself is the target's gradient, or that gradient divided by the curvature of the training loss, by conjugate gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.core.batch import Batch, Batched
from prunus.core.calls import arguments
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.runtime import generator
from prunus.score.influence.layer_gradients import checked_losses
from prunus.tasks import Task

__all__ = ["Direction", "Solved", "along", "mean_gradient", "sample", "solve_curvature"]

Direction = dict[str, Tensor]
"""One number for each weight of some parameters, by their names."""

_MOST_STEPS = 100
_N_DRAWS = 4


@dataclass(frozen=True)
class Solved:
    """A direction, what of the gradient is left unexplained by it (a share), and what was added to the curvature."""

    direction: Direction
    residual: float
    damping: float


def mean_gradient(model: nn.Module, weights: Mapping[str, Tensor], batches: Sequence[Batch], task: Task) -> Direction:
    """Return the gradient of the mean loss of all examples in some batches."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    n = 0
    for batch in batches:
        with torch.enable_grad():
            losses = checked_losses(task, _answer(model, leaves, batch), batch)
        found = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        for name, value in zip(leaves, found, strict=True):
            if value is not None:
                total[name] += value
        n += len(batch.index)
    return {name: value / n for name, value in total.items()}


def along(model: nn.Module, direction: Direction, weights: Mapping[str, Tensor], batch: Batch, task: Task) -> Tensor:
    """Return the derivative of each example's loss along a direction, ``(n,)``: its gradient's inner product with it."""
    try:
        return _forward(lambda moving: checked_losses(task, _answer(model, moving, batch), batch), direction, weights)
    except (RuntimeError, NotImplementedError) as error:
        raise_if_out_of_memory(error)
        # An operation without a derivative in forward mode: the gradient of a weighted sum is linear in the weights, and its
        # inner product with the direction has the wanted derivatives as its own gradient.
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            losses = checked_losses(task, _answer(model, leaves, batch), batch)
            shares = torch.ones_like(losses, requires_grad=True)
            found = torch.autograd.grad(
                (losses * shares).sum(), list(leaves.values()), create_graph=True, allow_unused=True
            )
            moved = [
                (value * direction[name]).sum() for name, value in zip(leaves, found, strict=True) if value is not None
            ]
            if not moved:
                return torch.zeros_like(losses)
            (result,) = torch.autograd.grad(torch.stack(moved).sum(), shares)
        return result


def solve_curvature(
    model: nn.Module,
    gradient: Direction,
    weights: Mapping[str, Tensor],
    batches: Sequence[Batch],
    task: Task,
    *,
    damping: float,
    tolerance: float,
    seed: int,
) -> Solved:
    """Return the direction that the damped curvature of the mean loss over some batches maps to ``gradient``.

    The curvature is the Gauss-Newton matrix, which of models that are linear in their weights is the Hessian; where the answer is
    no single tensor, the mean of the gradients' outer products. It is never written out: a step costs two passes over the batches.

    Args:
        damping: the share of the curvature's mean diagonal that is added to it.
        tolerance: stop where what is left is this share of the gradient.
    """
    n = sum(len(batch.index) for batch in batches)

    def bend(direction: Direction) -> Direction:
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for batch in batches:
            for name, value in _curved(model, direction, weights, batch, task).items():
                total[name] += value / n
        return total

    added = damping * _mean_diagonal(bend, weights, seed)
    solution = {name: torch.zeros_like(value) for name, value in weights.items()}
    left = dict(gradient)
    step = dict(left)
    square = _dot(left, left)
    first = square
    for _ in range(_MOST_STEPS):
        if square <= tolerance**2 * first or square == 0:
            break
        bent = _plus(bend(step), step, added)
        bend_of_step = _dot(step, bent)
        if bend_of_step <= 0:
            break  # a loss that isn't convex in the outputs: what was found so far stands
        rate = square / bend_of_step
        solution, left = _plus(solution, step, rate), _plus(left, bent, -rate)
        before, square = square, _dot(left, left)
        step = _plus(left, step, square / before)
    return Solved(solution, (square / first) ** 0.5 if first else 0.0, added)


def sample(examples: Batched, n: int, batch_size: int, seed: int) -> list[Batch]:
    """Return batches of ``n`` random examples, or of all where there are no more."""
    found, drawn = [], 0
    for batch in examples.batches(
        min(batch_size, n), generator(seed, "influence", "sample") if n < len(examples) else None
    ):
        found.append(batch)
        drawn += len(batch.index)
        if drawn >= n:
            break
    return found


def _curved(
    model: nn.Module, direction: Direction, weights: Mapping[str, Tensor], batch: Batch, task: Task
) -> Direction:
    """Return the sum over a batch of each example's curvature times a direction."""
    leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
    with torch.enable_grad():
        outputs = _answer(model, leaves, batch)
        if isinstance(outputs, Tensor):
            moved = _moved_outputs(model, direction, weights, batch, outputs, leaves)
            leaf = outputs.detach().requires_grad_()
            (slope,) = torch.autograd.grad(checked_losses(task, leaf, batch).sum(), leaf, create_graph=True)
            if not slope.requires_grad:  # the loss is linear in the outputs
                return {}
            (bent,) = torch.autograd.grad((slope * moved).sum(), leaf)
            pulled = torch.autograd.grad(outputs, list(leaves.values()), bent, allow_unused=True)
        else:
            losses = checked_losses(task, outputs, batch)
            moved = along(model, direction, weights, batch, task)
            pulled = torch.autograd.grad(losses, list(leaves.values()), moved, allow_unused=True)
    return {name: value for name, value in zip(leaves, pulled, strict=True) if value is not None}


def _moved_outputs(
    model: nn.Module,
    direction: Direction,
    weights: Mapping[str, Tensor],
    batch: Batch,
    outputs: Tensor,
    leaves: Mapping[str, Tensor],
) -> Tensor:
    """Return the derivative of the outputs along a direction."""
    try:
        return _forward(lambda moving: _answer(model, moving, batch), direction, weights)
    except (RuntimeError, NotImplementedError) as error:
        raise_if_out_of_memory(error)
        shares = torch.zeros_like(outputs, requires_grad=True)
        found = torch.autograd.grad(outputs, list(leaves.values()), shares, create_graph=True, allow_unused=True)
        moved = [
            (value * direction[name]).sum() for name, value in zip(leaves, found, strict=True) if value is not None
        ]
        return torch.autograd.grad(torch.stack(moved).sum(), shares)[0]


def _forward(function: Callable[[Direction], Tensor], direction: Direction, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the derivative of a function of the weights along a direction, in forward mode."""
    with warnings.catch_warnings(), torch.no_grad(), forward.dual_level(), sdpa_kernel(SDPBackend.MATH):
        # torch compiles its own derivatives when the first is asked for, by a way that it calls deprecated.
        warnings.filterwarnings("ignore", message="`torch.jit")  # a DeprecationWarning, later a FutureWarning
        moving: Direction = {
            name: forward.make_dual(value, direction[name])  # type: ignore[no-untyped-call]
            for name, value in weights.items()
        }
        found: tuple[Tensor, Tensor | None] = forward.unpack_dual(function(moving))  # type: ignore[no-untyped-call]
        value, tangent = found
        return torch.zeros_like(value) if tangent is None else tangent


def _answer(model: nn.Module, weights: Mapping[str, Tensor], batch: Batch) -> Any:
    given, named = arguments(batch.inputs)
    return functional_call(model, dict(weights), given, named)


def _mean_diagonal(bend: Callable[[Direction], Direction], weights: Mapping[str, Tensor], seed: int) -> float:
    """Return the mean of a matrix's diagonal, estimated with random signs."""
    draw = generator(seed, "influence", "diagonal")
    found = 0.0
    for _ in range(_N_DRAWS):
        signs = {
            name: (torch.randint(0, 2, value.shape, generator=draw) * 2 - 1).to(value)
            for name, value in weights.items()
        }
        found += _dot(signs, bend(signs)) / _N_DRAWS
    return max(found, 0.0) / max(sum(value.numel() for value in weights.values()), 1)


def _dot(first: Direction, second: Direction) -> float:
    return float(sum((value.double() * second[name].double()).sum() for name, value in first.items()))


def _plus(first: Direction, second: Direction, rate: float) -> Direction:
    return {name: value + rate * second[name] for name, value in first.items()}
