"""How do the scores of examples read on a terminal?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from prunus.report.format import amount
from prunus.report.text_tables import add_row, plain_table, show_table

__all__ = ["print_scores"]

_ENDS = {"aum": "lowest", "confidence": "lowest"}
"""At which end of a score those are that contradict the model; else it is the highest."""


def print_scores(summary: Mapping[str, Any], console: Console) -> None:
    """Print each score's range and how sure it is, and the examples that contradict the model most."""
    trainings = summary["n_trainings"]
    epochs = sum(summary["n_epochs"])
    title = f"{amount(summary['n'])} examples, {epochs} epochs of {trainings} training{'s' * (trainings != 1)}"
    table = plain_table(title, "score", "median", "5 % to 95 %", "standard error", "reliability")
    for row in summary["scores"]:
        reliability = "" if row["reliability"] is None else f"{row['reliability']:.0%}"
        spread = f"{row['low']:.4g} to {row['high']:.4g}"
        add_row(table, row["score"], f"{row['median']:.4g}", spread, _number(row["error"]), reliability)
    show_table(table, console)
    if trainings == 1:
        console.print(
            "The errors are read off the course of one training, learning included: record several for sure ones.",
            style="dim",
        )
    first = next((row for row in summary["scores"] if row["score"] == "aum"), summary["scores"][0])
    end = _ENDS.get(first["score"], "highest")
    table = plain_table(
        f"The {end} {first['score']}: look at them first", "id", "label", first["score"], "standard error", left=2
    )
    for row in first[end]:
        label = "" if row["label"] is None else row["label"] if isinstance(row["label"], str) else f"{row['label']:.4g}"
        add_row(table, row["id"], label, f"{row['value']:.4g}", _number(row["error"]))
    console.print()
    show_table(table, console)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
