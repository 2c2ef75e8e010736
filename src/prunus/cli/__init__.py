"""The command line: it parses, calls and prints. Exit codes are those of ``core.errors``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    from prunus.cli.app import invoke

    sys.exit(invoke(sys.argv[1:] if arguments is None else arguments))
