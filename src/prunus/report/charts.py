"""Which pictures does a report draw? Each is an SVG text, drawn by altair (the extra ``report``)."""

from __future__ import annotations

from typing import Any

from prunus.core.extras import require
from prunus.report.record import RunRecord
from prunus.report.words import is_share

__all__ = ["all_charts"]

GREEN, GREY, RED, BLUE = "#2f7d4f", "#9aa0a6", "#b3402e", "#33658a"


def all_charts(record: RunRecord) -> dict[str, str]:
    """Return the charts that this record has something to show in, by title.

    Raises:
        MissingExtraError: altair or vl-convert isn't installed.
    """
    altair = require("altair", extra="report")
    require("vl_convert", extra="report")
    drawn = {
        "Quality against size": _quality_against_size(altair, record),
        "Change per class": _class_changes(altair, record),
        "Kept per layer": _layers(altair, record),
        "Training examples per class": _classes(altair, record),
        "Input features": _features(altair, record),
        "Learning curves": _curves(altair, record),
    }
    return {title: _svg(chart) for title, chart in drawn.items() if chart is not None}


def _svg(chart: Any) -> str:
    import vl_convert

    styled = (
        chart.configure(font="system-ui, sans-serif", background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#8884",
            domainColor="#8888",
            tickColor="#8888",
            labelColor="#888",
            titleColor="#888",
            titleFontWeight="normal",
        )
        .configure_legend(labelColor="#888", title=None, orient="top")
    )
    text: str = vl_convert.vegalite_to_svg(styled.to_dict())
    return text


def _quality_against_size(altair: Any, record: RunRecord) -> Any:
    metric = record.comparison[0].metric
    scale = 100 if is_share(metric) else 1
    rows = [
        {
            "model": row.model,
            "kB": record.cost[row.model].size_bytes / 1000,
            "value": scale * number.value,
            "seed": row.seed,
        }
        for row in record.quality
        if row.split == "test"
        for number in row.metrics
        if number.name == metric and number.value is not None
    ]
    return (
        altair.Chart(altair.Data(values=rows), width=380, height=200)
        .mark_point(size=90, filled=True, opacity=0.75)
        .encode(
            x=altair.X("kB:Q", title="weights on disk, kB", scale=altair.Scale(zero=True)),
            y=altair.Y(
                "value:Q",
                title=f"test {metric}{', %' if scale == 100 else ''}",
                scale=altair.Scale(zero=False, padding=14),
            ),
            color=_models(altair),
            shape=altair.Shape("model:N", scale=altair.Scale(domain=["dense", "pruned"]), legend=None),
        )
    )


def _models(altair: Any) -> Any:
    return altair.Color("model:N", scale=altair.Scale(domain=["dense", "pruned"], range=[GREY, GREEN]))


def _class_changes(altair: Any, record: RunRecord) -> Any:
    if not record.class_changes:
        return None
    rows = [
        {"class": n.name, "value": 100 * n.value, "low": 100 * n.low, "high": 100 * n.high}
        for n in record.class_changes
        if n.value is not None and n.low is not None and n.high is not None
    ]
    base = altair.Chart(altair.Data(values=rows), width=380).encode(y=altair.Y("class:N", title=None, sort=None))
    bars = base.mark_rule(strokeWidth=3, color=BLUE, opacity=0.5).encode(
        x=altair.X("low:Q", title="change of recall, points"), x2="high:Q"
    )
    return bars + base.mark_point(filled=True, size=60, color=BLUE).encode(x="value:Q")


def _layers(altair: Any, record: RunRecord) -> Any:
    if not record.layers:
        return None
    rows = [
        {"layer": layer.name, "what": what, "n": n, "order": order}
        for layer in record.layers
        for order, (what, n) in enumerate((("kept", layer.after), ("removed", layer.before - layer.after)))
    ]
    return _stacked(altair, rows, "layer", ["kept", "removed"], [GREEN, "#d9c9a5"], f"{record.layers[0].granularity}s")


def _classes(altair: Any, record: RunRecord) -> Any:
    if not any(c.removed or c.relabelled for c in record.classes):
        return None
    rows = []
    for c in record.classes:
        parts = (("kept", c.before - c.removed - c.relabelled), ("relabelled", c.relabelled), ("removed", c.removed))
        rows += [{"class": c.name, "what": what, "n": n, "order": order} for order, (what, n) in enumerate(parts)]
    return _stacked(
        altair, rows, "class", ["kept", "relabelled", "removed"], [GREEN, BLUE, "#d9c9a5"], "training examples"
    )


def _stacked(altair: Any, rows: list[dict[str, Any]], by: str, names: list[str], colours: list[str], title: str) -> Any:
    return (
        altair.Chart(altair.Data(values=rows), width=380)
        .mark_bar()
        .encode(
            y=altair.Y(f"{by}:N", title=None, sort=None),
            x=altair.X("n:Q", title=title, stack="zero"),
            color=altair.Color("what:N", scale=altair.Scale(domain=names, range=colours)),
            order=altair.Order("order:Q"),
        )
    )


def _features(altair: Any, record: RunRecord) -> Any:
    if not record.features:
        return None
    rows = [
        {"feature": f.name, "importance": f.importance, "what": "kept" if f.kept else "removed"}
        for f in record.features
    ]
    return (
        altair.Chart(altair.Data(values=rows), width=380)
        .mark_bar()
        .encode(
            y=altair.Y("feature:N", title=None, sort="-x"),
            x=altair.X("importance:Q", title="loss when shuffled"),
            color=altair.Color("what:N", scale=altair.Scale(domain=["kept", "removed"], range=[GREEN, "#d9c9a5"])),
        )
    )


def _curves(altair: Any, record: RunRecord) -> Any:
    rows = [
        {"stage": stage, "epoch": epoch, "loss": loss}
        for stage, curve in record.curves.items()
        for epoch, loss in enumerate(curve.loss, start=1)
    ]
    if not rows:
        return None
    return (
        altair.Chart(altair.Data(values=rows), width=380, height=200)
        .mark_line(strokeWidth=2)
        .encode(
            x=altair.X("epoch:Q", title="epoch", axis=altair.Axis(tickMinStep=1)),
            y=altair.Y("loss:Q", title="training loss"),
            color=altair.Color("stage:N", sort=list(record.curves)),
        )
    )
