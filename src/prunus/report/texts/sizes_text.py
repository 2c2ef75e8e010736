"""How is it told on a terminal which sizes of one model there are?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from prunus.report.format import called, difference, percent, size, value
from prunus.report.record_parts import Number
from prunus.report.text_tables import add_row, plain_table, show_table

__all__ = ["gap_lines_of_sizes", "print_sizes"]


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
    for line in gap_lines_of_sizes(facts):
        console.print(line, style="dim")


def gap_lines_of_sizes(facts: Mapping[str, Any]) -> list[str]:
    """Return how far each size is from its training examples to the validation examples, and where recovery ended for it."""
    rows = [row for row in facts["sizes"] if "gap" in row]
    if not rows:
        return []
    metric = rows[0]["gap"]["metric"]
    each = " → ".join(f"{value(metric, row['gap']['gap'])} at {row['keep_fraction']:g}" for row in rows)
    lines = [
        f"gap between training and validation examples, dense {value(metric, rows[0]['gap']['dense_gap'])}: {each}"
    ]
    ended = [row for row in rows if row["over_fits"]]
    if ended:
        where = ", ".join(f"{row['keep_fraction']:g} has epoch {row['epochs']}" for row in ended)
        lines.append(
            f"recovery ended where a gap was beyond the dense one's by more than recovery.gap_margin {facts['gap_margin']:g}: of "
            f"{facts['epochs']} epochs, size {where}"
        )
    return lines


def _of(facts: Mapping[str, Any]) -> str:
    chosen = facts.get("of")
    return (
        ""
        if chosen is None
        else f" of the {chosen['n_settings']} settings that a search confirmed (these: {chosen['setting']})"
    )
