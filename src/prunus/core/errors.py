"""What can go wrong, and which exit code says so?

Every message is one line: what is wrong, where, what was expected, ``got ...``, and what to do. The tree::

    PrunusError                         1
    ├── RecipeError    (ValueError)     3   a recipe, an override or an argument
    │   └── UnknownNameError (LookupError)
    ├── DataError      (ValueError)     4   a data set, a label, a split
    ├── ModelError     (ValueError)     5   a model, its weights, its outputs
    │   ├── ShapeError
    │   └── WeightsError
    ├── PlanError      (ValueError)     6   a plan or a bundle that can't be read or doesn't fit
    │   └── BundleError
    ├── OutputError    (OSError)        7   the output can't be written: disk full, folder in use
    ├── RunError       (RuntimeError)   8   the run itself failed: training diverged, nothing left to keep
    │   └── NotFiniteError
    └── MissingExtraError (ImportError) 9   an optional package is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "BundleError",
    "DataError",
    "MissingExtraError",
    "ModelError",
    "NotFiniteError",
    "OutputError",
    "PlanError",
    "PrunusError",
    "RecipeError",
    "RunError",
    "ShapeError",
    "UnknownNameError",
    "WeightsError",
    "near",
    "out_of_memory",
    "raise_if_out_of_memory",
]


class PrunusError(Exception):
    """The root: catch this to catch everything that prunus raises on purpose."""

    exit_code: ClassVar[int] = 1


class RecipeError(PrunusError, ValueError):
    """A recipe, an override or an argument is wrong."""

    exit_code = 3


class UnknownNameError(RecipeError, LookupError):
    """A name is not in its registry; the message lists the near ones."""


class DataError(PrunusError, ValueError):
    """A data set can't be read or can't be used."""

    exit_code = 4


class ModelError(PrunusError, ValueError):
    """A model can't be built, traced, or doesn't fit its data."""

    exit_code = 5


class ShapeError(ModelError):
    """A tensor has another shape than the one that is needed."""


class WeightsError(ModelError):
    """A weight file can't be read safely or doesn't fit the model."""


class PlanError(PrunusError, ValueError):
    """A plan can't be read, or was made for another model or data set."""

    exit_code = 6


class BundleError(PlanError):
    """A bundle is damaged, incomplete, or needs code that wasn't trusted."""


class OutputError(PrunusError, OSError):
    """The output can't be written; nothing half-written was left behind."""

    exit_code = 7


class RunError(PrunusError, RuntimeError):
    """The run itself failed after its inputs were found good."""

    exit_code = 8


class NotFiniteError(RunError):
    """A model's answer is NaN or infinite."""


class MissingExtraError(PrunusError, ImportError):
    """An optional package is missing; the message holds the install command."""

    exit_code = 9


def near(name: str, names: Iterable[str]) -> str:
    """Return a hint that names what ``name`` may have meant, or lists everything.

    >>> near("magnitud", ["magnitude", "taylor"])
    "did you mean 'magnitude'?"
    >>> near("x", ["b", "a"])
    'choose one of: a, b'
    """
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"


_LACKS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "failed to map segment",
    "could not create a primitive",
    "could not execute a primitive",
    "error return without exception set",
)
"""What it is called where it is no ``MemoryError``: by torch, the system, the loader, oneDNN, and C code without a message."""


def out_of_memory(error: BaseException) -> BaseException | None:
    """Return what says that there wasn't enough memory: ``error`` itself, or what it came from.

    >>> out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate ..."))
    RuntimeError('CUDA out of memory. Tried to allocate ...')
    """
    found: BaseException | None = error
    seen: list[BaseException] = []
    while found is not None and found not in seen:
        seen.append(found)
        words = str(found).lower() if isinstance(found, (RuntimeError, OSError, ImportError, SystemError)) else ""
        if isinstance(found, MemoryError) or any(lack in words for lack in _LACKS):
            return found
        found = found.__cause__ if found.__cause__ is not None or found.__suppress_context__ else found.__context__
    return None


def raise_if_out_of_memory(error: BaseException) -> None:
    """Raise ``error`` again if there wasn't enough memory: then a trial that failed says nothing of what was tried."""
    if out_of_memory(error) is not None:
        raise error
