"""How are the saliencies of different strata made comparable?

A normalization divides a stratum's saliencies by one positive number, so it never changes the order inside a stratum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prunus.core.code.registry import Registry
from prunus.core.types import Floats

__all__ = ["normalization", "normalizations"]

Normalization = Callable[[Floats], Floats]

normalizations: Registry[Normalization] = Registry("normalization")


def normalization(name: str) -> Callable[[Normalization], Normalization]:
    """Register a normalization, which also enrols it in the law tests."""
    return lambda function: normalizations.add(name, function)


@normalization("none")
def _as_it_is(saliency: Floats) -> Floats:
    """Return the saliencies unchanged."""
    return saliency


@normalization("mean")
def _by_mean(saliency: Floats) -> Floats:
    """Return the saliencies in units of their mean absolute value."""
    return _divided(saliency, np.abs(saliency).sum() / max(len(saliency), 1))


@normalization("max")
def _by_max(saliency: Floats) -> Floats:
    """Return the saliencies in units of their largest absolute value."""
    return _divided(saliency, np.abs(saliency).max(initial=0.0))


def _divided(saliency: Floats, scale: float) -> Floats:
    # A stratum of zeros, or one whose scale over- or underflows, has no scale to divide by.
    return saliency / scale if np.isfinite(scale) and scale > np.finfo(np.float64).tiny else saliency
