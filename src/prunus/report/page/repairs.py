"""How does a reader learn what other cuts would have lost, what was set right after them, and what was taken back?"""

from __future__ import annotations

import math
from statistics import median

from prunus.report.page.page_marks import details, escape, joined, table
from prunus.report.record import RunRecord
from prunus.report.record_repairs import AdjustmentFacts, AdjustmentRow

__all__ = ["adjustment_lines", "adjustments_html", "allocation_line", "allocations_html"]

_KINDS = ("least_squares", "bias", "batch_norm")

_CLEARLY = 0.9
"""Below this share of the chosen one's distance, another allocation would have lost less."""
_MEASURES = {
    "relative": "distance of the outputs to the dense model's",
    "kl": "divergence of the answers from the dense model's, in nats",
}
_COSTS = {"macs": "MACs", "params": "parameters", "bytes": "bytes", "weights": "number of weights"}


def allocation_line(record: RunRecord) -> str:
    """Return in one line which allocation would have lost least at the same cost; empty where none was compared."""
    if not record.allocations:
        return ""
    chosen = next(row.allocation for row in record.allocations[0].rows if row.chosen)
    lost = {name: _middle(record, name) for name in {row.allocation: 0 for f in record.allocations for row in f.rows}}
    best = min(lost, key=lambda name: (lost[name], name != chosen))
    cost = _COSTS[record.allocations[0].cost]
    said = ", ".join(f"{name} {_far(value)}" for name, value in sorted(lost.items(), key=lambda item: item[1]))
    measured = _MEASURES[record.allocations[0].measure]
    n = len(record.allocations)
    over = f", in the middle over {n} cuts" if n > 1 else ""
    if lost[best] < _CLEARLY * lost[chosen]:
        return (
            f"allocation: {best} would have lost less than {chosen} at the same {cost} ({measured}, before "
            f"anything is set right{over}: {said})"
        )
    return (
        f"allocation: none that was tried would have lost clearly less than {chosen} at the same {cost} ({measured}{over}: "
        f"{said})"
    )


def _middle(record: RunRecord, allocation: str) -> float:
    rows = [row for facts in record.allocations for row in facts.rows if row.allocation == allocation]
    return median(math.inf if row.distance is None else row.distance for row in rows)


def _far(distance: float) -> str:
    return f"{distance:.3g}" if math.isfinite(distance) else "not finite"


def allocations_html(record: RunRecord) -> str:
    """Return what each allocation would have lost in every cut."""
    line = allocation_line(record)
    if not line:
        return ""
    rows = [
        [
            *map(escape, (facts.seed, facts.cut, row.allocation + (" (chosen)" if row.chosen else ""))),
            escape(_far(math.inf if row.distance is None else row.distance)),
            escape(f"{100 * row.share:.1f} % of the {_COSTS[facts.cost]}"),
        ]
        for facts in record.allocations
        for row in facts.rows
    ]
    head = ["seed", "cut", "allocation", "distance of the outputs", "left"]
    return f"<p>{escape(line)}.</p>" + details("Every allocation", "", table(head, rows))


def adjustment_lines(record: RunRecord) -> list[str]:
    """Return one line per kind of adjustment, and one for everything that couldn't be adjusted."""
    lines = []
    for kind in _KINDS:
        rows = [row for facts in record.adjustments for row in facts.checks if row.kind == kind]
        if rows:
            lines.append(f"adjusted by {kind}: {_outcome(rows)}")
    held_out = max((facts.n_held_out for facts in record.adjustments), default=0)
    if lines:
        said = _MEASURES[record.adjustments[0].measure]
        lines[-1] += f"; numbers are the {said}, on {held_out} calibration examples that nothing was fitted to"
    notes = (note for facts in record.adjustments for note in facts.notes if " is taken back: " not in note)
    return [*lines, *dict.fromkeys(notes)]


def _outcome(rows: list[AdjustmentRow]) -> str:
    """Say how often a kind was kept, and how far that moved the outputs, in the middle over all cuts."""
    parts = []
    for verdict, word in (("kept", "kept"), ("taken back", "taken back, as it was worse"), ("nothing changed", "")):
        mine = [row for row in rows if row.verdict == verdict]
        if not mine:
            continue
        if not word:
            parts.append("nothing changed" + _of(mine, rows))
            continue
        ends = [[d for row in mine if (d := getattr(row, end)) is not None] for end in ("before", "after")]
        moved = " -> ".join(f"{median(found):.3g}" if found else "not finite" for found in ends)
        parts.append(f"{word}{_of(mine, rows)} ({moved})")
    layers = {name for row in rows for name in row.returned}
    if layers:
        parts.append(f"{len(layers)} layer{'s' if len(layers) > 1 else ''} taken back alone")
    return ", ".join(parts)


def _of(some: list[AdjustmentRow], rows: list[AdjustmentRow]) -> str:
    return f" after {len(some)} of {len(rows)} cuts" if len(rows) > 1 else ""


def adjustments_html(record: RunRecord) -> str:
    """Return what was adjusted after every cut, what was taken back, and what couldn't be adjusted."""
    if not record.adjustments:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in adjustment_lines(record))
    rows = [_cells(facts, row) for facts in record.adjustments for row in facts.checks]
    head = ["seed", "after", "adjustment", "distance before", "after", "", "layers", "taken back alone"]
    aside = f"{len(record.adjustments)} cut{'s' if len(record.adjustments) > 1 else ''}"
    shown = details("Every adjustment", aside, table(head, rows)) if rows else ""
    return f'<ul class="notes">{lines}</ul>{shown}'


def _cells(facts: AdjustmentFacts, row: AdjustmentRow) -> list[str]:
    before, after = ("not finite" if d is None else f"{d:.3g}" for d in (row.before, row.after))
    returned = f"<code>{joined(row.returned)}</code>" if row.returned else ""
    cells = (str(facts.seed), facts.after, row.kind, before, after, row.verdict, str(len(row.fitted)))
    return [*map(escape, cells), returned]
