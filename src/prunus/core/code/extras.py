"""How is an optional package imported, and what does its absence say?

Some packages report to their makers when they are imported: OpenVINO and NNCF do, through a package of their maker's. They are
imported as if that one weren't there; then nothing leaves the machine.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from prunus.core.errors import MissingExtraError, raise_if_out_of_memory

__all__ = ["require"]

_REPORTING = {"openvino": "openvino_telemetry", "nncf": "openvino_telemetry"}
"""Which packages report, and through which other; they do without it where it isn't installed."""


def require(module: str, *, extra: str) -> Any:
    """Return the imported ``module``, or name the exact install command.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        with _without_reports(module):
            return importlib.import_module(module)
    except ImportError as error:
        raise_if_out_of_memory(error)
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed: pip install 'prunus[{extra}]'"
        ) from error


@contextlib.contextmanager
def _without_reports(module: str) -> Iterator[None]:
    """Let a package find nothing that it could report through."""
    reporter = _REPORTING.get(module.partition(".")[0])
    if reporter is None:
        yield
        return
    there = reporter in sys.modules
    before = sys.modules.get(reporter)
    sys.modules[reporter] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if there:
            sys.modules[reporter] = before  # type: ignore[assignment]
        else:
            del sys.modules[reporter]
