"""How do commands show what they do and what came of it: progress, notes, a run's record?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from prunus.core.text import plain

if TYPE_CHECKING:
    from prunus.cli.progress import Display

__all__ = ["display", "plain_value", "print_record", "results", "say_note"]


@contextmanager
def display(quiet: bool) -> Iterator[Display]:
    """Show progress on standard error for a block, unless it is to be quiet."""
    from prunus.cli.progress import Display

    with Display(Console(stderr=True, soft_wrap=True), quiet=quiet) as shown:
        yield shown


def print_record(record: Any, folder: Path, as_json: bool) -> None:
    """Print what a run found, and where it lies."""
    from prunus.report import print_summary, record_json

    if as_json:
        typer.echo(record_json(record), nl=False)
    else:
        print_summary(record, results())
        made = f" (seed {record.seeds[0]} of {', '.join(map(str, record.seeds))})" if len(record.seeds) > 1 else ""
        typer.echo(f"report {folder / 'report.html'}  ·  bundle {folder / 'bundle'}{made}  ·  plan {folder / 'plan'}")


def say_note(text: str) -> None:
    """Say on standard error what whoever reads a result should know."""
    typer.echo(f"note: {plain(text)}", err=True)


def plain_value(value: Any) -> Any:
    """Return what JSON has no form for as one that it has."""
    return value.to_dict() if hasattr(value, "to_dict") else str(value)


def results() -> Console:
    """Return where results go; a pipe has no width of its own, so it gets one that holds the tables."""
    return Console() if sys.stdout.isatty() else Console(width=132)
