"""How is said what was timed: whether a pruned model is faster than the best dense one, and by how much, where?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunus.report.format import amount, ratio_with_interval
from prunus.report.record import Number
from prunus.report.text_tables import add_row, plain_cell, plain_table, show_table

__all__ = ["bench_headline", "print_bench"]


def print_bench(found: Mapping[str, Any], console: Console) -> None:
    """Print what ``prunus bench`` found: the verdict first, then a table for each batch size and number of threads."""
    for line in bench_headline(found):
        console.print(Text(line.text, style=f"bold {'green' if line.good else 'red'}"))
    called = {runtime["name"]: runtime["called"] for runtime in found["runtimes"]}
    models = [model["name"] for model in found["models"]]
    for cell in found["cells"]:
        base = cell["baseline"]
        title = f"batch of {cell['batch_size']}, {_threads(cell['threads'])}"
        if base is not None:
            title += f": the best dense one is {base['called']}'s, {base['milliseconds']['value']:.4g} ms"
        console.print()
        show_table(_beside(cell, title, models, called) if len(models) < 3 else _below(cell, title, called), console)
    console.print()
    sizes = ", ".join(f"{m['name']} {amount(m['parameters'])}" for m in found["models"] if "parameters" in m)
    lines = [f"parameters: {sizes}"] if sizes else []
    drawn = [m["name"] for m in found["models"] if m.get("weights") == "drawn"]
    lines += [f"{name}: its structure with drawn weights, on which time doesn't depend" for name in drawn]
    lines += [f"{item['called']} wasn't timed: {item['reason']}" for item in found["missing"]]
    told = {(item["model"], item["runtime"]): item["reason"] for item in found["failed"]}
    lines += [f"{model} wasn't timed in {called[runtime]}: {why}" for (model, runtime), why in told.items()]
    clocks = {cell["clock"] for cell in found["cells"]}
    said = {"processor": "processor time where one thread does it all", "wall": "wall time of several threads"}
    lines.append(
        f"{found['repeats']} rounds in which all took turns; {', '.join(said[clock] for clock in sorted(clocks))}; ratios are "
        "medians within rounds (95 % interval)"
    )
    load = found["machine"]["load"]
    if "wall" in clocks and load is not None and load > 0.5:
        lines.append(f"the machine had {load:.2g} other processes at work: times of several threads say little then")
    for text in lines:
        console.print(plain_cell(text), style="dim")


def _beside(cell: Mapping[str, Any], title: str, models: Sequence[str], called: Mapping[str, str]) -> Table:
    """Return a table with a row for each runtime, the models beside each other."""
    against = [name for name in models if name != "dense"] if cell["baseline"] is not None else []
    heads = [f"{name}, ms (quartiles)" for name in models]
    table = plain_table(title, "", *heads, *(f"{name} against the best dense" for name in against))
    for name, label in called.items():
        rows = {row["model"]: row for row in cell["times"] if row["runtime"] == name}
        if rows:
            add_row(table, label, *(_time(rows.get(m)) for m in models), *(_ratio(rows.get(m)) for m in against))
    return table


def _below(cell: Mapping[str, Any], title: str, called: Mapping[str, str]) -> Table:
    """Return a table with a row for each runtime and model."""
    table = plain_table(title, "", "", "ms (quartiles)", "against the best dense", left=2)
    for name, label in called.items():
        for row in cell["times"]:
            if row["runtime"] == name:
                add_row(table, label, row["model"], _time(row), _ratio(row))
                label = ""
    return table


class _Line:
    def __init__(self, text: str, *, good: bool) -> None:
        self.text, self.good = text, good


def bench_headline(found: Mapping[str, Any]) -> list[_Line]:
    """Return of each model in one sentence whether it is faster than the best dense one."""
    called = {runtime["name"]: runtime["called"] for runtime in found["runtimes"]}
    return [_Line(_sentence(item, called), good=not item["not_faster"]) for item in found["verdict"]]


def _sentence(item: Mapping[str, Any], called: Mapping[str, str]) -> str:
    slow, fast = item["not_faster"], item["faster"]
    if not slow and not fast:
        return f"{item['model']} could not be timed beside the dense model"
    if slow:
        where = "; ".join(_place(place, called) for place in slow[:3]) + ("; ..." if len(slow) > 3 else "")
        rest = f"; it is elsewhere, {_range(fast)}" if fast else ""
        return f"{item['model']} is NOT faster than the best dense model: {where}{rest}"
    best = "; ".join(_place(place, called) for place in fast[:3]) + ("; ..." if len(fast) > 3 else "")
    return f"{item['model']} is faster than the best dense model: {best}"


def _place(place: Mapping[str, Any], called: Mapping[str, str]) -> str:
    ratio = ratio_with_interval(Number.model_validate(place["speedup"]))
    ran, base = called[place["runtime"]], called[place["baseline"]]
    where = ran if ran == base else f"{ran} against {base}"
    return f"{ratio} at a batch of {place['batch_size']}, {_threads(place['threads'])} ({where})"


def _range(places: Sequence[Mapping[str, Any]]) -> str:
    values = sorted(place["speedup"]["value"] for place in places)
    return f"{values[0]:.2f}x" if len(values) == 1 else f"{values[0]:.2f}x to {values[-1]:.2f}x"


def _threads(n: int) -> str:
    return f"{n} thread{'s' * (n > 1)}"


def _time(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "–"
    time = row["milliseconds"]
    return f"{time['value']:.4g} ({time['low']:.4g} to {time['high']:.4g})"


def _ratio(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None or row["speedup"] is None else ratio_with_interval(Number.model_validate(row["speedup"]))
