"""How does a table look on a terminal, whatever its cells hold?"""

from __future__ import annotations

import unicodedata

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["add_row", "plain_cell", "plain_table", "show_table"]


def plain_table(title: str, *columns: str, left: int = 1) -> Table:
    """Return an empty table; the first ``left`` columns are text."""
    table = Table(title=plain_cell(title), box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(Text(column, style="dim"), justify="left" if number < left else "right")
    return table


def plain_cell(value: object) -> Text:
    """Return a cell that is shown as it is: no markup is read in it, and control characters don't reach the terminal."""
    if isinstance(value, Text):
        return value
    return Text("".join("\N{REPLACEMENT CHARACTER}" if _controls(character) else character for character in str(value)))


def _controls(character: str) -> bool:
    """Tell whether a character acts on the terminal or turns the text round; a thin space does neither."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def add_row(table: Table, *cells: object) -> None:
    """Add a row of cells that are shown as they are."""
    table.add_row(*map(plain_cell, cells))


def show_table(table: Table, console: Console) -> None:
    """Print a table under its title, which may be wider than the table."""
    title, table.title = table.title, None
    if title:
        console.print(title, style="bold")
    console.print(table)
