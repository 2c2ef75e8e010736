"""How does what a search found become one page that loads nothing and can be passed on?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prunus.core.errors import MissingExtraError
from prunus.core.files.plain_files import write_text
from prunus.report.format import amount, called, difference, is_share, percent, size, value
from prunus.report.page.charts import draw
from prunus.report.page.examples_page import document
from prunus.report.page.page_marks import definitions, details, escape, joined, section, table
from prunus.report.page.page_style import PALETTE
from prunus.report.record_parts import Number
from prunus.report.texts.search_text import COSTS, cost_of, said_change, said_values, search_line
from prunus.report.texts.sizes_text import gap_lines_of_sizes

__all__ = ["render_search", "write_search_page"]


def write_search_page(facts: Mapping[str, Any], path: Path) -> None:
    """Write the page in one step."""
    write_text(path, render_search(facts))


def render_search(facts: Mapping[str, Any]) -> str:
    """Return the page; the same facts give the same bytes."""
    try:
        charts = "".join(
            f"<figure><figcaption>{escape(chart.title)}<small>{escape(chart.note)}</small></figcaption>{chart.svg}</figure>"
            for chart in draw(_frontier(facts), _gaps(facts), _importances(facts))
        )
        missing = ""
    except MissingExtraError as error:
        charts, missing = "", f"The charts are missing: {error}"
    n = facts["n"]
    head = (
        f'<header><p class="eyebrow">prunus search · {escape(facts["name"])}</p><h1>{escape(_title(facts))}</h1>'
        f'<p class="lead">{escape(_sentence(search_line(facts)))}</p></header>'
    )
    parts = [
        head,
        section(
            "Confirmed",
            '<p class="dim">Chosen on the validation examples, then run anew on all data with other seeds, and measured on '
            "the test examples once. The intervals hold for all of them together.</p>",
            _confirmed(facts),
            _optimism(facts),
        ),
        _sizes(facts),
        section("The frontier", f'<div class="charts">{charts}</div>' if charts else "", escape(missing)),
        section(
            "Trials",
            f'<p class="dim">{amount(n["done"])} done, {amount(n["stopped"])} stopped early, {amount(n["failed"])} failed; '
            f"{called(facts['metric'])} on the validation examples.</p>",
            _trials(facts),
        ),
        section(
            "How it was made",
            definitions(
                [
                    ("study", f"<code>{escape(facts['study'])}</code>"),
                    ("objectives", joined(facts["objectives"])),
                    ("space", _space(facts)),
                    ("training examples", f"{percent(facts['share'])} in a trial, all when confirmed"),
                    ("software", joined(f"{name} {version}" for name, version in facts["versions"].items())),
                ]
            ),
            details(
                "The recipe, with every default",
                "",
                f"<pre>{escape(yaml.safe_dump(facts['recipe'], sort_keys=False, allow_unicode=True))}</pre>",
            ),
        ),
    ]
    return document(f"{facts['name']} · prunus search", parts)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _title(facts: Mapping[str, Any]) -> str:
    if facts["recommended"] is None:
        n = len(facts["frontier"])
        return f"{n} setting{'s' if n != 1 else ''} that no other beats"
    row = next(row for row in facts["confirmed"] if row["number"] == facts["recommended"])
    cost = cost_of(facts)
    return f"{percent(row['shares'].get(cost, 1.0))} of the {COSTS[cost]}, and the contract holds"


def _confirmed(facts: Mapping[str, Any]) -> str:
    trials, cost, metric = {row["number"]: row for row in facts["trials"]}, cost_of(facts), facts["metric"]
    rows = []
    for row in facts["confirmed"]:
        kept = "" if row["kept"] is None else "keeps the contract" if row["kept"] else "not shown to keep it"
        tone = "better" if row["kept"] else "no"
        mark = f'<span class="mark {tone}">{escape(kept)}</span>' if kept else ""
        star = " ★" if row["number"] == facts["recommended"] else ""
        rows.append(
            [
                f"{row['number']}{star}{_settings(trials[row['number']]['values'])}",
                escape(percent(row["shares"].get(cost, 1.0))),
                escape(value(metric, row["dense"])),
                escape(value(metric, row["pruned"])),
                escape(said_change(facts, row)),
                mark,
            ]
        )
    return table(["setting", f"{COSTS[cost]} left", "dense", "pruned", "pruned − dense", ""], rows)


def _sizes(facts: Mapping[str, Any]) -> str:
    """Return what the sizes have that were made of one of the settings; nothing where there are none."""
    made = facts.get("sizes")
    if made is None:
        return ""
    contract = facts["contract"] is not None
    rows = []
    for row in made["sizes"]:
        number = Number(name=row["metric"], higher_is_better=facts["higher_is_better"], **row["difference"])
        kept = "keeps the contract" if row.get("kept") else "not shown to keep it"
        rows.append(
            [
                f"<code>{row['keep_fraction']:g}</code>",
                escape(percent(row["macs_share"])),
                escape(size(row["size_bytes"])),
                escape(value(row["metric"], row["pruned"])),
                escape(difference(row["metric"], number)),
                f'<span class="mark {"better" if row.get("kept") else "no"}">{kept}</span>' if contract else "",
            ]
        )
    return section(
        "One plan, many sizes",
        f'<p class="dim">Of setting {made["of"]["setting"]}, {escape(made["weights"])} weights: each size is cut out of the one '
        f"before. The intervals hold for all sizes of all {made['of']['n_settings']} confirmed settings together.</p>",
        table(["size", "MACs left", "weights", "pruned", "pruned − dense", ""], rows),
        "".join(f'<p class="dim">{escape(line[0].upper() + line[1:])}.</p>' for line in gap_lines_of_sizes(made)),
    )


def _space(facts: Mapping[str, Any]) -> str:
    """Return each key with its values, a line each; what a range doesn't say is left out."""
    found = []
    for key, values in facts["space"].items():
        said = {name: value for name, value in values.items() if value} if isinstance(values, Mapping) else values
        found.append(f"{key}: {yaml.safe_dump(said, sort_keys=False, default_flow_style=True, width=200).strip()}")
    return "<br>".join(f"<small>{escape(line)}</small>" for line in found)


