"""How does a result read on a terminal, and when it is piped?"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunus.core.units import plural
from prunus.report.format import (
    amount,
    called,
    difference,
    headline,
    lead_metrics,
    mask_note,
    percent,
    ratio_with_interval,
    size,
    suspected,
    times,
    told,
    value,
    with_interval,
)
from prunus.report.gate_text import print_gate
from prunus.report.page.joint.joint_text import print_joint
from prunus.report.page.provenance import scorer_line
from prunus.report.page.repairs import adjustment_lines, allocation_line
from prunus.report.page.searches import HEAD, candidate_cells, drop, outcome
from prunus.report.page.sections.gap_table import gap_lines
from prunus.report.page.sections.int8_table import int8_cells, int8_head, int8_outcome
from prunus.report.record import Number, RunRecord
from prunus.report.record_searches import SearchFacts
from prunus.report.text_tables import add_row as _add
from prunus.report.text_tables import plain_cell as _plain
from prunus.report.text_tables import plain_table as _table
from prunus.report.text_tables import show_table as _show

__all__ = [
    "exported_line",
    "int8_line",
    "predictions_csv",
    "print_cleaned",
    "print_criteria",
    "print_plan",
    "print_predictions",
    "print_qualities",
    "print_summary",
    "problem_line",
]

_COLOURS = {"better": "green", "worse": "red", "no measurable difference": "cyan"}


def print_summary(record: RunRecord, console: Console) -> None:
    """Print what a run achieved."""
    console.print()
    console.print(Text(headline(record), style=f"bold {_COLOURS[record.comparison[0].verdict]}"))
    console.print()
    _show(_quality_table(record), console)
    if rest := [called(row.metric) for row in lead_metrics(record)[1]]:
        more = f"{len(rest)} more with the same verdict ({', '.join(rest)}): in the report, and with --json"
        console.print(_plain(more), style="dim")
    console.print()
    _show(_cost_table(record), console)
    for search in record.searches:
        console.print()
        _show(_search_table(search), console)
        console.print(_plain(f"seed {search.seed}: {outcome(search)}"))
    if record.int8 is not None:
        console.print()
        table = _table("Exported files", *int8_head(record.int8.metric))
        for cells in int8_cells(record):
            _add(table, *cells)
        _show(table, console)
        console.print(_plain(int8_outcome(record)))
    if record.gate is not None:
        console.print()
        print_gate(record.gate, console)
        console.print()
    if record.joint is not None:
        console.print()
        print_joint(record.joint, console)
        console.print()
    for line in (*_group_lines(record), *gap_lines(record), *_removals(record), *adjustment_lines(record)):
        console.print(_plain(line))
    if record.data.test_set:
        console.print(_plain(f"test set: {record.data.test_set}"), style="dim")
    for note in record.notes:
        console.print(_plain(f"note: {note}"), style="dim")
    console.print()


def _group_lines(record: RunRecord) -> list[str]:
    """Return in which groups something changed measurably, with intervals that hold for all of them together."""
    found = record.group_changes
    if found is None:
        return []
    apart = [item for item in found.changes if item.verdict != "no measurable difference"]
    said = "; ".join(
        f"{item.verdict} in {item.name} ({difference(found.metric, item.difference)}; n {amount(item.n)})"
        for item in apart[:5]
    )
    more = f"; and in {len(apart) - 5} more: see the report" if len(apart) > 5 else ""
    what = f"{called(found.metric)} by {found.column}, {len(found.changes)} groups looked at at once"
    return [f"{what}: {said or 'no measurable difference in any'}{more}"]


def _quality_table(record: RunRecord) -> Table:
    n = len(record.seeds)
    title = f"Quality (mean over {n} seeds)" if n > 1 else "Quality (one seed: says nothing about other seeds)"
    table = _table(
        title, "", "dense train", "dense test", "pruned train", "pruned test", "pruned - dense (95 %)", "", left=1
    )
    for row in lead_metrics(record)[0]:
        cells = [
            value(row.metric, record.mean(model, split, row.metric))
            for model in ("dense", "pruned")
            for split in ("train", "test")
        ]
        mark = Text(row.verdict, style=_COLOURS[row.verdict])
        _add(table, row.metric, *cells, difference(row.metric, row.difference), mark)
    return table


def _cost_table(record: RunRecord) -> Table:
    dense, pruned = record.cost["dense"], record.cost["pruned"]
    table = _table("Cost", "", "dense", "pruned", "ratio")
    _add(
        table,
        "parameters",
        amount(dense.parameters),
        amount(pruned.parameters, dense.parameters),
        times(record.ratio("parameters")),
    )
    if pruned.nonzero_parameters < 0.99 * pruned.parameters:
        row = (amount(dense.nonzero_parameters), amount(pruned.nonzero_parameters, dense.nonzero_parameters))
        _add(table, "  not zero", *row, times(record.ratio("nonzero_parameters")))
    _add(table, "MACs per example", amount(dense.macs), amount(pruned.macs, dense.macs), times(record.ratio("macs")))
    _add(table, "weights on disk", size(dense.size_bytes), size(pruned.size_bytes), times(record.ratio("size_bytes")))
    latency = record.latency
    if latency is not None and latency.speedup is not None:
        cells = (f"{latency.milliseconds[name].value or 0:.3g} ms" for name in ("dense", "pruned"))
        name = f"latency, batch of {latency.batch_size}, {latency.runtime}"
        _add(table, name, *cells, ratio_with_interval(latency.speedup))
    return table


def _search_table(search: SearchFacts) -> Table:
    table = _table(f"Search for {search.cost}, seed {search.seed}", *HEAD)
    for row in search.candidates:
        _add(table, *candidate_cells(search, row))
    return table


def _removals(record: RunRecord) -> list[str]:
    lines = []
    units: dict[str, list[int]] = {}
    for layer in record.layers:
        totals = units.setdefault(layer.granularity, [0, 0, 0])
        for position, number in enumerate((layer.before, layer.after, 1)):
            totals[position] += number
    for granularity, (before, after, groups) in units.items():
        lines.append(
            f"{plural(granularity)}: {amount(after, before)} of {amount(before)} kept in {groups} group{'s' if groups > 1 else ''}"
        )
    removed, relabelled = (sum(getattr(c, what) for c in record.classes) for what in ("removed", "relabelled"))
    if removed or relabelled:
        total = sum(c.before for c in record.classes)
        lines.append(
            f"training examples: {amount(removed, total)} of {amount(total)} removed, {amount(relabelled)} relabelled"
        )
    if line := scorer_line(record.scorer):
        lines.append(f"examples scored by {line}")
    if line := suspected(record):
        lines.append(line)
    if record.data.noise is not None:
        noise = record.data.noise
        lines.append(
            f"labels flipped on purpose: {noise.n_found} of {noise.n_flipped} found, {noise.n_repaired} repaired"
            + (f"; {amount(noise.n_clean)} clean ones went or changed with them" if noise.n_clean else "")
        )
    if record.features:
        kept = sum(f.kept for f in record.features)
        lines.append(f"input features: {kept} of {len(record.features)} kept")
    if record.kind == "graph":
        lines.append("the pruned model is the traced computation, not the original class (see the notes)")
    if note := mask_note(record):
        lines.append(note)
    if line := allocation_line(record):
        lines.append(line)
    return lines


def print_cleaned(summary: Mapping[str, Any], console: Console) -> None:
    """Print what is wrong with training examples: how many, how many of them surely, and the first few."""
    n, labels, alike = summary["n"], summary["labels"], summary["n_alike"]
    precision = {item["action"]: item["precision"] for item in summary["precision"]}
    table = _table(f"{amount(n['train'])} training examples", "", "examples", "of these estimated wrong (95 %)")
    if labels is not None:
        noise = Number.model_validate(labels["noise"])
        _add(table, "labels estimated to be wrong, if by chance", _share(noise) if told(noise) else "can't be told", "")
        for word, key in (("relabelled", "n_relabelled"), ("removed", "n_dropped"), ("flagged", "n_flagged")):
            if labels[key] or word != "flagged":
                sure = _share(Number.model_validate(precision[word])) if word in precision else ""
                _add(table, f"  would be {word}" if word != "flagged" else "  flagged", amount(labels[key]), sure)
    _add(table, "near-duplicates with the same label, removed", amount(alike["dropped"]), "")
    _add(table, "near-duplicates with another label, kept", amount(alike["otherwise"]), "")
    leaked = f"{amount(alike['leaked'])} of {amount(n['test'])}"
    _add(table, "test examples that are like a training example", leaked, "")
    _show(table, console)
    if summary["suspects"]:
        console.print()
        table = _table("The most suspect", "id", "label", "new label", "", "wrong with", left=4)
        for row in summary["suspects"]:
            _add(table, row["id"], row["given"], row["suggested"] or "", row["action"], f"{1 - row['score']:.3f}")
        _show(table, console)
    if summary["leaked"]:
        console.print()
        table = _table("Test examples that training knows", "id", "like", "likeness", left=2)
        for row in summary["leaked"]:
            _add(table, row["id"], row["like"], f"{row['likeness']:.4f}")
        _show(table, console)


def _share(number: Number) -> str:
    return f"{percent(number.value)} ({percent(number.low)} to {percent(number.high)})"


def print_plan(summary: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what a plan would do, per step and stratum."""
    for number, step in enumerate(summary, start=1):
        what = f"{number}. {step['operation']} {plural(step['granularity'])} by {step['criterion']}"
        table = _table(
            f"{what}: {amount(step['kept'], step['units'])} of {amount(step['units'])} stay", "", "units", "stay", "go"
        )
        for stratum in step["strata"]:
            gone = stratum["units"] - stratum["kept"]
            _add(table, stratum["name"], amount(stratum["units"]), amount(stratum["kept"]), amount(gone))
        _show(table, console)
        console.print()


