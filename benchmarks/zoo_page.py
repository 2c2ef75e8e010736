"""What do the rows of the zoo say, as the tables of its two pages?

Usage:
    python benchmarks/zoo_page.py zoo build/zoo.jsonl                      docs/explanation/zoo.md anew
    python benchmarks/zoo_page.py peer build/zoo.jsonl build/peer.jsonl    zoo-torch-pruning.md, and the sums in zoo.md
    ... --add                                                              the same; models without a row in the files keep the page's

A page holds places, ``<!-- rows: NAME -->`` to ``<!-- end -->``; what stands between is written anew, and nothing else. So every
number of the two pages that comes from rows has one source, and what loses is listed because the rows say so.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Keyed = dict[tuple[str, str], Row]
META_ABOVE = 150_000_000
STAGES = ("analyze_seconds", "certify_seconds", "follow_seconds")
PAGES = Path(__file__).parent.parent / "docs" / "explanation"
LIMIT_SECONDS = 5.0
LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "diffusers",
    "segmentation_models_pytorch",
    "torch_geometric",
)


def main() -> None:
    """Write the pages' places anew."""
    from zoo import rows_of
    from zoo_page_rows import peer_rows, zoo_rows

    what, *paths = (word for word in sys.argv[1:] if word != "--add")
    rows = [rows_of(Path(path)) for path in paths]
    if "--add" in sys.argv:
        shown = [zoo_rows(PAGES / "zoo.md")]
        if what == "peer":
            shown = list(peer_rows(PAGES / "zoo-torch-pruning.md", shown[0]))
        rows = [list(_keyed([*before, *new]).values()) for before, new in zip(shown, rows, strict=True)]
    if what == "zoo":
        places = {"state": state(rows[0]), "sums": sums(rows[0]), "bars": bars(rows[0]), "models": models(rows[0])}
        write(PAGES / "zoo.md", places)
    else:
        ours, peer = map(_keyed, rows)
        write(PAGES / "zoo.md", {"peer sums": peer_sums(ours, peer)})
        places = {"peer state": peer_state(peer), "peer ends": peer_ends(peer), "peer models": peer_models(ours, peer)}
        write(PAGES / "zoo-torch-pruning.md", places)


def _keyed(rows: list[Row]) -> Keyed:
    """Return the rows by suite and name, of every model the latest."""
    return {(row["suite"], row["name"]): row for row in rows}


def write(page: Path, places: dict[str, list[str]]) -> None:
    """Put the lines of each place into the page."""
    text = page.read_text()
    for name, lines in places.items():
        found = re.compile(rf"(<!-- rows: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert len(found.findall(text)) == 1, f"{page} has no place, or several, for {name}"
        body = "\n".join(["", *lines, "", ""])  # empty lines, or a table isn't one
        text = found.sub(lambda match, body=body: match[1] + body + match[2], text)
    page.write_text(text)
    print(f"{page}: {', '.join(places)}")


def table(titles: str, rows: Iterable[list[str]]) -> list[str]:
    """Return a table of Markdown; a bar inside a cell becomes a slash."""
    head = [f"| {titles} |", "| --- " * (titles.count("|") + 1) + "|"]
    return head + ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]


def seconds(row: Row) -> float:
    """Return what is spent before the cut: trace, certificate, trial of the class."""
    return sum(row.get(stage, 0.0) for stage in STAGES)


def share(rows: list[Row], test: Callable[[Row], bool]) -> str:
    """Return how many rows pass, and which share that is."""
    count = sum(map(test, rows))
    return f"{count} ({count / max(1, len(rows)):.1%})"


# What a row says of one model. A row that failed says nothing of its class or of what it lost.


def ended(row: Row) -> bool:
    return bool(row["status"] == "ok")


def lost_enough(row: Row) -> bool:
    return ended(row) and row.get("lost", 0) >= 0.3