def _settings(values: Mapping[str, Any]) -> str:
    """Return settings, a line each."""
    return "".join(f"<small>{escape(said_values({key: found}))}</small>" for key, found in values.items())


def _optimism(facts: Mapping[str, Any]) -> str:
    found = [row["optimism"] for row in facts["confirmed"] if row["optimism"] is not None]
    if not found:
        return ""
    mean, unit = sum(found) / len(found), " points" if is_share(facts["metric"]) else ""
    shown = f"{abs(100 * mean if unit else mean):.2g}{unit}"
    return (
        f'<p class="dim">In the search these settings looked {"better" if mean >= 0 else "worse"}, against their dense model, by '
        f"{escape(shown)} on average than they are on examples and seeds that chose nothing.</p>"
    )


def _trials(facts: Mapping[str, Any]) -> str:
    cost, metric = cost_of(facts), facts["metric"]
    best = set(facts["frontier"])
    rows = []
    for row in facts["trials"]:
        state = "on the frontier" if row["number"] in best else "" if row["state"] == "done" else row["state"]
        why = f"<small>{escape(row['why'])}</small>" if row.get("why") else ""
        known = "quality" in row
        rows.append(
            [
                f"{row['number']}{_settings(row['values'])}",
                escape(percent(row["shares"][cost])) if known else "",
                escape(value(metric, row["quality"])) if known else "",
                _gap_cell(metric, row) if known else "",
                escape(state) + why,
            ]
        )
    return details(
        f"All {len(rows)} trials",
        "",
        table(["setting", f"{COSTS[cost]} left", called(metric), "gap to training", ""], rows),
    )


def _gap_cell(metric: str, row: Mapping[str, Any]) -> str:
    """Return the gap, and how it went over the cuts where there were several."""
    steps = row.get("gap_trend") or ()
    course = " → ".join(value(metric, step["gap"]) + (" (taken back)" if step["taken_back"] else "") for step in steps)
    return escape(value(metric, row["gap"])) + (f"<small>{escape(course)}</small>" if len(steps) > 1 else "")


