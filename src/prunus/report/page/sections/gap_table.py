"""How did the gap between training and validation examples go over the pruning steps?"""

from __future__ import annotations

from prunus.report.format import called, percent, value
from prunus.report.page.page_marks import escape, table
from prunus.report.record import RunRecord
from prunus.report.record_parts import GapStep

__all__ = ["gap_lines", "gap_trend_html"]

_HEAD = ("cut", "units left", "training examples", "validation examples", "gap", "dense gap", "")


def gap_trend_html(record: RunRecord) -> str:
    """Return a row for each cut of each seed; nothing where there was no course of them."""
    if not record.gap_trend:
        return ""
    several = len({row.seed for row in record.gap_trend}) > 1
    rows = [
        [
            escape(f"{f'seed {row.seed}, ' if several else ''}{row.cut}"),
            escape(percent(row.kept)),
            *(escape(value(row.metric, number)) for number in (row.train, row.validation, row.gap, row.dense_gap)),
            "taken back: beyond the margin" if row.taken_back else "",
        ]
        for row in record.gap_trend
    ]
    metric = called(record.gap_trend[0].metric)
    return (
        f'<p class="dim">{escape(metric[0].upper() + metric[1:])} after each cut and its recovery. The gap is by how much training '
        "examples are answered better than validation examples; where it grows beyond the dense model’s, the smaller model "
        f"over-fits. {escape(_course(record))}</p>{table(list(_HEAD), rows)}"
    )


def gap_lines(record: RunRecord) -> list[str]:
    """Return the course of each seed in one line."""
    return [line for line in (_course(record),) if line]


def _course(record: RunRecord) -> str:
    """Return how the gap went over the steps of the first seed."""
    if not record.gap_trend:
        return ""
    first = [row for row in record.gap_trend if row.seed == record.gap_trend[0].seed]
    last = first[-1]
    steps = " → ".join(_said(row) for row in first)
    return f"Gap between training and validation examples, dense {value(last.metric, last.dense_gap)}: {steps}."


def _said(row: GapStep) -> str:
    return f"{value(row.metric, row.gap)} at {percent(row.kept)}{' (taken back)' if row.taken_back else ''}"
