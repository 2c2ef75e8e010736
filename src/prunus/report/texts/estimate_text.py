"""What does a person read of an estimate: what each stage would take, and whether it fits here?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["print_estimate"]


def print_estimate(found: Mapping[str, Any], console: Console) -> None:
    """Print an estimate, as :meth:`prunus.pipeline.planner.estimate_run.Estimate.to_dict` gives it."""
    where = "in memory" if found["in_memory"] else "from disk"
    sizes = " and ".join(f"{n:,}" for n in found["sample_rows"])
    shared = found["workers"] * found["nodes"]
    among = f", training shared out evenly among {shared} processes" if shared > 1 else ""
    times = [found["seconds"], *(stage["seconds"] for stage in found["stages"])]
    ranged = any(amount["low"] < amount["high"] for amount in times)
    ranges = (
        "ranges hold four of five" if ranged else "without ranges, which take more than one run of each (--repeats)"
    )
    console.print(f"{found['rows']:,} rows, {where}{among}; measured on {sizes} rows; {ranges}\n")
    table = Table("stage", "for", "time", "processor", "private memory", box=None, pad_edge=False)
    for stage in sorted(found["stages"], key=lambda one: -one["seconds"]["value"]):
        amounts = (_time(stage["seconds"]), _time(stage["cpu_seconds"]), _bytes(stage["peak_bytes"]))
        table.add_row(stage["name"], stage["group"], *amounts)
    console.print(table)
    console.print(f"\ntime    {_time(found['seconds'])} ({_time(found['cpu_seconds'])} of the processor)")
    console.print(f"memory  {_bytes(found['peak_bytes'])} for each process that no file backs", end="")
    console.print(f", {_bytes(found['node_bytes'])} on each machine" if found["workers"] > 1 else "")
    cache = f"{_size(found['cache_bytes'])} of converted rows (at most {_size(found['cache_peak_bytes'])} while they are made), "
    more = f"{_bytes(found['output_bytes'])} of output, {_bytes(found['scratch_bytes'])} of scratch while it runs"
    console.print(f"disk    {'' if found['in_memory'] else cache}{more}")
    for needed, held, what, cure in (
        (found["node_bytes"]["value"], found["memory_here"], "memory", "data.in_memory: false, or a larger machine"),
        (
            found["cache_peak_bytes"] + found["scratch_bytes"]["value"],
            found["disk_here"],
            "disk",
            "another folder (data.cache, TMPDIR)",
        ),
    ):
        if needed > held:
            console.print(f"too much {what} for this machine, which has {_size(held)}: {cure}")


def _time(amount: Mapping[str, float]) -> str:
    return _ranged(amount, _span)


def _bytes(amount: Mapping[str, float]) -> str:
    return _ranged(amount, _size)


def _ranged(amount: Mapping[str, float], said: Any) -> str:
    low, value, high = (said(amount[key]) for key in ("low", "value", "high"))
    return value if low == high else f"{value} ({low} to {high})"


def _span(seconds: float) -> str:
    """Return a time as one says it.

    >>> _span(3.21), _span(90.0), _span(7200.0), _span(400_000.0)
    ('3.2 s', '90 s', '2.0 h', '4.6 days')
    """
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def _size(n_bytes: float) -> str:
    """Return an amount of memory as one says it.

    >>> _size(2.5e9), _size(7_340_000), _size(0)
    ('2.5 GB', '7 MB', '0 MB')
    """
    if n_bytes >= 1e12:
        return f"{n_bytes / 1e12:.1f} TB"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
