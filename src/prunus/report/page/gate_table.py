"""How does the page show whether a selection of training examples pays?"""

from __future__ import annotations

from prunus.report.gate_text import gate_line, gate_rows
from prunus.report.page.page_marks import escape, table
from prunus.report.record_gate import GateFacts

__all__ = ["gate_html"]


def gate_html(gate: GateFacts | None) -> str:
    """Return the table of the ways that were compared, and what is recommended."""
    if gate is None:
        return ""
    how = f"Judged on {gate.n_validation} validation examples, {len(gate.seeds)} seeds, {gate.n_steps[0]} steps each"
    lead = f"{how}: {gate_line(gate)}."
    head = ("trained on", "examples", escape(gate.metric), "selection minus this (95 % together)")
    return f"<p>{escape(lead)}</p>" + table(head, [tuple(map(escape, row)) for row in gate_rows(gate)])