def eager(row: Row) -> bool:
    return ended(row) and row.get("kind") == "eager"


def certified(row: Row) -> bool:
    return row.get("failed_certificate") == 0


def state(rows: list[Row]) -> list[str]:
    """Return how many models have rows, and the versions of what is installed where this runs: run it where the zoo was run."""
    found = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [f"{len(rows)} models; {found}."]


def sums(rows: list[Row]) -> list[str]:
    """Return one row for each suite, and one for all."""
    titles = (
        "suite | models | end without an error | lose 30 % or more | eager class | eager with uneven shares "
        "| every group certified | seconds before the cut, median | slowest | slowest below 150 M"
    )
    lines = []
    for suite in (*sorted({row["suite"] for row in rows}), "all"):
        mine = [row for row in rows if suite in (row["suite"], "all")]
        uneven = [row for row in mine if "uneven" in row]
        proven = [row for row in mine if "failed_certificate" in row]
        timed = sorted(seconds(row) for row in mine if "follow_seconds" in row) or [float("nan")]
        small = [seconds(row) for row in mine if "follow_seconds" in row and row["parameters"] < META_ABOVE]
        lines.append(
            [
                suite,
                str(len(mine)),
                *(share(mine, test) for test in (ended, lost_enough, eager)),
                f"{sum(row['uneven'] == 'eager' for row in uneven)} of {len(uneven)}",
                f"{sum(map(certified, proven))} of {len(proven)}",
                *(f"{value:.2f} s" for value in (timed[len(timed) // 2], timed[-1], max(small, default=float("nan")))),
            ]
        )
    return table(titles, lines)


def bars(rows: list[Row]) -> list[str]:
    """Return each bar with what was measured, and by name what doesn't reach it."""
    small = [row for row in rows if "follow_seconds" in row and row["parameters"] < META_ABOVE]
    uneven = [row for row in rows if "uneven" in row]
    proven = [row for row in rows if "failed_certificate" in row]
    slow = sorted((row for row in small if seconds(row) > LIMIT_SECONDS), key=seconds, reverse=True)
    meta = sum(bool(row.get("meta")) for row in rows)
    return [
        _bar("All end without an error", rows, ended, lambda row: row.get("error", "")[:120]),
        _bar("98 % lose 30 % of their parameters or more", rows, lost_enough, lambda row: f"{row.get('lost', 0):.1%}"),
        _bar("95 % come back as their class, at one half of everything", rows, eager),
        _bar("Uneven shares (no bar yet): keep their class", uneven, lambda row: row["uneven"] == "eager"),
        _bar(
            f"The certificate holds for every group, or the group is left whole ({meta} on the meta device have none)",
            proven,
            certified,
            lambda row: f"{row['failed_certificate']} of {row['groups']} groups",
        ),
        f"* Trace, certificate and trial of the class take {LIMIT_SECONDS:.0f} s at most below 150 M parameters: "
        f"**{len(small) - len(slow)} of {len(small)}**."
        + (f" Longer: {_named(slow, lambda row: f'{seconds(row):.1f} s')}." if slow else ""),
        f"* Axes that are left whole without a reason: **{sum(row.get('without_reason', 0) for row in rows)}**.",
    ]


def _bar(text: str, rows: list[Row], test: Callable[[Row], bool], why: Callable[[Row], str] = lambda row: "") -> str:
    missed = [row for row in rows if not test(row)]
    count = len(rows) - len(missed)
    line = f"* {text}: **{count} of {len(rows)}** ({count / max(1, len(rows)):.1%})."
    return line + (f" Not: {_named(missed, why)}." if missed else "")


def _named(rows: list[Row], why: Callable[[Row], str]) -> str:
    return ", ".join(row["name"] + (f" ({why(row)})" if why(row) else "") for row in rows)


def models(rows: list[Row]) -> list[str]:
    """Return every model, failures first, then those that lost their class."""
    titles = (
        "suite | model | parameters | status | kind | uneven | lost | groups | trace + certificate + trial | "
        "failed certificate | what"
    )
    order = sorted(
        rows, key=lambda row: (ended(row), eager(row), row.get("uneven") != "graph", lost_enough(row), row["name"])
    )
    return table(titles, map(_model, order))


def _model(row: Row) -> list[str]:
    said = row.get("why", []) + row.get("certificate_reasons", []) + row.get("left_whole_why", [])
    took = " + ".join(f"{row[stage]:.2f}" for stage in STAGES if stage in row)
    return [
        row["suite"],
        row["name"],
        f"{row.get('parameters', 0) / 1e6:.1f} M",
        row["status"],
        row.get("kind", ""),
        row.get("uneven", "not run"),
        f"{row.get('lost', 0):.0%}" if ended(row) else "",
        str(row.get("groups", "")),
        f"{took} = {seconds(row):.2f} s" if took else "",
        str(row.get("failed_certificate", "not run")),
        (row.get("error") or "; ".join(said))[:160],
    ]


def peer_state(peer: Keyed) -> list[str]:
    """Return how many models torch-pruning was tried on, how many of them pass, and how many rows are older ones."""
    older = sum("older" in row.get("settings", "") for row in peer.values())
    return [f"{len(peer)} models: torch-pruning ends {share(list(peer.values()), ended)}; {older} rows are older."]


def peer_models(ours: Keyed, peer: Keyed) -> list[str]:
    """Return the models that torch-pruning has run, side by side."""
    titles = "suite | model | prunus | lost | seconds | torch-pruning | lost | seconds | its settings | its error"
    lines = []
    for key in sorted(peer):
        theirs = peer[key]
        cells = [*key]
        for row in (ours.get(key, {"status": "not run"}), theirs):
            cells += [row["status"], f"{row.get('lost', 0):.0%}" if ended(row) else "", whole_step(row)]
        error = theirs.get("error") or ("" if theirs.get("same_output_shapes", True) else "narrows the outputs")
        lines.append([*cells, theirs.get("settings", ""), error[:110]])
    return table(titles, lines)


def peer_sums(ours: Keyed, peer: Keyed) -> list[str]:
    """Return two rows for each suite, of the models that both have run."""
    titles = "suite | models | tool | ends without an error | loses 30 % or more | median seconds where both end"
    lines = []
    both = [key for key in sorted(peer) if key in ours]
    for suite in (*sorted({key[0] for key in both}), "all"):
        keys = [key for key in both if suite in (key[0], "all")]
        shared = [key for key in keys if all(ended(rows[key]) and whole_step(rows[key]) for rows in (ours, peer))]
        for tool, rows in (("prunus", ours), ("torch-pruning", peer)):
            mine = [rows[key] for key in keys]
            times = sorted(float(whole_step(rows[key])) for key in shared)
            middle = f"{times[len(times) // 2]:.2f}" if times else ""
            lines.append([suite, str(len(keys)), tool, share(mine, ended), share(mine, lost_enough), middle])
    return table(titles, lines)


def peer_ends(peer: Keyed) -> list[str]:
    """Return what ended torch-pruning, by stage and kind of error, the most frequent first."""
    found: dict[str, list[str]] = {}
    for key in sorted(peer):
        if not ended(peer[key]):
            error = ":".join(peer[key].get("error", "").split(":")[:2])
            found.setdefault(error, []).append(key[1])
    order = sorted(found.items(), key=lambda both: -len(both[1]))
    return table(
        "what ended it | models | which", ([error, str(len(names)), ", ".join(names)] for error, names in order)
    )


def whole_step(row: Row) -> str:
    """Return the seconds from the model to the cut one, with every stage between; none without real weights."""
    if "shrink_seconds" not in row or row.get("meta"):
        return ""
    return f"{sum(row.get(stage, 0.0) for stage in (*STAGES, 'shrink_seconds')):.2f}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
