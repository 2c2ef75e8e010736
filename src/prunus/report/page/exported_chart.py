"""Which of dense, pruned, int8 and both is worth its time: quality against time of the exported files."""

from __future__ import annotations

from typing import Any

from prunus.report.format import called, is_share
from prunus.report.page.page_style import PALETTE
from prunus.report.record import RunRecord

__all__ = ["exported_chart"]

_COLOURS = {"dense": "grey", "pruned": "plum", "dense int8": "blue", "pruned int8": "leaf"}


def exported_chart(altair: Any, record: RunRecord) -> tuple[str, str, Any] | None:
    """Return title, note and chart of the exported files whose time was measured; None where fewer than two were.

    A dashed line joins the frontier: the files than which none is both faster and better.
    """
    if record.int8 is None:
        return None
    metric, times = record.int8.metric, record.int8_times
    scale = 100 if is_share(metric) else 1
    rows = [
        {
            "file": row.name,
            "ms": times[row.name].milliseconds.value,
            "ms low": _or(times[row.name].milliseconds.low, times[row.name].milliseconds.value),
            "ms high": _or(times[row.name].milliseconds.high, times[row.name].milliseconds.value),
            **{part: scale * _or(getattr(row.quality, part), row.quality.value) for part in ("value", "low", "high")},
        }
        for row in record.int8.rows
        if row.name in times and row.quality.value is not None and times[row.name].milliseconds.value is not None
    ]
    if len(rows) < 2:
        return None
    better = record.int8.rows[0].quality.higher_is_better is not False
    frontier = [row for row in rows if not any(_beats(other, row, better) for other in rows)]
    title = f"test {called(metric)}{', %' if scale == 100 else ''}"
    x = altair.X("ms:Q", title="ms per batch", axis=altair.Axis(grid=False, tickCount=5), scale=altair.Scale(zero=True))
    y = altair.Y("value:Q", title=title, scale=altair.Scale(zero=False, padding=12), axis=altair.Axis(tickCount=5))
    names = [str(row["file"]) for row in rows]
    colour = altair.Color(
        "file:N",
        scale=altair.Scale(domain=names, range=[PALETTE[_COLOURS[name]] for name in names]),
        legend=altair.Legend(symbolOpacity=1, symbolType="circle", symbolStrokeWidth=0),
    )
    base = altair.Chart(altair.Data(values=rows))
    joined = altair.Chart(altair.Data(values=frontier)).mark_line(
        strokeWidth=1, strokeDash=[2, 3], color=PALETTE["grey"]
    )
    spans = base.mark_rule(strokeWidth=5, opacity=0.16)
    chart = (
        joined.encode(x=x, y=y)
        + spans.encode(x=x, y=altair.Y("low:Q", title=title), y2="high:Q", color=colour)
        + spans.encode(x=altair.X("ms low:Q", title="ms per batch"), x2="ms high:Q", y=y, color=colour)
        + base.mark_point(size=70, filled=True, opacity=1).encode(x=x, y=y, color=colour)
    )
    note = (
        "Each exported file in the runtime that is fastest for it; bars are intervals of quality and of time. "
        "The dashed line joins those than which none is both faster and better."
    )
    return f"Test {called(metric)} against time", note, chart.properties(height=230)


def _or(number: float | None, other: float | None) -> float:
    return float(number if number is not None else other if other is not None else 0.0)


def _beats(one: dict[str, Any], other: dict[str, Any], higher: bool) -> bool:
    """Tell whether a file is at least as fast and as good as another, and more in one of them."""
    better = (one["value"] - other["value"]) * (1 if higher else -1)
    faster = other["ms"] - one["ms"]
    return bool(better >= 0 and faster >= 0 and (better > 0 or faster > 0))
