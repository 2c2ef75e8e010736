"""How is it told what a search found: on a terminal, and in one sentence?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from prunus.core.recipes.search_section import leading_cost
from prunus.report.format import amount, called, difference, is_share, percent, value
from prunus.report.record_parts import Number
from prunus.report.text_tables import add_row, plain_table, show_table

__all__ = ["COSTS", "cost_of", "print_search", "said_change", "said_values", "search_line"]

COSTS = {"macs": "MACs", "params": "parameters", "bytes": "bytes", "latency": "latency"}


def cost_of(facts: Mapping[str, Any]) -> str:
    """Return which cost leads."""
    return leading_cost(facts["objectives"])


def said_values(values: Mapping[str, Any]) -> str:
    """Return settings in one line, floats short.

    >>> said_values({"strategy.keep_fraction": 0.123456, "recovery.epochs": 5})
    'strategy.keep_fraction=0.1235 recovery.epochs=5'
    """
    return " ".join(f"{key}={f'{found:.4g}' if isinstance(found, float) else found}" for key, found in values.items())


def said_change(facts: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Return pruned minus dense on the test examples, with its interval."""
    number = Number(name=facts["metric"], higher_is_better=facts["higher_is_better"], **row["difference"])
    return difference(facts["metric"], number)


def search_line(facts: Mapping[str, Any]) -> str:
    """Return what is recommended, and why, as one sentence."""
    contract, rows = facts["contract"], {row["number"]: row for row in facts["confirmed"]}
    cost = cost_of(facts)
    n = len(rows)
    together = f"; the intervals of {n} settings hold together" if n > 1 else ""
    if contract is None:
        return f"no contract, so none is recommended: the frontier is yours to choose from{together}"
    share = is_share(contract["metric"])
    most = f"{100 * contract['max_drop']:g} points" if share else f"{contract['max_drop']:g}"
    if facts["recommended"] is None:
        what = called(contract["metric"])
        return f"none of {n} confirmed settings is shown to lose at most {most} of {what} on the test examples"
    row = rows[facts["recommended"]]
    seeds = f"{len(row['seeds'])} seeds of their own" if len(row["seeds"]) > 1 else "a seed of its own"
    left = percent(row["shares"].get(cost, 1.0))
    return (
        f"recommended: setting {facts['recommended']}, {left} of the dense model's {COSTS[cost]}; shown on "
        f"{amount(row['n_test'])} test examples and {seeds} to lose at most {most} of "
        f"{called(contract['metric'])}{together}"
    )


def print_search(facts: Mapping[str, Any], console: Console) -> None:
    """Print the confirmed frontier, what is recommended, and what matters most."""
    n, metric = facts["n"], facts["metric"]
    tried = f"{n['done'] + n['stopped'] + n['failed']} trials: {n['done']} done, {n['stopped']} stopped early, {n['failed']} failed"
    table = plain_table(
        tried,
        "setting",
        f"{COSTS[cost_of(facts)]} left",
        f"validation {called(metric)}",
        "on the test examples, pruned - dense",
        left=1,
    )
    trials = {row["number"]: row for row in facts["trials"]}
    for row in facts["confirmed"]:
        found = trials[row["number"]]
        add_row(
            table,
            f"{row['number']}: {said_values(found['values'])}",
            percent(row["shares"].get(cost_of(facts), found["shares"][cost_of(facts)])),
            value(metric, found["quality"]),
            said_change(facts, row),
        )
    show_table(table, console)
    console.print(search_line(facts), style="bold")
    for name, shares in facts["importances"].items():
        first = sorted(shares.items(), key=lambda item: -item[1])[:3]
        console.print(
            f"what matters for {name}: " + ", ".join(f"{key} {share:.0%}" for key, share in first), style="dim"
        )
    if facts["overfitting"]:
        numbers = ", ".join(map(str, facts["overfitting"][:8]))
        console.print(
            f"over-fitting: in {len(facts['overfitting'])} trials ({numbers}) the gap between training and validation examples "
            "exceeds the dense model's by more than search.gap_margin",
            style="dim",
        )
