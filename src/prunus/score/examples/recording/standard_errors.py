"""How far may an example's score be from what trainings like this one give on average?

Of several trainings (other seeds), their scores are independent: the error of their mean is their deviation over the square root of
their number. Of one training nobody can see what another would have given. What can be seen is its course: epochs follow from each
other, so their number says nothing of how many independent looks they are. The error of their mean is therefore read off the two
slowest waves of the course (equal-weighted cosines), which hold slow changes and the learning itself; as an estimate from two
numbers it has two degrees of freedom, and an interval needs the quantiles of that t distribution (4.30 for 95 %, instead of 1.96).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["DEGREES_OF_FREEDOM", "error_of_deviation", "error_of_mean"]

DEGREES_OF_FREEDOM = 2
"""Of the error from a single training: so many waves are looked at."""


def error_of_mean(course: Tensor) -> Tensor:
    """Return the standard error of each column's mean over its course.

    Shapes:
        ``course`` ``(epochs, n)``, NaN where an epoch has no value; the result ``(n,)``, NaN of columns with fewer than three.
    References:
        Müller, JBES 2014 (cosine-weighted long-run variances); Lazarus, Lewis, Stock and Watson, JBES 2018,
        doi:10.1080/07350015.2018.1506926. Their rule takes more waves of long series; two cover slow courses, too.

    >>> error_of_mean(torch.tensor([[1.0], [1.0], [1.0], [1.0]])).tolist()
    [0.0]
    """
    course = course.double()
    there = ~course.isnan()
    counts = there.sum(dim=0)
    found = torch.full((course.shape[1],), torch.nan, dtype=torch.float64)
    for length in sorted(set(counts.tolist())):
        if length <= DEGREES_OF_FREEDOM:
            continue
        columns = counts == length
        # Epochs that are missing are left out: those around them are neighbours.
        own = course[:, columns].T[there[:, columns].T].reshape(-1, length)
        centred = own - own.mean(dim=1, keepdim=True)  # changes nothing but rounding: waves sum to zero
        found[columns] = (centred @ _waves(length)).square().mean(dim=1).div(length).sqrt()
    return found


def error_of_deviation(course: Tensor) -> Tensor:
    """Return the standard error of each column's deviation over its course: that of a mean, by the delta method.

    Shapes:
        As of :func:`error_of_mean`; 0 of a column that never moves.
    """
    course = course.double()
    square = (course - course.nanmean(dim=0)).square()
    deviation = square.nanmean(dim=0).sqrt()
    error = error_of_mean(square)
    return torch.where(deviation > 0, error / (2 * deviation), error)


@cache
def _waves(length: int) -> Tensor:
    """Return the slowest cosines over so many epochs, ``(epochs, waves)``, each of length 1."""
    middle = np.arange(length) + 0.5
    waves = np.cos(np.pi * np.outer(middle, np.arange(1, DEGREES_OF_FREEDOM + 1)) / length)
    return torch.from_numpy(waves * np.sqrt(2 / length))
