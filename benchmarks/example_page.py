"""What do the lines of ``example_selection.py`` say: what beats chance, by how much, and what is found of wrong labels?

A number in brackets is the difference to ``random`` of the same seeds, in points, with half its 95 % interval (paired t).
What is bold is better and what is slanted worse for all cells of one table together (Holm).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
METRIC = {"text": "accuracy", "mnist1d": "accuracy", "flights": "auroc"}
CONFIDENCE = 0.95
CLEAN = "clean_random"


def print_page(rows: list[Row]) -> None:
    """Print all tables."""
    sets = [name for name in METRIC if any(row["set"] == name for row in rows)]
    noises = sorted({row["noise"] for row in rows})
    print("## The bars\n")
    _print_bars(rows, sets, noises)
    print("\n## Wrong labels\n")
    _print_detectors([row for row in rows if row["selection"] == "detectors"], sets, noises)
    for name in sets:
        for noise in noises:
            _print_cells([row for row in rows if row["set"] == name and row["noise"] == noise], name, noise)


def paired(ours: dict[int, float], theirs: dict[int, float]) -> tuple[float, float, float, int]:
    """Return mean difference, half its interval, p of the paired t test, and the number of seeds that both have."""
    from scipy.stats import t

    found = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if len(found) < 2:
        return (found[0] if found else math.nan), math.nan, math.nan, len(found)
    mean, error = statistics.mean(found), statistics.stdev(found) / len(found) ** 0.5
    p = 2 * float(t.sf(abs(mean) / error, len(found) - 1)) if error else float(mean == 0)
    return mean, error * float(t.ppf(0.5 + CONFIDENCE / 2, len(found) - 1)), p, len(found)


def holm(found: list[tuple[float, float]]) -> list[int]:
    """Return 1, 0 or -1 for each pair of p and difference: better, not to be told apart, worse (Holm, 1979)."""
    known = [row for row in range(len(found)) if not math.isnan(found[row][0])]
    verdicts = [0] * len(found)
    for place, row in enumerate(sorted(known, key=lambda row: found[row][0])):
        if found[row][0] > (1 - CONFIDENCE) / (len(known) - place):
            break
        verdicts[row] = 1 if found[row][1] > 0 else -1
    return verdicts


def _by_seed(rows: Iterable[Row], selection: str, keep: float, metric: str) -> dict[int, float]:
    return {row["seed"]: row[metric] for row in rows if row["selection"] == selection and row["keep"] == keep}


def _print_bars(rows: list[Row], sets: list[str], noises: list[float]) -> None:
    titles = ["set", "labels flipped", "against random, worst of 80/50/30/10 %", "against all data, all steps, at 80 %"]
    print("| " + " | ".join([*titles, "against all data, as many steps, at 80 %", "classes lost"]) + " |")
    print("| --- " * (len(titles) + 2) + "|")
    for name in sets:
        for noise in noises:
            mine = [
                row for row in rows if row["set"] == name and row["noise"] == noise and row["selection"] != "detectors"
            ]
            keeps = sorted({row["keep"] for row in mine if row["selection"] == CLEAN}, reverse=True)
            if not keeps:
                continue
            metric = METRIC[name]
            own = {keep: _by_seed(mine, CLEAN, keep, metric) for keep in keeps}
            found = {keep: paired(own[keep], _by_seed(mine, "random", keep, metric)) for keep in keeps}
            worst = min(found, key=lambda keep: found[keep][0])
            lost = max(row["lost_classes"] for row in mine if row["selection"] == CLEAN)
            full = paired(own[0.8], _by_seed(mine, "full", 1.0, metric))
            short = paired(own[0.8], _by_seed(mine, "full_short", 0.8, metric))
            cells = [name, f"{noise:.0%}", f"{_points(found[worst])} at {worst:.0%}", _points(full), _points(short)]
            print("| " + " | ".join([*cells, str(lost)]) + " |")


def _points(found: tuple[float, float, float, int]) -> str:
    mean, half, p, n = found
    return f"{100 * mean:+.1f} ± {100 * half:.1f} (p {p:.2g}, {n} seeds)"


LISTS = {
    "chance": ("two rounds", "chance", "chance"),
    "once": ("one round", "once", "once"),
    "margin": ("margin", "aum", ""),
}
"""A list of labels that are called wrong: how it is called here, and whose AUC and share of wrong labels go with it."""


def _print_detectors(rows: list[Row], sets: list[str], noises: list[float]) -> None:
    titles = ["set", "labels flipped", "judged by", "AUC", "share wrong, estimated", "called wrong", "of them flipped"]
    print("| " + " | ".join([*titles, "of them wrong, estimated", "of the flipped called wrong"]) + " |")
    print("| --- " * (len(titles) + 2) + "|")
    for name in sets:
        for noise in noises:
            mine = [row for row in rows if row["set"] == name and row["noise"] == noise]
            for kind, (title, auc, share) in LISTS.items() if mine else ():
                some = [row["lists"].get(kind, {"n": 0}) for row in mine]
                cells = [name, f"{noise:.0%}", title, f"{_mean(row['auc'][auc] for row in mine):.3f}" if noise else "–"]
                cells.append(f"{_mean(row['noise_estimated'][share] for row in mine):.1%}" if share else "")
                cells.append(f"{_mean(row['n'] for row in some):,.0f}")
                for key in ("precision", "estimated", "recall"):
                    known = [row[key] for row in some if key in row and (noise or key == "estimated")]
                    # How sure a list by margins is, isn't known: the chances are those of other evidence.
                    cells.append(f"{_mean(known):.1%}" if known and (kind, key) != ("margin", "estimated") else "–")
                print("| " + " | ".join(cells) + " |")


def _mean(values: Iterable[float]) -> float:
    return statistics.mean(values)


def _print_cells(rows: list[Row], name: str, noise: float) -> None:
    metric, some = METRIC[name], [row for row in rows if row["selection"] != "detectors"]
    keeps = sorted({row["keep"] for row in some if row["keep"] < 1}, reverse=True)
    seeds = set.intersection(*(set(_by_seed(some, "random", keep, metric)) for keep in keeps)) if keeps else set()
    some = [row for row in some if row["seed"] in seeds]  # more seeds of some cells are in the first table only
    full = _by_seed(some, "full", 1.0, metric)
    if len(full) < 2:
        return
    print(f"\n## {name}, {f'{noise:.0%} of labels flipped' if noise else 'as it comes'}\n")
    mean = f"{_mean(full.values()):.1%} (± {100 * statistics.stdev(full.values()):.1f} between {len(full)} seeds)"
    print(f"{some[0]['facts']}. All data, all steps: {metric} {mean}.\n")
    names = [kind for kind in dict.fromkeys(row["selection"] for row in some) if kind not in ("full", "random")]
    found = {
        (kind, keep): paired(own, _by_seed(some, "random", keep, metric))
        for kind in names
        for keep in keeps
        if (own := _by_seed(some, kind, keep, metric))
    }
    verdicts = dict(zip(found, holm([(p, mean) for mean, _, p, _ in found.values()]), strict=True))
    print(f"| {metric} | " + " | ".join(f"{keep:.0%} kept" for keep in keeps) + " | classes lost |")
    print("| --- " * (len(keeps) + 2) + "|")
    ahead = {kind: _mean(found[kind, keep][0] for keep in keeps if (kind, keep) in found) for kind in names}
    for kind in sorted([*names, "random"], key=lambda kind: -ahead.get(kind, 0.0)):
        cells = [f"`{kind}`"]
        for keep in keeps:
            own = _by_seed(some, kind, keep, metric)
            text = f"{100 * _mean(own.values()):.1f}" if own else ""
            cells.append(text if kind == "random" or not own else _told(text, found[kind, keep], verdicts[kind, keep]))
        lost = max(row["lost_classes"] for row in some if row["selection"] == kind)
        print("| " + " | ".join([*cells, str(lost)]) + " |")
    judged = [verdict for key, verdict in verdicts.items() if found[key][3] > 1]
    counts = [judged.count(number) for number in (1, 0, -1)]
    print(
        f"\n{len(judged)} cells against random: {counts[0]} better, {counts[1]} not to be told apart, {counts[2]} worse."
    )


def _told(text: str, found: tuple[float, float, float, int], verdict: int) -> str:
    mean, half, _, n = found
    mark = {1: "**", 0: "", -1: "_"}[verdict]
    return f"{mark}{text}{mark} ({100 * mean:+.1f}{f' ± {100 * half:.1f}' if n > 1 else ', one seed'})"
