"""How is it told whether a selection of training examples pays?"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunus.report.format import amount, called, difference, value
from prunus.report.record_gate import GateDifference, GateFacts
from prunus.report.record_parts import Number

__all__ = ["arm_called", "gate_line", "gate_rows", "print_gate"]

_CALLED = {"selection": "the selection", "random": "as many by chance", "full_short": "all, as many steps"}


def arm_called(name: str) -> str:
    """Return what a way of choosing is called."""
    return _CALLED[name]


def gate_line(gate: GateFacts) -> str:
    """Return what to do, and why, as one sentence."""
    found = {(item.one, item.other): item for item in gate.comparisons}
    if gate.recommended == "selection":
        return "recommended: the selection; it is measurably better than chance and than all examples for as many steps"
    if gate.recommended == "random":
        return "recommended: as many by chance; the selection isn't measurably better, and all examples for as many steps are worse"
    against = found["selection", "full_short"]
    worse = "does worse" if against.verdict == "worse" else "isn't measurably better"
    where = (
        "the selection, which beats chance"
        if gate.smaller == "selection"
        else "chance, which the selection doesn't measurably beat"
    )
    return f"recommended: keep all examples and train for as many steps; the selection {worse}. Where fewer must be kept: {where}"


def gate_rows(gate: GateFacts) -> list[tuple[str, str, str, str]]:
    """Return per way: its name, how many examples, its value, and what the selection differs from it."""
    rows = []
    for arm in gate.arms:
        n = amount(gate.n_train if arm.name == "full_short" else gate.n_kept[0])
        apart = next((item for item in gate.comparisons if item.one == "selection" and item.other == arm.name), None)
        rows.append(
            (arm_called(arm.name), n, value(gate.metric, arm.mean), "" if apart is None else _apart(gate, apart))
        )
    return rows


def print_gate(gate: GateFacts, console: Console) -> None:
    """Print how the ways did, and what is recommended."""
    n = len(gate.seeds)
    over = f"mean over {n} seeds" if n > 1 else "one seed: says nothing about other seeds"
    console.print(Text(f"Does it pay? {amount(gate.n_validation)} validation examples, {over}", style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, head in enumerate(
        ("trained on", "examples", called(gate.metric), "selection minus this (95 % together)")
    ):
        table.add_column(Text(head, style="dim"), justify="left" if number == 0 else "right")
    for row in gate_rows(gate):
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(gate_line(gate)))


def _apart(gate: GateFacts, item: GateDifference) -> str:
    number = Number(name=gate.metric, value=item.value, low=item.low, high=item.high)
    return f"{difference(gate.metric, number)} {item.verdict}"
