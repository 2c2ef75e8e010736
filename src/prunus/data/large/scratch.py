"""Where does an array lie that has a number for every example, when there are very many of them?

A small one lies in memory. A large one lies in a file that is mapped into memory and has no name any more: the system writes it out
where memory is short, and it goes with the process, whatever becomes of it. It is as large as what it is made for, so ``$TMPDIR``
says where it lies.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.files.plain_files import explain_os_error
from prunus.core.types import Ints

__all__ = ["SCRATCH_BYTES", "places_of", "scratch_array", "scratch_full", "scratch_take"]

_AT_ONCE = 1 << 16

SCRATCH_BYTES = 1 << 18
"""What is larger lies in a file."""


def scratch_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Return an array of zeros, in a file if it is large.

    Raises:
        OutputError: the file system has no room for it.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes <= SCRATCH_BYTES:
        return np.zeros(shape, dtype)
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk says so here, and would kill where it is mapped
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except OSError as error:
        raise explain_os_error(error, folder) from error


def scratch_take(values: Tensor, rows: Tensor) -> Tensor:
    """Return some rows of a tensor of numbers, in a file if they are many."""
    n_bytes = len(rows) * values.element_size()
    if n_bytes <= SCRATCH_BYTES or values.dim() != 1 or values.device.type != "cpu":
        return values[rows]
    found = torch.from_numpy(scratch_array((len(rows),), values.numpy().dtype))
    for start in range(0, len(rows), _AT_ONCE):
        torch.index_select(values, 0, rows[start : start + _AT_ONCE], out=found[start : start + _AT_ONCE])
    return found


def scratch_full(n: int, value: int, dtype: Any) -> np.ndarray[Any, Any]:
    """Return ``n`` times the same number, in a file if they are many."""
    found = scratch_array((n,), dtype)
    if value:
        found[:] = value
    return found


def places_of(values: np.ndarray[Any, Any], wanted: int) -> Ints:
    """Return where an array of numbers, or of truths, has one of them.

    >>> places_of(np.array([1, 0, 1]), 1).tolist()
    [0, 2]
    """
    parts = range(0, len(values), _AT_ONCE)
    n = sum(int(np.count_nonzero(values[start : start + _AT_ONCE] == wanted)) for start in parts)
    found, place = scratch_array((n,), np.int64), 0
    for start in parts:
        here = np.flatnonzero(values[start : start + _AT_ONCE] == wanted)
        found[place : place + len(here)] = here + start
        place += len(here)
    return found
