"""How does the page show shares of the data and of the model together? A map without a script: titles show on hover."""

from __future__ import annotations

from math import sqrt

from prunus.report.format import called, percent, value
from prunus.report.page.joint.joint_text import (
    apart,
    axes,
    in_points,
    joint_how,
    joint_line,
    parameters_left,
    place_called,
    row_called,
    short,
)
from prunus.report.page.page_marks import details, escape, table
from prunus.report.record_gate import JointCell, JointFacts

__all__ = ["joint_html"]

_STRONGEST = 70
"""So many percent of its colour the cell has that is farthest from all of both."""


def joint_html(facts: JointFacts | None) -> str:
    """Return the map, what it says, and every number behind it; nothing where nothing was tried together."""
    if facts is None:
        return ""
    how = joint_how(facts)
    note = (
        f'<p class="dim">{escape(how[0].upper() + how[1:])}; {escape(axes(facts))}. Under each value, how far it is from all of '
        f"both{in_points(facts)}: green is better and red worse, the stronger the farther; a tick says that it is shown to be no "
        "worse. Hold the pointer on a cell for its intervals.</p>"
    )
    return f"<p>{escape(_sentence(joint_line(facts)))}</p>{note}{_map(facts)}{_numbers(facts)}"


def _map(facts: JointFacts) -> str:
    head = "".join(
        f'<th scope="col">{share:g}<small>{escape(parameters_left(facts, j))}</small></th>'
        for j, share in enumerate(facts.model)
    )
    rows = "".join(
        f'<tr><th scope="row">{_broken(row_called(facts, i))}</th>'
        f"{''.join(_cell(facts, i, j) for j in range(len(row)))}</tr>"
        for i, row in enumerate(facts.cells)
    )
    top = f"<thead><tr><th>data ↓ model →</th>{head}</tr></thead>"
    return f'<div class="scroll"><table class="heat">{top}<tbody>{rows}</tbody></table></div>'


def _cell(facts: JointFacts, i: int, j: int) -> str:
    cell, smallest = facts.cells[i][j], facts.smallest == (i, j)
    said = short(facts, cell).partition(" (")[0]
    kept = cell.kept and cell.difference is not None
    mark = f"&ensp;<b>✓{'<i> smallest</i>' if smallest else ''}</b>" if kept else ""
    kind = " ".join(name for name, holds in (("kept", kept), ("least", smallest)) if holds)
    return (
        f'<td class="{kind}" style="--tone:var(--{_tone(facts, cell)});--strength:{_strength(facts, cell):.0f}%" '
        f'title="{escape(_title(facts, i, j))}">{escape(value(facts.metric, cell.mean))}<small>{escape(said)}{mark}</small></td>'
    )


def _title(facts: JointFacts, i: int, j: int) -> str:
    """Return all that is known of a cell, a line each."""
    cell = facts.cells[i][j]
    lines = [place_called(facts, i, j), f"{percent(cell.macs)} of the MACs"]
    lines.append(f"{called(facts.metric)} {_mean(facts, cell)}")
    lines.append(f"seed by seed: {', '.join(value(facts.metric, one) for one in cell.values)}")
    if cell.difference is not None:
        lines.append(f"from all of both: {apart(facts, cell)}")
        lines.append("shown to be no worse" if cell.kept else "not shown to be no worse")
    return "\n".join(lines)


def _mean(facts: JointFacts, cell: JointCell) -> str:
    said = value(facts.metric, cell.mean)
    if cell.low is None or cell.high is None:
        return said
    return f"{said} ({value(facts.metric, cell.low)} to {value(facts.metric, cell.high)} over seeds)"


def _numbers(facts: JointFacts) -> str:
    """Return every cell as a row of a table, for who can't hover."""
    rows = [
        [
            escape(row_called(facts, i)),
            f"{facts.model[j]:g}",
            escape(percent(cell.parameters)),
            escape(percent(cell.macs)),
            escape(_mean(facts, cell)),
            escape(apart(facts, cell)),
            "" if cell.difference is None else "yes" if cell.kept else "not shown",
        ]
        for i, row in enumerate(facts.cells)
        for j, cell in enumerate(row)
    ]
    between = f"from all of both ({100 * facts.each:.3g} % each)"
    head = ["data", "model", "parameters", "MACs", escape(called(facts.metric)), between, "no worse"]
    aside = f"{len(rows)}, with intervals; the differences: {facts.method}"
    return details("Every cell", aside, table(head, rows))


def _tone(facts: JointFacts, cell: JointCell) -> str:
    return "leaf" if cell.difference is None or (cell.difference.value >= 0) == facts.higher_is_better else "red"


def _strength(facts: JointFacts, cell: JointCell) -> float:
    """Return how strong the colour is: by the root, so that small differences show beside large ones."""
    reach = max((abs(c.difference.value) for row in facts.cells for c in row if c.difference is not None), default=0.0)
    if cell.difference is None or reach == 0:
        return 0.0
    return _STRONGEST * sqrt(abs(cell.difference.value) / reach)


def _broken(text: str) -> str:
    """Return a name in two lines where it has a part in brackets."""
    head, found, rest = text.partition(" (")
    return f"{escape(head)}<small>{escape(rest.removesuffix(')'))}</small>" if found else escape(text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
