"""Which pictures does a report draw? Each is an SVG text, drawn by altair (the extra ``report``).

Colours come from the page's palette, which the page's style sheet swaps for darker or lighter ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prunus.core.code.extras import require
from prunus.core.errors import MissingExtraError
from prunus.core.units import plural
from prunus.report.format import amount, called, is_share
from prunus.report.page.exported_chart import exported_chart
from prunus.report.page.graph_chart import graph_chart
from prunus.report.page.page_style import PALETTE
from prunus.report.record import GraphFacts, RunRecord

__all__ = ["Chart", "all_charts", "draw", "graph_svg"]

_WIDTH = 430
_CYCLE = ("plum", "blue", "amber", "leaf")
_ADDRESSES = 72 << 30
"""vl-convert's V8 reserves 64 GB of them, and ends the process where it can't."""

_MOST_ROWS = 24
"""A chart shows at most so many rows; the tables have them all."""


_Drawn = tuple[str, str, Any] | None


@dataclass(frozen=True)
class Chart:
    """A drawing, what it is about, and how to read it."""

    title: str
    note: str
    svg: str


def all_charts(record: RunRecord) -> tuple[Chart, ...]:
    """Return the charts that this record has something to show in.

    Raises:
        MissingExtraError: altair or vl-convert isn't installed.
    """
    drawings = (
        _against_size,
        exported_chart,
        _frontier,
        _class_changes,
        _layers,
        _groups,
        _sensitivity,
        _classes,
        _features,
        _curves,
    )
    return draw(*(partial(_of_record, drawing, record) for drawing in drawings))


def _of_record(drawing: Callable[[Any, RunRecord], _Drawn], record: RunRecord, altair: Any) -> _Drawn:
    return drawing(altair, record)


def draw(*drawings: Callable[[Any], _Drawn]) -> tuple[Chart, ...]:
    """Return charts: each drawing is a function of altair that returns title, note and chart, or None.

    Raises:
        MissingExtraError: altair or vl-convert isn't installed.
    """
    altair, convert = _drawing()
    drawn = []
    for number, drawing in enumerate(drawings):
        found = drawing(altair)
        if found is not None:
            title, note, chart = found
            drawn.append(Chart(title, note, _svg(chart, convert, f"c{number}")))
    return tuple(drawn)


def graph_svg(facts: GraphFacts) -> str:
    """Return the drawing of what hangs together, alone.

    Raises:
        MissingExtraError: altair or vl-convert isn't installed.
    """
    altair, convert = _drawing()
    return _svg(graph_chart(altair, facts, width=_WIDTH)[1], convert, "g")


def _drawing() -> tuple[Any, Callable[[dict[str, Any]], str]]:
    """Return altair, and what makes an SVG of its charts."""
    altair, convert = (require(name, extra="report") for name in ("altair", "vl_convert"))
    limit = _address_limit()
    if limit is not None and limit < _ADDRESSES:
        raise MissingExtraError(
            f"the charts need {_ADDRESSES >> 30} GB of addresses (not of memory), and this process may have {limit >> 30}: "
            "raise the limit (ulimit -v), then write the report anew (prunus report RUN)"
        )
    return altair, convert.vegalite_to_svg


def _address_limit() -> int | None:
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _svg(chart: Any, convert: Callable[[dict[str, Any]], str], prefix: str) -> str:
    text = {"labelColor": PALETTE["dim"], "titleColor": PALETTE["dim"], "labelFontSize": 12, "titleFontSize": 12}
    styled = (
        chart.properties(width=_WIDTH)
        .configure(font="sans-serif", background="transparent", autosize={"type": "fit-x", "contains": "padding"})
        .configure_view(stroke=None)
        .configure_axis(
            gridColor=PALETTE["line"],
            domain=False,
            ticks=False,
            labelPadding=7,
            titlePadding=9,
            titleFontWeight="normal",
            labelLimit=150,
            **text,
        )
        .configure_legend(title=None, orient="top", offset=10, padding=0, **text)
    )
    svg = convert(styled.to_dict())
    # Several drawings share one page: their identifiers must differ.
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)


def _data(altair: Any, rows: Sequence[dict[str, Any]]) -> Any:
    return altair.Chart(altair.Data(values=list(rows)))


def _colours(altair: Any, field: str, names: Sequence[str], colours: Sequence[str], **settings: Any) -> Any:
    scale = altair.Scale(domain=list(names), range=[PALETTE[colour] for colour in colours])
    return altair.Color(f"{field}:N", scale=scale, **settings)


def _against_size(altair: Any, record: RunRecord) -> _Drawn:
    metric = record.comparison[0].metric
    scale = 100 if is_share(metric) else 1
    rows = [
        {
            "model": row.model,
            "seed": row.seed,
            "kB": record.cost[row.model].size_bytes / 1000,
            **{part: scale * getattr(number, part) for part in ("value", "low", "high")},
        }
        for row in record.quality
        if row.split == "test"
        for number in row.metrics
        if number.name == metric and None not in (number.value, number.low, number.high)
    ]
    if not rows:
        return None
    x = altair.X(
        "kB:Q", title="weights on disk, kB", axis=altair.Axis(grid=False, tickCount=5), scale=altair.Scale(zero=True)
    )
    base = _data(altair, rows).encode(x=x)
    title = f"test {called(metric)}{', %' if scale == 100 else ''}"
    y = altair.Y("value:Q", title=title, scale=altair.Scale(zero=False, padding=12), axis=altair.Axis(tickCount=5))
    legend = altair.Legend(symbolOpacity=1, symbolType="circle", symbolStrokeWidth=0)
    colour = _colours(altair, "model", ["dense", "pruned"], ["grey", "plum"], legend=legend)
    lines = base.mark_line(strokeWidth=1, strokeDash=[2, 3], color=PALETTE["grey"]).encode(y=y, detail="seed:N")
    spans = base.mark_rule(strokeWidth=5, opacity=0.16).encode(
        y=altair.Y("low:Q", title=title), y2="high:Q", color=colour
    )
    points = base.mark_point(size=70, filled=True, opacity=1).encode(y=y, color=colour)
    note = "One pair of points per seed; bars are each model’s interval by the choice of test examples."
    return f"Test {called(metric)} against size", note, (lines + spans + points).properties(height=230)


def _frontier(altair: Any, record: RunRecord) -> _Drawn:
    searches = [search for search in record.searches if search.contract is not None]
    if not searches or searches[0].contract is None:
        return None
    contract, cost = searches[0].contract, searches[0].cost
    scale = 100 if is_share(contract.metric) else 1
    names = ("calibration", "validation, at most")
    rows = [
        {"share": 100 * row.share, "drop": scale * drop, "what": what, "seed": search.seed}
        for search in searches
        for row in search.candidates
        for what, drop in zip(names, (row.calibration_drop, row.test.bound if row.test else None), strict=True)
        if drop is not None
    ]
    title = f"drop of {called(contract.metric)}{', points' if scale == 100 else ''}"
    points = (
        _data(altair, rows)
        .mark_point(size=70, filled=True, opacity=1)
        .encode(
            x=altair.X(
                "share:Q",
                title=f"{'MACs' if cost == 'macs' else cost} left, % of the dense model",
                scale=altair.Scale(zero=True),
            ),
            y=altair.Y("drop:Q", title=title),
            color=_colours(altair, "what", names, ["grey", "plum"]),
        )
    )
    limit = _data(altair, [{"limit": scale * contract.max_drop}]).mark_rule(strokeDash=[3, 3], color=PALETTE["grey"])
    chart = (points + limit.encode(y=altair.Y("limit:Q", title=title))).properties(height=230)
    return "What the search tried", "The dashed line is the drop that the contract allows.", chart


def _class_changes(altair: Any, record: RunRecord) -> _Drawn:
    rows = [
        {"class": n.name, "value": 100 * n.value, "low": 100 * n.low, "high": 100 * n.high}
        for n in record.class_changes
        if n.value is not None and n.low is not None and n.high is not None
    ]
    if not rows:
        return None
    shown, more = _largest(rows, lambda row: abs(row["value"]))
    base = _data(altair, shown).encode(
        y=altair.Y("class:N", title=None, sort=None, axis=altair.Axis(grid=False)),
    )
    zero = _data(altair, [{"zero": 0}]).mark_rule(color=PALETTE["grey"], strokeDash=[3, 3]).encode(x="zero:Q")
    spans = base.mark_rule(strokeWidth=5, opacity=0.3, color=PALETTE["plum"]).encode(
        x=altair.X("low:Q", title="change of recall, points", axis=altair.Axis(tickCount=6)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=60, opacity=1, color=PALETTE["plum"]).encode(x="value:Q")
    chart = (zero + spans + points).properties(height={"step": 21})
    return (
        "Change per class",
        f"Pruned minus dense on the test examples; the intervals hold together.{more}",
        chart,
    )


def _layers(altair: Any, record: RunRecord) -> _Drawn:
    if not record.layers:
        return None
    shown, more = _largest(record.layers, lambda layer: layer.before - layer.after)
    rows = [
        {"name": layer.name, "what": what, "n": n, "order": order}
        for layer in shown
        for order, (what, n) in enumerate((("kept", layer.after), ("removed", layer.before - layer.after)))
    ]
    units = " and ".join(dict.fromkeys(plural(layer.granularity) for layer in record.layers))
    kept, total = sum(layer.after for layer in record.layers), sum(layer.before for layer in record.layers)
    chart = _stacked(altair, rows, ["kept", "removed"], ["leaf", "sand"], units)
    return "Kept per layer", f"{amount(kept, total)} of {amount(total)} {units} stay.{more}", chart


def _groups(altair: Any, record: RunRecord) -> _Drawn:
    if record.graph is None or not record.graph.groups:
        return None
    return "What hangs together", *graph_chart(altair, record.graph, width=_WIDTH)


def _sensitivity(altair: Any, record: RunRecord) -> _Drawn:
    if not record.sensitivity:
        return None
    shown, more = _largest(record.sensitivity, lambda curve: max(loss for _, loss in curve.points))
    shown.sort(key=lambda curve: -max(loss for _, loss in curve.points))
    rows = [
        {"layer": curve.name, "share": 100 * share, "loss": loss} for curve in shown for share, loss in curve.points
    ]
    names = [curve.name for curve in shown]
    # The most sensitive have colours of their own; the others are there to be compared with.
    colours = [_CYCLE[rank] if rank < len(_CYCLE) else "line" for rank in range(len(names))]
    legend = altair.Legend(values=names[: len(_CYCLE)], symbolStrokeWidth=2.5, columns=2)
    base = _data(altair, rows).encode(
        x=altair.X("share:Q", title="kept of this layer, %", axis=altair.Axis(grid=False, tickCount=5)),
        y=altair.Y("loss:Q", title="calibration loss", axis=altair.Axis(tickCount=5), scale=altair.Scale(zero=False)),
        color=_colours(altair, "layer", names, colours, sort=names, legend=legend),
    )
    chart = (base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=30, opacity=1)).properties(height=230)
    note = f"Loss on the calibration examples with one layer alone pruned, before recovery; the most sensitive are named.{more}"
    return "Sensitivity", note, chart


def _classes(altair: Any, record: RunRecord) -> _Drawn:
    if not any(c.removed or c.relabelled for c in record.classes):
        return None
    shown, more = _largest(record.classes, lambda c: c.removed + c.relabelled)
    rows = []
    for c in shown:
        parts = (("kept", c.before - c.removed - c.relabelled), ("relabelled", c.relabelled), ("removed", c.removed))
        rows += [{"name": c.name, "what": what, "n": n, "order": order} for order, (what, n) in enumerate(parts)]
    removed, relabelled = (sum(getattr(c, what) for c in record.classes) for what in ("removed", "relabelled"))
    names, colours = ["kept", "relabelled", "removed"], ["leaf", "blue", "sand"]
    if not relabelled:
        del names[1], colours[1]
    said = [f"{amount(n)} {what}" for what, n in (("removed", removed), ("relabelled", relabelled)) if n]
    note = f"{', '.join(said)}; by the label as given.{more}"
    chart = _stacked(altair, rows, names, colours, "training examples")
    return "Training examples per class", note, chart


def _stacked(altair: Any, rows: Sequence[dict[str, Any]], names: list[str], colours: list[str], title: str) -> Any:
    return (
        _data(altair, rows)
        .mark_bar(height=13)
        .encode(
            y=altair.Y("name:N", title=None, sort=None, axis=altair.Axis(grid=False)),
            x=altair.X("n:Q", title=title, stack="zero", axis=altair.Axis(tickCount=6)),
            color=_colours(altair, "what", names, colours),
            order=altair.Order("order:Q"),
        )
        .properties(height={"step": 21})
    )


def _features(altair: Any, record: RunRecord) -> _Drawn:
    if not record.features:
        return None
    ranked = sorted(record.features, key=lambda feature: -feature.importance)
    shown, more = _largest(ranked, lambda feature: abs(feature.importance))
    rows = [{"name": f.name, "importance": f.importance, "what": "kept" if f.kept else "cut out"} for f in shown]
    chart = (
        _data(altair, rows)
        .mark_bar(height=13)
        .encode(
            y=altair.Y("name:N", title=None, sort=None, axis=altair.Axis(grid=False)),
            x=altair.X("importance:Q", title="permutation importance", axis=altair.Axis(tickCount=6)),
            color=_colours(altair, "what", ["kept", "cut out"], ["leaf", "sand"]),
        )
        .properties(height={"step": 21})
    )
    kept = sum(feature.kept for feature in record.features)
    rest = "; the others hardly matter" if kept < len(record.features) else ""
    return "Input features", f"{kept} of {len(record.features)} stay{rest}.{more}", chart


def _curves(altair: Any, record: RunRecord) -> _Drawn:
    rows = [
        {"stage": stage, "epoch": epoch, "loss": loss}
        for stage, curve in record.curves.items()
        for epoch, loss in enumerate(curve.loss, start=1)
    ]
    if not rows:
        return None
    names = list(record.curves)
    cycle = ["grey", *_CYCLE]
    chart = (
        _data(altair, rows)
        .mark_line(strokeWidth=2, interpolate="monotone")
        .encode(
            x=altair.X("epoch:Q", title="epoch", axis=altair.Axis(tickMinStep=1, grid=False)),
            y=altair.Y("loss:Q", title="training loss", axis=altair.Axis(tickCount=5)),
            color=_colours(
                altair,
                "stage",
                names,
                [cycle[i % len(cycle)] for i in range(len(names))],
                sort=names,
                legend=altair.Legend(symbolStrokeWidth=2.5),
            ),
        )
        .properties(height=230)
    )
    return "Learning curves", f"Seed {record.seeds[0]}. A distilled loss has another scale.", chart


def _largest(items: Sequence[Any], weight: Callable[[Any], float]) -> tuple[list[Any], str]:
    """Return the items that weigh most, in their own order, and words for what is left out."""
    if len(items) <= _MOST_ROWS:
        return list(items), ""
    order = sorted(range(len(items)), key=lambda i: (-weight(items[i]), i))[:_MOST_ROWS]
    return [items[i] for i in sorted(order)], f" The {_MOST_ROWS} that changed most, of {len(items)}."
