"""The frontier of exported files joins those than which none is both faster and better."""

import pytest

from prunus.report import render_html
from prunus.report.page.charts import all_charts
from prunus.report.page.exported_chart import exported_chart
from report_samples import facts_of, number, sample

FOUND = {  # accuracy, milliseconds
    "dense": (0.95, 4.0),
    "pruned": (0.94, 2.0),
    "dense int8": (0.935, 2.5),
    "pruned int8": (0.93, 1.0),
}


def shipped(found, *, higher=True, untimed=()):
    rows = [
        {"name": name, "size_bytes": 1000, "quality": number(value, value - 0.01, value + 0.01, "accuracy")}
        for name, (value, _) in found.items()
    ]
    for row in rows:
        row["quality"]["higher_is_better"] = higher
    times = [
        {"name": name, "runtime": "ONNX Runtime", "milliseconds": number(ms, ms - 0.1, ms + 0.1, "ms"), "speedup": None}
        for name, (_, ms) in found.items()
        if name not in untimed
    ]
    facts = facts_of(sample())
    int8 = {"metric": "accuracy", "method": "static", "rows": rows, "test": None}
    return sample(int8=int8, timing=facts["timing"] | {"int8": times})


def frontier(record):
    altair = pytest.importorskip("altair")
    _, _, chart = exported_chart(altair, record)
    return [row["file"] for row in chart.to_dict()["layer"][0]["data"]["values"]]


def test_the_line_joins_what_nothing_beats():
    assert frontier(shipped(FOUND)) == ["dense", "pruned", "pruned int8"]
    same = dict.fromkeys(FOUND, (0.9, 1.0))
    assert frontier(shipped(same)) == list(FOUND), "equal files don't beat each other"
    assert frontier(shipped(FOUND, higher=False)) == ["pruned int8"], "of a loss the smaller is better"


def test_there_is_a_chart_where_two_were_timed():
    titles = [chart.title for chart in all_charts(shipped(FOUND))]
    assert titles[:2] == ["Test accuracy against size", "Test accuracy against time"]
    assert "Test accuracy against time" in render_html(shipped(FOUND))
    few = shipped(FOUND, untimed=("pruned", "dense int8", "pruned int8"))
    assert "Test accuracy against time" not in [chart.title for chart in all_charts(few)]
