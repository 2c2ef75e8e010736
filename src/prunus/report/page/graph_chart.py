"""How does one see what hangs together in a model?

One line per group, from the first layer that it lies in to the last. A filled point is a layer that makes its units, a hollow one a
layer that reads them, a small one a vector (a scale, a bias).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunus.report.format import amount
from prunus.report.page.page_style import PALETTE
from prunus.report.record import GraphFacts

__all__ = ["MOST_GROUPS", "graph_chart"]

MOST_GROUPS = 24
_LETTER, _LABEL = 6.4, 210  # pixels: of a letter on average, and of a name at most
_SIDES = {"out": "makes it", "in": "reads it", "": "scale or bias"}


def graph_chart(altair: Any, facts: GraphFacts, *, width: int = 430) -> tuple[str, Any]:
    """Return what to say about the drawing, and the drawing (an altair chart) of the groups that carry most parameters."""
    order = sorted(facts.groups, key=lambda group: -group.units * group.parameters_per_unit)[:MOST_GROUPS]
    shown = sorted(order, key=lambda group: min((place for place, _ in group.places), default=0))
    rows, spans = [], []
    for group in shown:
        label = f"{group.name} · {group.kind} · {amount(group.units)}"
        places = [place for place, _ in group.places]
        each = f"{amount(group.parameters_per_unit)} / {amount(round(group.macs_per_unit))}"
        spans.append({"group": label, "first": min(places), "last": max(places), "each": each})
        rows += [{"group": label, "place": place, "side": _SIDES[side]} for place, side in group.places]
    n = len(facts.layers)
    y = altair.Y("group:N", title=None, sort=None, axis=altair.Axis(grid=False, labelLimit=_LABEL))
    scale = altair.Scale(domain=[-0.5, n * _stretch(spans, width)], nice=False)
    title = f"layers with parameters, {facts.layers[0]} to {facts.layers[-1]}"
    x = altair.X("place:Q", title=title, scale=scale, axis=altair.Axis(labels=False, grid=False))
    sides = list(_SIDES.values())
    colour = altair.Color(
        "side:N",
        scale=altair.Scale(domain=sides, range=[PALETTE[name] for name in ("plum", "blue", "grey")]),
        legend=altair.Legend(symbolStrokeWidth=2),
    )
    lines = (
        _data(altair, spans)
        .mark_rule(strokeWidth=1.5, color=PALETTE["line"])
        .encode(y=y, x=altair.X("first:Q", scale=scale, title=title), x2="last:Q")
    )
    layers = [lines]
    for side, settings in zip(
        sides,
        ({"filled": True, "size": 70}, {"filled": False, "size": 60, "strokeWidth": 2}, {"filled": True, "size": 16}),
        strict=True,
    ):
        points = [row for row in rows if row["side"] == side]
        if points:
            layers.append(_data(altair, points).mark_point(opacity=1, **settings).encode(x=x, y=y, color=colour))
    words = (
        _data(altair, spans)
        .mark_text(align="left", dx=10, fontSize=11, color=PALETTE["dim"])
        .encode(y=y, x=altair.X("last:Q", scale=scale, title=title), text="each:N")
    )
    note = "A line is a group: units that can only leave together. At its end: parameters / MACs that one unit carries."
    if len(facts.groups) > len(shown):
        note += f" The {len(shown)} that carry most, of {len(facts.groups)}."
    return note, altair.layer(*layers, words).properties(height={"step": 30})


def _stretch(spans: Sequence[Mapping[str, Any]], width: int) -> float:
    """Return by how much the scale goes beyond the last layer, so that there is room for the numbers at a line's end."""
    name = min(float(_LABEL), 1.15 * _LETTER * max(len(span["group"]) for span in spans)) + 18
    numbers = _LETTER * max(len(span["each"]) for span in spans) + 14
    plot = max(width - name, 1.5 * numbers)
    return plot / (plot - numbers)


def _data(altair: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    return altair.Chart(altair.Data(values=rows))
