"""What does an example look like as one row of numbers, so that likeness can be measured without a model?

Rows are deviations from the mean example: pictures that share a background aren't alike for that. Features of a table are divided
by their deviation, since their units are unlike; pixels and samples of a signal keep theirs. Where there are many, they are
projected on random directions, which keeps the cosine of near rows to within about 0.003 at 0.99.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunus.core.calls import described
from prunus.core.errors import DataError
from prunus.core.runtime import generator

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["check_flat", "flat_inputs"]

_WIDEST = 256
"""More features than this are projected on so many directions."""


def flat_inputs(examples: Examples, *others: Examples, batch_size: int = 512) -> Tensor:
    """Return one row per example, those of ``others`` after them, measured by the mean and deviations of the first set.

    Shapes:
        ``(n, features)``, float32 on the CPU, at most 256 features.
    Raises:
        DataError: inputs that aren't one tensor of numbers, or differ from epoch to epoch.
    References:
        Johnson and Lindenstrauss, 1984; the error of a cosine c between rows falls as (1 - c²) / 16.
    """
    for part in (examples, *others):
        check_flat(part)
    mean, deviation = _statistics(examples, batch_size)
    project = None
    if len(mean) > _WIDEST:
        drawn = torch.randn(len(mean), _WIDEST, generator=generator(0, "flat_inputs", str(len(mean))))
        project = drawn / _WIDEST**0.5
    found = torch.empty(len(examples) + sum(map(len, others)), min(len(mean), _WIDEST))
    start = 0
    for part in (examples, *others):
        for rows in _batches(part, batch_size):
            flat = ((rows.double() - mean) / deviation).float()
            found[start : start + len(flat)] = flat if project is None else flat @ project
            start += len(flat)
    return found


def check_flat(examples: Examples) -> None:
    """See that likeness of inputs can be measured, by what is known of the set and by its first example.

    Raises:
        DataError: it can't.
    """
    if not examples.fixed:
        raise DataError(
            "examples.duplicates: the inputs are drawn anew in each epoch, so which are alike isn't known; give them without "
            "the augmentation, or use space: embedding"
        )
    next(_batches(examples, 1))


def _statistics(examples: Examples, batch_size: int) -> tuple[Tensor, Tensor]:
    """Return the mean and the deviation of each feature; of pixels and signals only the mean is taken away."""
    n = 0
    mean = squares = torch.zeros((), dtype=torch.float64)
    for rows in _batches(examples, batch_size):
        part = rows.double()
        before, n = n, n + len(part)
        delta = part.mean(dim=0) - mean
        # Chan et al.'s merge of two means and sums of squares: no large numbers are subtracted from each other.
        mean = mean + delta * (len(part) / n)
        squares = squares + part.var(dim=0, correction=0) * len(part) + delta.square() * (before * len(part) / n)
    deviation = (squares / max(n, 1)).sqrt()
    table = len(examples.input_shape) == 1
    return mean, torch.where(deviation > 0, deviation, 1.0) if table else torch.ones_like(deviation)


def _batches(examples: Examples, batch_size: int) -> Iterator[Tensor]:
    for batch in examples.batches(batch_size):
        inputs = batch.inputs
        if not isinstance(inputs, Tensor) or not (inputs.is_floating_point() or inputs.dtype == torch.uint8):
            raise DataError(
                f"examples.duplicates: likeness of inputs is measured of one tensor of numbers: got {described(inputs)}; use "
                "space: tokens for token ids, or space: embedding"
            )
        yield inputs.detach().reshape(len(batch.index), -1).cpu()
