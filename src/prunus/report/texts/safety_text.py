"""How is it told, on a terminal, how safe a model is?"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from prunus.report.format import amount, called, difference, percent, points, value
from prunus.report.record_parts import Number
from prunus.report.record_safety import (
    CalibrationFacts,
    FlipFacts,
    HarmFacts,
    PartRow,
    PartTable,
    PrivacyFacts,
    RobustnessFacts,
    SafetyFacts,
)
from prunus.report.text_tables import add_row, plain_cell, plain_table, show_table
from prunus.report.texts.robustness_text import (
    attack_line,
    attack_rows,
    corruption_line,
    corruption_rows,
    membership_line,
    membership_rows,
    models_of,
    trigger_line,
    trigger_rows,
)

__all__ = ["calibration_cells", "change_said", "flips_line", "harm_line", "print_safety", "temperature_line"]

MOST_ROWS = 12
"""Of more classes or groups the largest losses are shown; the others are in the report and with --json."""


def print_safety(facts: SafetyFacts, console: Console) -> None:
    """Print what was found."""
    if facts.harm is not None:
        _print_harm(facts.harm, console)
    if facts.robustness is not None:
        _print_robustness(facts.robustness, console)
    if facts.privacy is not None:
        _print_privacy(facts.privacy, console)
    for note in facts.notes:
        console.print(plain_cell(f"note: {note}"), style="dim")


def _print_harm(harm: HarmFacts, console: Console) -> None:
    console.print()
    for one in (*([harm.classes] if harm.classes is not None else []), *harm.groups):
        _print_parts(one, harm, console)
        console.print()
    if harm.flips is not None:
        console.print(plain_cell(flips_line(harm.flips)))
    if harm.calibration is not None:
        console.print()
        found = harm.calibration
        table = plain_table(
            f"Calibration, {amount(found.n)} answers (lower is better)", "", "dense", "pruned", "difference"
        )
        for cells in calibration_cells(found):
            add_row(table, *cells)
        show_table(table, console)
        if found.temperatures:
            console.print(plain_cell(temperature_line(found)), style="dim")
    for note in harm.notes:
        console.print(plain_cell(f"note: {note}"), style="dim")


def _print_robustness(found: RobustnessFacts, console: Console) -> None:
    worse, apart = found.corruptions, "pruned - dense"
    if worse is not None and worse.rows:
        models = models_of(list(worse.rows[0].values))
        both = [apart, "beyond clean"] if len(models) > 1 else []
        title = (
            f"{called(worse.metric)} under corruptions, mean of 5 severities, {amount(worse.n)} {found.split} examples"
        )
        _print_table(title, ["", *models, *both], corruption_rows(worse), corruption_line(worse), console)
        for note in worse.notes:
            console.print(plain_cell(f"note: {note}"), style="dim")
    for one in found.attacks:
        head = ["", "right", "right under PGD", "right under all", "PGD alone overstates"]
        _print_table(f"Attacks, {one.norm}", head, attack_rows(one), attack_line(one), console)
    if found.trigger is not None:
        head = ["", "trigger works", "its class is said anyway", "right without"]
        _print_table("Trigger", head, trigger_rows(found.trigger), trigger_line(found.trigger), console)
    for note in found.notes:
        console.print(plain_cell(f"note: {note}"), style="dim")


def _print_privacy(found: PrivacyFacts, console: Console) -> None:
    models = models_of(list(found.rows[0].values)) if found.rows else []
    head = ["", *models, *(["pruned - dense"] if len(models) > 1 else [])]
    _print_table("Membership (lower is better)", head, membership_rows(found), membership_line(found), console)
    for note in found.notes:
        console.print(plain_cell(f"note: {note}"), style="dim")


def _print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], under: str, console: Console) -> None:
    console.print()
    table = plain_table(title, *head)
    for cells in rows:
        add_row(table, *cells)
    show_table(table, console)
    console.print(plain_cell(under))


def _print_parts(one: PartTable, harm: HarmFacts, console: Console) -> None:
    sure = f"{100 * harm.confidence:g} %"
    table = plain_table(
        f"Change by {one.by}, {amount(harm.n)} {harm.split} examples: {harm_line(one)}",
        "",
        "examples",
        "dense",
        "pruned",
        f"pruned - dense ({sure} together)",
        "lost/gained",
        "p",
        "",
    )
    ranked = sorted(one.changes, key=_loss)
    for row in ranked[:MOST_ROWS]:
        counts = "" if row.n_lost is None else f"{row.n_lost}/{row.n_gained}"
        p_value = "–" if row.p_value is None else f"{row.p_value:.2g}"
        cells = (_value(one.metric, row.dense), _value(one.metric, row.pruned), change_said(one.metric, row.change))
        verdict = "" if row.verdict == "no measurable difference" else row.verdict
        add_row(table, row.name, amount(row.n), *cells, counts, p_value, verdict)
    show_table(table, console)
    if len(ranked) > MOST_ROWS:
        console.print(plain_cell(f"{len(ranked) - MOST_ROWS} more, which lose less: with --json"), style="dim")
    console.print(plain_cell(one.method), style="dim")


def _loss(row: PartRow) -> float:
    """Return what puts the largest losses first."""
    change = row.change.value or 0.0
    return -change if row.change.higher_is_better is False else change


def _value(metric: str, number: float | None) -> str:
    return percent(number) if metric == "recall" else value(metric, number)


def change_said(metric: str, change: Number) -> str:
    """Return a change with its interval; a recall's in points."""
    return points(change) if metric == "recall" else difference(metric, change)


