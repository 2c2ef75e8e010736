"""The command line: it parses, calls and prints. Exit codes are those of ``core.errors``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    try:
        from prunus.cli.app import invoke
    except MemoryError:
        sys.stderr.write("error: not enough memory to start: end what else uses memory\n")
        sys.exit(8)

    sys.exit(invoke(sys.argv[1:] if arguments is None else arguments))