def print_qualities(result: Mapping[str, Any], console: Console) -> None:
    """Print the quality and the cost of one bundle."""
    splits = result["splits"]
    table = _table(str(result["bundle"]), "", *(f"{name} (95 %)" for name in splits))
    rows = {name: [Number.model_validate(m) for m in quality["metrics"]] for name, quality in splits.items()}
    for position, metric in enumerate(next(iter(rows.values()))):
        _add(table, metric.name, *(with_interval(metric.name, numbers[position]) for numbers in rows.values()))
    _show(table, console)
    for name, quality in splits.items():
        if quality["per_class"]:
            console.print()
            table = _table(f"per class, {name}", "", "examples", "precision", "recall", "F1")
            for item in quality["per_class"]:
                cells = (percent(item[part]["value"]) for part in ("precision", "recall", "f1"))
                _add(table, item["name"], amount(item["support"]), *cells)
            _show(table, console)
    cost = result["cost"]
    console.print()
    console.print(
        f"{amount(cost['parameters'])} parameters, {amount(cost['macs'])} MACs per example, {size(cost['size_bytes'])} of weights"
        + (f" (the bundle with all that goes along: {size(cost['bundle_bytes'])})" if "bundle_bytes" in cost else ""),
        highlight=False,
    )


def print_predictions(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print predictions as a table."""
    if not rows:
        console.print("no examples")
        return
    rows, names = _in_columns(rows)
    table = _table("", *names, left=2)
    for row in rows:
        cells = (row.get(name, "") for name in names)
        _add(table, *(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells))
    _show(table, console)


def predictions_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return predictions as CSV with a header; a text that a spreadsheet would carry out begins with an apostrophe."""
    text = io.StringIO()
    rows, names = _in_columns(rows)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _in_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows with what is wrong with them as text, and every name that one of them has, ``error`` last."""
    names = dict.fromkeys(name for row in rows for name in row)
    last = ["error"] if names.pop("error", 0) is None else []
    found = [{**row, "error": problem_line(row["error"])} if "error" in row else dict(row) for row in rows]
    return found, [*names, *last] or ["id"]


def problem_line(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a row of a file, in one line."""
    column = "" if error["column"] is None else f", column {error['column']!r}"
    return f"row {error['row']}{column}: expected {error['expected']}, got {error['got']}"


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = value.replace("\r", "\\r")  # the writer leaves it bare, and readers take it for the end of a row
    number = re.fullmatch(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", value, re.IGNORECASE)
    formula = value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not number
    return f"'{value}" if formula else value


def exported_line(facts: Mapping[str, Any]) -> str:
    """Return what an export wrote: the file, its size, and how far its answers are from the bundle's."""
    kernels = {"no": "", "1x1": ", sparse kernels"}.get(facts["zeros"], f", sparse kernels for {facts['zeros']} blocks")
    written = f"{facts['path']}: {size(facts['size_bytes'])}{kernels}"
    written += f" ({facts['version']})" if facts.get("version") else ""
    takes = f"it takes {', '.join(facts['sizes'])}"
    if facts["difference"] is None:
        return (
            f"{written}; {facts['format']} files don't run on this system, so no output was compared: "
            f"{', '.join(facts['checked'])}; {takes}"
        )
    batches = f"batches of {', '.join(map(str, facts['batches']))}"
    samples = f" and {facts['n_samples']} real examples" if facts.get("n_samples") else ""
    return (
        f"{written}; its outputs are within {facts['difference']:.1g} of the largest one of the bundle's, for {batches}{samples}; "
        f"{takes}"
    )


def int8_line(facts: Mapping[str, Any]) -> str:
    """Return what an int8 export wrote, and what was shown of it."""
    test, kept = facts["test"], facts["n_layers"] - len(facts["in_float"])
    smaller = times(facts["float_bytes"] / facts["size_bytes"])
    metric = test["metric"]
    return (
        f"{facts['path']}: {size(facts['size_bytes'])} ({smaller} smaller than in float), {facts['method']} int8 in {kept} of "
        f"{facts['n_layers']} layers; the file's {called(metric)} is {value(metric, test['pruned'])} against "
        f"{value(metric, test['dense'])} of {facts['against']}, a drop of at most {drop(metric, test['bound'])} with "
        f"{percent(test['confidence'])} confidence on {test['n']} test examples ({drop(metric, test['max_drop'])} allowed)"
    )


def print_criteria(rows: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print the criteria that a recipe may name."""
    table = _table("", "name", "where", "judges", "needs", "what it keeps", "source", left=6)
    for row in rows:
        _add(table, row["name"], row["section"], row["judges"], row["needs"], row["summary"], row["reference"])
    _show(table, console)


def print_graph(view: Mapping[str, Any], console: Console) -> None:
    """Print the groups of a model, where they lie, and what can't be pruned."""
    rows = (*view["groups"], *view["stacks"])
    table = _table("", "group", "kind", "units", "parameters each", "MACs each", left=2)
    for row in rows:
        macs = amount(round(row["macs_per_unit"])) if "macs_per_unit" in row else ""
        _add(table, row["name"], row["kind"], amount(row["units"]), amount(row["parameters_per_unit"]), macs)
    _show(table, console)
    console.print("\nwhere they lie", style="bold")
    for row in rows:
        console.print(_plain(f"  {row['name']}: {_some(row['members'])}"))
    if view["frozen"]:
        console.print("\nnot pruned", style="bold")
        for item in view["frozen"]:
            console.print(_plain(f"  {_some(item['axes'])}: {item['reason']}"))
    for note in view["notes"]:
        console.print(f"note: {note}", highlight=False)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
