"""How is an optional package imported, and what does its absence say?

Some packages report to their makers when they are imported: OpenVINO and NNCF do, through a package of their maker's. They are
imported as if that one weren't there; then nothing leaves the machine.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from prunus.core.errors import MissingExtraError, raise_if_out_of_memory

__all__ = ["check_there", "require"]

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
        raise _missing(package, extra, "this") from error


def check_there(packages: Iterable[str], *, extra: str, what: str = "this") -> None:
    """Raise unless all of the packages are installed; nothing is imported.

    Args:
        what: is said to need them.

    Raises:
        MissingExtraError: one isn't there; it names the install command.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _missing(package, extra, what)


def _missing(package: str, extra: str, what: str) -> MissingExtraError:
    return MissingExtraError(
        f"{what} needs the package {package!r}, which is not installed: pip install 'prunus[{extra}]'"
    )


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
