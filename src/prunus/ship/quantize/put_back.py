"""Which layers stay in float, so that the others may be int8 and the promise holds?

Each layer is made int8 alone, and the outputs say how far that moves them; the costliest go back to float first, as many as it
takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from torch import Tensor

from prunus.ship.quantize.int8_runtime import F, Int8

__all__ = ["Chosen", "choose", "relative_error"]


@dataclass(frozen=True)
class Chosen(Generic[F]):
    """The file that was chosen: its layers in float, how far each layer alone moved the outputs, and how many files were tried."""

    file: F
    in_float: tuple[str, ...]
    errors: dict[str, float]
    n_tried: int


def choose(
    int8: Int8[F],
    answers: Callable[[F], Sequence[Tensor]],
    expected: Sequence[Tensor],
    keeps: Callable[[F], bool],
    *,
    always: Sequence[str] = (),
    tick: Callable[[int, int], None] | None = None,
) -> Chosen[F] | None:
    """Return the file with the fewest layers in float that keeps the promise, of those tried; None where none does.

    Nothing is measured layer by layer where all of them may be int8.

    Args:
        answers: what a file answers to the calibration examples.
        expected: what the float file does.
        keeps: whether a file keeps the promise on examples that choose.
        always: layers that stay in float in any case.
    """
    file = int8.of_all_but(always)
    if keeps(file):
        return Chosen(file, tuple(always), {}, 1)
    free = [layer for layer in int8.layers if layer not in always]
    errors: dict[str, float] = {}
    for number, layer in enumerate(free):
        errors[layer] = relative_error(expected, answers(int8.of_only(layer)))
        if tick is not None:
            tick(number + 1, len(free))
    worst = sorted(free, key=lambda layer: -errors[layer])
    n_tried, failed = 1, 0
    kept: tuple[int, F] | None = None
    step = 1
    while failed < len(worst) - 1:  # more and more, until it keeps; all of them would be the float file
        n_float = min(failed + step, len(worst) - 1)
        file = int8.of_all_but([*always, *worst[:n_float]])
        n_tried += 1
        if keeps(file):
            kept = n_float, file
            break
        failed, step = n_float, 2 * step
    while kept is not None and kept[0] - failed > 1:  # then as few as may be
        n_float = (kept[0] + failed) // 2
        file = int8.of_all_but([*always, *worst[:n_float]])
        n_tried += 1
        if keeps(file):
            kept = n_float, file
        else:
            failed = n_float
    if kept is None:
        return None
    return Chosen(kept[1], (*always, *worst[: kept[0]]), errors, n_tried)


def relative_error(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Return how far outputs are apart, as a share of their size: the norm of the difference over the norm.

    >>> import torch
    >>> relative_error([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 4.5])])
    0.1
    """
    apart = sum(float((one.double() - other.double()).square().sum()) for one, other in zip(expected, got, strict=True))
    size = sum(float(one.double().square().sum()) for one in expected)
    return float((apart / max(size, 1e-30)) ** 0.5)
