"""How is an optional package imported, and what does its absence say?"""

from __future__ import annotations

import importlib
from typing import Any

from prunus.core.errors import MissingExtraError, raise_if_out_of_memory

__all__ = ["require"]


def require(module: str, *, extra: str) -> Any:
    """Return the imported ``module``, or name the exact install command.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise_if_out_of_memory(error)
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed: pip install 'prunus[{extra}]'"
        ) from error
