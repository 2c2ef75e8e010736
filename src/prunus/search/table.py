"""What are the objectives of trials as numbers that are all to be low?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prunus.core.types import Floats

__all__ = ["objectives_of"]


def objectives_of(results: Sequence[Mapping[str, Any]], objectives: Sequence[str], higher: bool) -> Floats:
    """Return ``(trials, objectives)``; a quality that is better when higher is taken negative."""
    sign = -1.0 if higher else 1.0
    rows = [
        [sign * found["quality"] if name == "quality" else found["shares"][name] for name in objectives]
        for found in results
    ]
    return np.array(rows, np.float64).reshape(len(rows), len(objectives))
