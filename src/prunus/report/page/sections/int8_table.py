"""How do dense, pruned, int8 and both compare, and what may one rely on of the int8 file?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunus.report.format import called, percent, ratio_with_interval, size, with_interval
from prunus.report.page.page_marks import escape, table
from prunus.report.page.searches import drop
from prunus.report.record import RunRecord

__all__ = ["int8_cells", "int8_head", "int8_html", "int8_outcome", "with_int8"]


def int8_head(metric: str) -> tuple[str, ...]:
    """Return the columns."""
    return ("exported file", "size", f"test {called(metric)} (95 %)", "ms per batch", "in", "against the best dense")


def with_int8(record: RunRecord, facts: Mapping[str, Any], times: Sequence[Mapping[str, Any]]) -> RunRecord:
    """Return the record of a run with what its int8 stage found."""
    tree = record.model_dump(mode="json")
    return RunRecord.model_validate(tree | {"int8": dict(facts), "timing": record.timing | {"int8": list(times)}})


def int8_cells(record: RunRecord) -> list[list[str]]:
    """Return a row of cells for each of the exported files."""
    assert record.int8 is not None
    times, rows = record.int8_times, []
    for row in record.int8.rows:
        time = times.get(row.name)
        cells = [row.name, size(row.size_bytes), with_interval(record.int8.metric, row.quality)]
        if time is None:
            rows.append([*cells, "–", "", "–"])
            continue
        against = "" if time.speedup is None else ratio_with_interval(time.speedup)
        rows.append([*cells, f"{time.milliseconds.value or 0:.3g}", time.runtime, against])
    return rows


def int8_outcome(record: RunRecord) -> str:
    """Return in one sentence whether there is an int8 file, and what test examples showed of it."""
    facts = record.int8
    assert facts is not None
    if facts.problem or facts.test is None:
        return f"no int8 file is left: {facts.problem}"
    row = next(row for row in facts.rows if row.name == "pruned int8")
    n_layers, test = row.n_layers or 0, facts.test
    layers = f"{n_layers - len(row.in_float)} of {n_layers} layers"
    return (
        f"{facts.file}: {facts.method} int8 in {layers}; {called(test.metric)} drops by at most "
        f"{drop(test.metric, test.bound)} against the dense model with {percent(test.confidence)} confidence, shown by the file's "
        f"own answers to {test.n} test examples ({drop(test.metric, test.max_drop)} allowed)"
    )


def int8_html(record: RunRecord) -> str:
    """Return the table of the files, and the sentence."""
    if record.int8 is None:
        return ""
    said = int8_outcome(record)
    rows = [[escape(cell) for cell in cells] for cells in int8_cells(record)]
    return f"<p>{escape(said[0].upper() + said[1:])}.</p>" + table(int8_head(record.int8.metric), rows)
