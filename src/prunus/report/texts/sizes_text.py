"""How is it told on a terminal which sizes of one model there are?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from prunus.report.format import called, difference, percent, size, value
from prunus.report.record_parts import Number
from prunus.report.text_tables import add_row, plain_table, show_table

__all__ = ["print_sizes"]


def print_sizes(facts: Mapping[str, Any], console: Console) -> None:
    """Print what each size costs and has, and what storing them together saves."""
    rows = facts["sizes"]
    metric = rows[0]["metric"]
    console.print()
    promised = any("kept" in row for row in rows)
    titles = (
        "size",
        "MACs left",
        "weights",
        "alone",
        f"test {called(metric)}",
        "pruned - dense",
        *(("contract",) if promised else ()),
    )
    table = plain_table(f"{len(rows)} sizes of one plan, {facts['weights']} weights", *titles, left=1)
    for row in rows:
        add_row(
            table,
            f"{row['keep_fraction']:g}",
            percent(row["macs_share"]),
            size(row["size_bytes"]),
            size(row["size_bytes_alone"]),
            value(metric, row["pruned"]),
            difference(metric, Number(name=metric, **row["difference"])),
            *(("kept" if row["kept"] else "not shown",) if promised else ()),
        )
    show_table(table, console)
    here, alone = (sum(row[key] for row in rows) for key in ("size_bytes", "size_bytes_alone"))
    console.print(
        f"together {size(here)}, {size(alone)} as bundles of their own; dense {value(metric, rows[0]['dense'])} on "
        f"{facts['n_test']} test examples; the intervals hold for all sizes{_of(facts)} together",
        style="dim",
    )


def _of(facts: Mapping[str, Any]) -> str:
    chosen = facts.get("of")
    return (
        ""
        if chosen is None
        else f" of the {chosen['n_settings']} settings that a search confirmed (these: {chosen['setting']})"
    )
