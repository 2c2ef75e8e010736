"""How is a matrix read that no memory holds? Mapped, as it lies in its ``.npy`` file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.core.code.imports import one_line
from prunus.core.errors import DataError

__all__ = ["mapped_matrix"]


def mapped_matrix(path: Path) -> npt.NDArray[Any]:
    """Return the matrix ``(rows, features)`` in a ``.npy`` file, mapped into memory; what is written to it stays there.

    Raises:
        DataError: it is none.
    """
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: no matrix can be read from it: {one_line(error)}; save one with numpy.save"
        ) from error
    if found.ndim != 2 or found.dtype.kind != "f":
        raise DataError(
            f"{path}: expected a matrix (rows, features) of numbers with a point: got {found.dtype} of shape {found.shape}"
        )
    return found
