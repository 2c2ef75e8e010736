"""What do the lines of ``versus_torch_pruning.py`` say: which tool is ahead, by how much, and can chance explain it?

A row is a paired t test over seeds. Verdicts hold for all rows of one table together (Holm).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]
Pair = tuple[Row, Row]

COMPARED = {
    "both as they come": ("as it comes", "as it comes"),
    "prunus adjusted": ("adjusted", "as it comes"),
    "both adjusted": ("adjusted", "adjusted"),
}
CONFIDENCE = 0.95
BEST = "best"
"""The criterion of a cell where each tool has what was chosen for it, see ``versus_chosen.json``."""
VERDICTS = ("better", "no measurable difference", "worse")


def print_tables(rows: list[Row]) -> None:
    """Print each tool at its best, then one table per comparison and budget of the same criteria; the losing rows first."""
    best = [row for row in rows if row["criterion"] == BEST]
    for budget in ("cut", "short", "long") if best else ():
        print(f"\n### Each at its best, both adjusted, {'no' if budget == 'cut' else budget} training\n")
        _print_best(best, budget)
    same = [row for row in rows if row["criterion"] != BEST]
    for title, (ours, theirs) in COMPARED.items() if same else ():
        for budget in ("short", "long"):
            print(f"\n### {title[0].upper()}{title[1:]}, {budget} training\n")
            _print_same(same, ours, theirs, budget)


def _print_best(rows: list[Row], budget: str) -> None:
    lines = []
    for cell in dict.fromkeys((row["set"], row["model"], row["share"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["model"], row["share"]) == cell]
        trained = "short" if budget == "cut" else budget  # the arm that was chosen for it
        pairs = [(own, peer) for own, peer in _both(mine) if trained in peer]
        if len(pairs) > 1:
            lines.append((cell, pairs, _paired(pairs, budget), _paired(pairs, f"{budget} loss")))
    right = _verdicts([(p, value) for *_, (value, _, p), _ in lines])
    lost = _verdicts([(p, -value) for *_, (value, _, p) in lines])
    titles = (
        "set",
        "model",
        "asked",
        "torch-pruning's",
        "seeds",
        "dense",
        "MACs left",
        "accuracy",
        "difference (95 %, p)",
    )
    print("| " + " | ".join((*titles, "prunus is", "log loss", "difference (95 %, p)", "prunus is")) + " |")
    print("| --- " * (len(titles) + 4) + "|")
    for (cell, pairs, of_right, of_lost), one, two in sorted(
        zip(lines, right, lost, strict=True), key=lambda line: line[0][2][0]
    ):
        set_name, model, share = cell
        cells = [set_name, model, f"{share:.0%}", pairs[0][1]["mode"], str(len(pairs)), _percent(pairs, "dense")[0]]
        cells += [
            " / ".join(_percent(pairs, "macs")),
            " / ".join(_percent(pairs, budget)),
            _gain(of_right, 100, 1),
            one,
        ]
        cells += [" / ".join(f"{value:.3f}" for value in _means(pairs, f"{budget} loss")), _gain(of_lost, 1, 3), two]
        print("| " + " | ".join(cells) + " |")
    print(f"\nAccuracy, {_counted(right, [line[2][0] for line in lines])}")
    print(f"\nLog loss, {_counted(lost, [-line[3][0] for line in lines])}")


def _both(rows: list[Row]) -> Iterator[Pair]:
    """Yield prunus's row and torch-pruning's for every seed and arm that has both."""
    own = {row["seed"]: row for row in rows if row["tool"] == "prunus"}
    for peer in sorted((row for row in rows if row["tool"] != "prunus"), key=lambda row: row["seed"]):
        if peer["seed"] in own:
            yield own[peer["seed"]], peer


def _print_same(rows: list[Row], ours: str, theirs: str, budget: str) -> None:
    lines = []
    for cell in dict.fromkeys((row["set"], row["model"], row["share"], row["criterion"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["model"], row["share"], row["criterion"]) == cell]
        pairs = list(_by_validation(mine, ours, theirs, budget))
        if len(pairs) > 1:
            lines.append((cell, pairs, _paired(pairs, budget)))
    verdicts = _verdicts([(p, value) for *_, (value, _, p) in lines])
    titles = ["set", "model", "asked", "criterion", "seeds", "dense", "MACs left", "after the cut", "after training"]
    print("| " + " | ".join([*titles, "difference (95 %, p)", "prunus is", "seconds of the step"]) + " |")
    print("| --- " * (len(titles) + 3) + "|")
    for (cell, pairs, found), verdict in sorted(zip(lines, verdicts, strict=True), key=lambda line: line[0][2][0]):
        set_name, model, share, criterion = cell
        named = f"{model} ({', '.join(sorted({peer['mode'] for _, peer in pairs}))})"
        cells = [set_name, named, f"{share:.0%}", criterion, str(len(pairs)), _percent(pairs, "dense")[0]]
        cells += [" / ".join(_percent(pairs, key)) for key in ("macs", "cut", budget)]
        print("| " + " | ".join([*cells, _gain(found, 100, 1), verdict, _seconds(pairs)]) + " |")
    print(f"\n{_counted(verdicts, [line[2][0] for line in lines])}")


def _by_validation(rows: list[Row], ours: str, theirs: str, budget: str) -> Iterator[Pair]:
    """Yield prunus's row and torch-pruning's for every seed that has both; of its modes the better one on validation."""
    for seed in sorted({row["seed"] for row in rows}):
        mine = [row for row in rows if row["seed"] == seed]
        own = [row for row in mine if row["tool"] == "prunus" and row["help"] == ours]
        peers = [row for row in mine if row["tool"] == "torch-pruning" and row["help"] == theirs]
        if own and peers:
            yield own[0], max(peers, key=lambda row: row[f"{budget} validation"])


def _paired(pairs: list[Pair], key: str) -> tuple[float, float, float]:
    """Return the mean difference, half the width of its interval, and the p value of the paired t test."""
    from scipy.stats import t

    differences = [own[key] - peer[key] for own, peer in pairs]
    value, n = statistics.mean(differences), len(differences)
    error = statistics.stdev(differences) / n**0.5
    p = 2 * float(t.sf(abs(value) / error, n - 1)) if error else float(value == 0)
    return value, float(t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error, p


def _verdicts(found: list[tuple[float, float]]) -> list[str]:
    """Return the verdict of each row, so that the chance of any wrong one is held (Holm, 1979)."""
    order = sorted(range(len(found)), key=lambda row: found[row][0])
    better, none, worse = VERDICTS
    verdicts = [none] * len(found)
    for place, row in enumerate(order):
        if found[row][0] > (1 - CONFIDENCE) / (len(found) - place):
            break
        verdicts[row] = better if found[row][1] > 0 else worse
    return verdicts


def _counted(verdicts: list[str], ahead: list[float]) -> str:
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    return f"{len(verdicts)} rows: {counts}; {sum(value > 0 for value in ahead)} ahead in the mean."


def _means(pairs: list[Pair], key: str) -> tuple[float, float]:
    return statistics.mean(own[key] for own, _ in pairs), statistics.mean(peer[key] for _, peer in pairs)


def _percent(pairs: list[Pair], key: str) -> list[str]:
    return [f"{value:.1%}" for value in _means(pairs, key)]


def _gain(found: tuple[float, float, float], scale: float, digits: int) -> str:
    value, half, p = found
    numbers = (f"{scale * number:+.{digits}f}" for number in (value, value - half, value + half))
    return "{} ({} to {}, {})".format(*numbers, f"{p:.2g}")


def _seconds(pairs: list[Pair]) -> str:
    timed = next((own["step_seconds"] for own, _ in pairs if "step_seconds" in own), None)
    if not timed:
        return ""
    mine, theirs = (statistics.median(timed[tool]) for tool in ("prunus", "torch-pruning"))
    return f"{mine:.2f} / {theirs:.2f} ({mine / theirs:.1f}x)"