def harm_line(one: PartTable) -> str:
    """Return in one sentence which parts lose."""
    what = "recall" if one.metric == "recall" else called(one.metric)
    worse = [row.name for row in one.changes if row.verdict == "worse"]
    if not worse:
        return f"no measurable loss of {what} in any of {len(one.changes)}"
    more = f" and {len(worse) - 5} more" if len(worse) > 5 else ""
    return f"{what} is measurably worse in {len(worse)} of {len(one.changes)}: {', '.join(worse[:5])}{more}"


def flips_line(found: FlipFacts) -> str:
    """Return how many examples the models decide differently."""
    if not found.n_by_kind:
        return (
            f"the {len(found.shown)} examples that changed most are in the report and with --json (by {found.measure})"
        )
    n = sum(found.n_by_kind.values())
    kinds = ", ".join(f"{amount(count)} {kind}" for kind, count in found.n_by_kind.items())
    return f"decisions that flip: {amount(n)} of {amount(found.n)} examples ({percent(n / max(found.n, 1))}): {kinds}"


_MEASURES = {
    "ece": "expected calibration error",
    "rms_error": "calibration error, RMS, bias taken off",
    "brier": "Brier score",
    "log_loss": "log loss",
}
"""How a measure of calibration is called."""


def calibration_cells(found: CalibrationFacts) -> list[list[str]]:
    """Return a row for each measure: its name, both models, and the difference, each with its interval."""
    rows = []
    for row in found.rows:
        name = _MEASURES.get(row.measure, row.measure) + (", with temperature" if row.scaled else "")
        rows.append([name, *(_said(number) for number in (row.dense, row.pruned)), _said(row.difference, "+")])
    return rows


def _said(number: Number, sign: str = "") -> str:
    if number.value is None or number.low is None or number.high is None:
        return "–"
    return f"{number.value:{sign}.4f} ({number.low:{sign}.4f} to {number.high:{sign}.4f})"


def temperature_line(found: CalibrationFacts) -> str:
    """Return the temperatures, and what they were fitted on."""
    said = ", ".join(f"{name} {temperature:.3f}" for name, temperature in found.temperatures.items())
    return f"temperatures: {said}; fitted on {amount(found.n_fitted)} {found.fitted_on} examples"
