"""Where do the training examples lie, and what was decided about each? A drawing without a script: titles show on hover.

It is drawn here and not by altair, whose SVG has no titles; so the map is there without the extra ``report``, too.
"""

from __future__ import annotations

from collections import Counter

from prunus.report.format import amount, percent
from prunus.report.page.page_marks import escape
from prunus.report.record_examples import MapFacts

__all__ = ["map_html"]

_WIDTH, _HEIGHT, _MARGIN = 760, 470, 10
_WORDS = {"keep": "kept", "flag": "flagged", "drop": "dropped", "relabel": "relabelled"}
"""In the order of drawing: what matters most lies on top."""


def map_html(facts: MapFacts | None) -> str:
    """Return the map with its legend; nothing where there is none."""
    if facts is None or not facts.id:
        return ""
    counts: Counter[str] = Counter(facts.decision)
    key = "".join(
        f'<li class="{what}">{word} <small>{amount(counts[what])}</small></li>'
        for what, word in _WORDS.items()
        if counts[what]
    )
    shown = len(facts.id)
    some = f"{amount(shown)} of" if shown < facts.n else "All"
    which = f"{some} {amount(facts.n)} training examples by {escape(facts.of)}, in the plane where that spreads most"
    note = (
        f'<p class="dim">{which}: it holds {percent(facts.explained)} of the spread, so what lies together here may lie apart '
        "otherwise. Hold the pointer on a point for its name and why.</p>"
    )
    return f'{note}<figure><ul class="key">{key}</ul>{_drawing(facts)}</figure>'


def _drawing(facts: MapFacts) -> str:
    across, down = _placed(facts.x, _WIDTH), _placed([-y for y in facts.y], _HEIGHT)
    points: dict[str, list[str]] = {what: [] for what in _WORDS}
    for x, y, what, name, label, reason in zip(
        across, down, facts.decision, facts.id, facts.label, facts.reason, strict=True
    ):
        title = escape("\n".join(part for part in (f"{name}: {label}" if label else name, reason) if part))
        points[what].append(f'<circle cx="{x:.1f}" cy="{y:.1f}"><title>{title}</title></circle>')
    layers = "".join(f'<g class="{what}">{"".join(found)}</g>' for what, found in points.items() if found)
    return (
        f'<svg class="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="map of the examples">{layers}</svg>'
    )


def _placed(values: list[float], size: int) -> list[float]:
    """Return where values lie between the margins."""
    low, high = min(values), max(values)
    scale = (size - 2 * _MARGIN) / (high - low) if high > low else 0.0
    return [_MARGIN + (value - low) * scale if scale else size / 2 for value in values]
