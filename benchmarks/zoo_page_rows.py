"""Which rows do the zoo's two pages hold already, so that a new run adds to them?

A page shows less than a row has: parameters to a tenth of a million, what is lost to a whole per cent (exactly where the bars name it), reasons cut short.
All that the pages' own sums are made of is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["peer_rows", "zoo_rows"]

Row = dict[str, Any]


def zoo_rows(page: Path) -> list[Row]:
    """Return the rows of the zoo that the page shows."""
    exact = {name: float(lost) / 100 for name, lost in re.findall(r"(\w+) \((\d+\.\d)%\)", _place(page, "bars"))}
    rows = [_zoo_row(cells) for cells in _cells(page, "models")]
    for row in rows:
        if row["status"] == "ok" and row["name"] in exact:
            row["lost"] = exact[row["name"]]
    return rows


def peer_rows(page: Path, zoo: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows that the page beside torch-pruning shows: prunus's, and torch-pruning's.

    ``zoo`` holds prunus's rows of the other page: of models that this one lacks, and what was lost where only its whole per cents are shown.
    """
    ours, peer = {(row["suite"], row["name"]): row for row in zoo}, []
    for suite, name, *cells in _cells(page, "peer models"):
        row = {"suite": suite, "name": name, **_step(*cells[:3])}
        exact = ours.get((suite, name), {}).get("lost")
        if exact is not None and f"{exact:.0%}" == cells[1]:
            row["lost"] = exact
        ours[suite, name] = row
        error = cells[7]
        row = {"suite": suite, "name": name, **_step(*cells[3:6]), "settings": cells[6]}
        narrows = error == "narrows the outputs"
        peer.append(row | ({"same_output_shapes": False} if narrows else {"error": error} if error else {}))
    return list(ours.values()), peer


def _place(page: Path, name: str) -> str:
    found = re.search(rf"<!-- rows: {name} -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL)
    assert found, f"{page} has no place for {name}"
    return found[1]


def _cells(page: Path, name: str) -> list[list[str]]:
    """Return the cells of the place's table, without its two lines of titles."""
    lines = [line for line in _place(page, name).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[2:]]


def _zoo_row(cells: list[str]) -> Row:
    suite, name, parameters, status, kind, uneven, lost, groups, took, failed, what = cells
    row: Row = {"suite": suite, "name": name, "status": status, "parameters": round(float(parameters.split()[0]) * 1e6)}
    row |= {"kind": kind} if kind else {}
    row |= {"uneven": uneven} if uneven != "not run" else {}
    row |= {"lost": float(lost.rstrip("%")) / 100} if lost else {}
    row |= {"groups": int(groups)} if groups else {}
    row |= {"failed_certificate": int(failed)} if failed != "not run" else {}
    row |= {"meta": True} if failed == "not run" and status == "ok" else {}
    seconds = [float(one) for one in took.partition("=")[0].split("+") if one.strip()]
    stages = ("analyze", "certify", "follow") if len(seconds) == 3 else ("analyze", "follow")
    row |= {f"{stage}_seconds": one for stage, one in zip(stages, seconds, strict=False)}
    return row | ({"why": [what]} if status == "ok" and what else {"error": what} if what else {})


def _step(status: str, lost: str, seconds: str) -> Row:
    """Return what both sides of a row beside torch-pruning show; the seconds are those of the whole step."""
    row: Row = {"status": status}
    row |= {"lost": float(lost.rstrip("%")) / 100} if lost else {}
    return row | ({"shrink_seconds": float(seconds)} if seconds else {})