def _gaps(facts: Mapping[str, Any]) -> Any:
    """Return how far training and validation examples are apart, against what is left of the cost."""
    cost, metric = cost_of(facts), facts["metric"]
    scale = 100 if is_share(metric) else 1
    beyond = set(facts["overfitting"])
    rows = [
        {
            "share": 100 * row["shares"][cost],
            "gap": scale * row["gap"],
            "what": "beyond the margin" if row["number"] in beyond else "within",
        }
        for row in facts["trials"]
        if row["state"] == "done"
    ]
    dense = next((scale * row["dense_gap"] for row in facts["trials"] if row["state"] == "done"), 0.0)
    title = f"gap{', points' if scale == 100 else ''}"

    def drawn(altair: Any) -> tuple[str, str, Any]:
        colours = altair.Scale(domain=["within", "beyond the margin"], range=[PALETTE["blue"], PALETTE["plum"]])
        chart = (
            altair.Chart(altair.Data(values=rows))
            .mark_point(size=60, filled=True, opacity=1)
            .encode(
                x=altair.X("share:Q", title=f"{COSTS[cost]} left, % of the dense model", scale=altair.Scale(zero=True)),
                y=altair.Y("gap:Q", title=title, scale=altair.Scale(padding=12)),
                color=altair.Color("what:N", scale=colours),
            )
        )
        line = altair.Chart(altair.Data(values=[{"dense": dense}]))
        rule = line.mark_rule(strokeDash=[3, 3], color=PALETTE["grey"]).encode(y=altair.Y("dense:Q", title=title))
        return (
            "Training minus validation, against cost",
            f"By how much {called(metric)} is better on training examples. Dashed: the dense model.",
            (chart + rule).properties(height=200),
        )

    return drawn


def _frontier(facts: Mapping[str, Any]) -> Any:
    cost, metric = cost_of(facts), facts["metric"]
    scale = 100 if is_share(metric) else 1
    best, fixed = set(facts["frontier"]), {row["number"] for row in facts["confirmed"]}
    names = ["tried", "stopped early", "frontier", "confirmed"]
    rows = [
        {
            "share": 100 * row["shares"][cost],
            "quality": scale * row["quality"],
            "what": "confirmed"
            if row["number"] in fixed
            else "frontier"
            if row["number"] in best
            else "stopped early"
            if row["state"] == "stopped"
            else "tried",
            "setting": f"{row['number']}: {said_values(row['values'])}",
        }
        for row in facts["trials"]
        if "quality" in row
    ]
    title = f"validation {called(metric)}{', %' if scale == 100 else ''}"

    def drawn(altair: Any) -> tuple[str, str, Any]:
        colours = altair.Scale(domain=names, range=[PALETTE[c] for c in ("grey", "sand", "blue", "plum")])
        chart = (
            altair.Chart(altair.Data(values=rows))
            .mark_point(size=70, filled=True, opacity=1)
            .encode(
                x=altair.X("share:Q", title=f"{COSTS[cost]} left, % of the dense model", scale=altair.Scale(zero=True)),
                y=altair.Y("quality:Q", title=title, scale=altair.Scale(zero=False, padding=12)),
                color=altair.Color("what:N", scale=colours, legend=altair.Legend(columnPadding=18)),
                tooltip="setting:N",
            )
        )
        line = altair.Chart(altair.Data(values=[{"dense": scale * _dense(facts)}]))
        rule = line.mark_rule(strokeDash=[3, 3], color=PALETTE["grey"]).encode(y=altair.Y("dense:Q", title=title))
        return (
            f"Validation {called(metric)} against cost",
            "Dashed: the dense model.",
            (chart + rule).properties(height=230),
        )

    return drawn


def _dense(facts: Mapping[str, Any]) -> float:
    return float(next(row["dense_quality"] for row in facts["trials"] if "dense_quality" in row))


def _importances(facts: Mapping[str, Any]) -> Any:
    rows = [
        {"key": key, "share": 100 * share, "objective": name}
        for name, shares in facts["importances"].items()
        for key, share in shares.items()
    ]

    def drawn(altair: Any) -> tuple[str, str, Any] | None:
        if not rows:
            return None
        names = list(facts["importances"])
        colours = altair.Scale(
            domain=names, range=[PALETTE[("plum", "blue", "amber", "leaf")[i % 4]] for i in range(len(names))]
        )
        chart = (
            altair.Chart(altair.Data(values=rows))
            .mark_bar(height=9)
            .encode(
                y=altair.Y("key:N", title=None, axis=altair.Axis(grid=False, labelLimit=190)),
                yOffset=altair.YOffset("objective:N", sort=names),
                x=altair.X("share:Q", title="importance, %", axis=altair.Axis(tickCount=5)),
                color=altair.Color("objective:N", scale=colours),
            )
            .properties(height={"step": 14})
        )
        return (
            "What matters",
            "Share of the spread among the better trials that each key accounts for (PED-ANOVA).",
            chart,
        )

    return drawn
