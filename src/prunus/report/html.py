"""How does a run's record become one page that loads nothing and can be passed on?

Everything that comes from a record is escaped; the page has no script.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from prunus.core.errors import MissingExtraError
from prunus.core.files import write_text
from prunus.report.charts import all_charts
from prunus.report.page_style import STYLE
from prunus.report.record import RunRecord, Suspect
from prunus.report.words import amount, difference, size, times, value, verdict

__all__ = ["render_html", "write_html"]


def write_html(record: RunRecord, path: Path) -> None:
    """Write the page in one step."""
    write_text(path, render_html(record))


def render_html(record: RunRecord) -> str:
    """Return the page; the same record gives the same bytes."""
    charts, missing = _charts(record)
    parts = [
        _head(record),
        _cards(record),
        _quality(record),
        _cost(record),
        charts,
        _suspects(record.suspects),
        _frozen(record),
        _provenance(record, missing),
    ]
    title = _escape(record.name)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · prunus</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _escape(text: object) -> str:
    return html.escape(str(text), quote=True)


def _rows(rows: Iterable[Sequence[str]], *, head: Sequence[str]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _head(record: RunRecord) -> str:
    row = record.comparison[0]
    tone = row.verdict.split()[0]
    return (
        f'<header><p class="eyebrow">prunus report</p><h1>{_escape(record.name)}</h1>'
        f'<p class="lead {_escape(tone)}">{_escape(verdict(row))[0].upper()}{_escape(verdict(row))[1:]}.</p></header>'
    )


def _cards(record: RunRecord) -> str:
    cards = [
        (times(record.ratio("macs")), "fewer MACs"),
        (times(record.ratio("size_bytes")), "smaller on disk"),
        (times(record.ratio("parameters")), "fewer parameters"),
    ]
    latency = record.timing.get("latency") or {}
    speedup = latency.get("speedup")
    if speedup and speedup["value"] is not None:
        spread = f"{times(speedup['low'])} to {times(speedup['high'])}"
        cards.insert(
            2, (times(speedup["value"]), f"as fast ({spread}), {latency['runtime']}, batch of {latency['batch_size']}")
        )
    removed, relabelled = (sum(getattr(c, what) for c in record.classes) for what in ("removed", "relabelled"))
    if removed or relabelled:
        cards.append(
            (
                amount(removed + relabelled),
                f"of {amount(record.data.n['train'])} training examples removed or relabelled",
            )
        )
    if record.data.noise is not None:
        noise = record.data.noise
        cards.append(
            (f"{noise.n_found}/{noise.n_flipped}", f"labels flipped on purpose were found, {noise.n_repaired} repaired")
        )
    if record.features:
        gone = sum(not f.kept for f in record.features)
        cards.append((f"{gone}/{len(record.features)}", "input features cut out"))
    return (
        '<section class="cards">'
        + "".join(f"<div><b>{_escape(a)}</b><span>{_escape(b)}</span></div>" for a, b in cards)
        + "</section>"
    )


def _quality(record: RunRecord) -> str:
    n = len(record.seeds)
    rows = []
    for row in record.comparison:
        cells = [
            value(row.metric, record.mean(model, split, row.metric))
            for model in ("dense", "pruned")
            for split in ("train", "test")
        ]
        gaps = [g.value for g in record.gaps if g.metric == row.metric and g.model == "pruned" and g.value is not None]
        gap = value(row.metric, sum(gaps) / len(gaps)) if gaps else "–"
        deviation = "–"
        if row.dense_deviation is not None and row.pruned_deviation is not None:
            deviation = f"{value(row.metric, row.dense_deviation)} → {value(row.metric, row.pruned_deviation)}"
        tone = row.verdict.split()[0]
        mark = f'<span class="mark {_escape(tone)}">{_escape(row.verdict.removeprefix("no measurable ").replace("difference", "no difference seen"))}</span>'
        rows.append(
            [
                _escape(row.metric.replace("_", " ")),
                *cells,
                gap,
                deviation,
                _escape(difference(row.metric, row.difference)),
                mark,
            ]
        )
    head = [
        "",
        "dense<br>train",
        "dense<br>test",
        "pruned<br>train",
        "pruned<br>test",
        "pruned gap",
        "deviation<br>over seeds",
        "pruned − dense, test (95 %)",
        "",
    ]
    seeds = f"mean over {n} seeds" if n > 1 else "one seed, which says nothing about other seeds"
    counts = ", ".join(f"{amount(k)} {part}" for part, k in record.data.n.items())
    method = _escape(record.comparison[0].method)
    return f'<section><h2>Quality</h2><p class="dim">{seeds}; {counts} examples; intervals by {method}.</p>{_rows(rows, head=head)}</section>'


def _cost(record: RunRecord) -> str:
    dense, pruned = record.cost["dense"], record.cost["pruned"]
    rows = [
        ["parameters", amount(dense.parameters), amount(pruned.parameters), times(record.ratio("parameters"))],
        [
            "of which not zero",
            amount(dense.nonzero_parameters),
            amount(pruned.nonzero_parameters),
            times(record.ratio("nonzero_parameters")),
        ],
        ["MACs per example", amount(dense.macs), amount(pruned.macs), times(record.ratio("macs"))],
        ["weights on disk", size(dense.size_bytes), size(pruned.size_bytes), times(record.ratio("size_bytes"))],
    ]
    latency = record.timing.get("latency") or {}
    note = ""
    if latency.get("speedup"):
        cells = []
        for name in ("dense", "pruned"):
            item = latency["milliseconds"][name]
            cells.append(f"{item['value']:.2f} ms <small>({item['low']:.2f} to {item['high']:.2f})</small>")
        rows.append(["latency", *cells, times(latency["speedup"]["value"])])
        note = (
            f'<p class="dim">Latency in {_escape(latency["runtime"])}: median and quartiles of {latency["repeats"]} rounds in which '
            f"both took turns, after {latency['warm_up']} to warm up; batch of {latency['batch_size']}, "
            f"{latency['threads']} thread{'s' if latency['threads'] > 1 else ''}.</p>"
        )
    if any(layer.granularity == "weight" for layer in record.layers):
        note += '<p class="dim">Single zeros save bytes, not time: dense kernels multiply by them all the same.</p>'
    return f"<section><h2>Cost</h2>{_rows(rows, head=['', 'dense', 'pruned', 'ratio'])}{note}</section>"


def _charts(record: RunRecord) -> tuple[str, str]:
    """Return the charts, and one line when they can't be drawn."""
    try:
        charts = all_charts(record)
    except MissingExtraError as error:
        return "", str(error)
    figures = "".join(
        f"<figure><figcaption>{_escape(title)}</figcaption>{svg}</figure>" for title, svg in charts.items()
    )
    return f'<section><h2>Where</h2><div class="charts">{figures}</div></section>', ""


def _suspects(suspects: Sequence[Suspect]) -> str:
    if not suspects:
        return ""
    items = []
    for suspect in suspects:
        picture = f'<img src="{_escape(suspect.image)}" alt="">' if suspect.image else ""
        arrow = f" → <b>{_escape(suspect.suggested)}</b>" if suspect.suggested is not None else ""
        items.append(
            f"<li>{picture}<span>{_escape(suspect.given)}{arrow}</span><small>#{_escape(suspect.id)} {_escape(suspect.action)}, "
            f"{suspect.score:.2f}</small></li>"
        )
    return (
        '<section><h2>Suspected wrong labels</h2><p class="dim">Given label, and what the model and the neighbours say instead. '
        f'The lower the score, the more the model contradicts the label.</p><ul class="suspects">{"".join(items)}</ul></section>'
    )


def _frozen(record: RunRecord) -> str:
    if not record.frozen:
        return ""
    reasons: dict[str, list[str]] = {}
    for axis in record.frozen:
        reasons.setdefault(axis.reason, []).append(f"{axis.name} ({axis.size})")
    rows = [[_escape(reason), _escape(", ".join(names))] for reason, names in reasons.items()]
    return f"<section><details><summary>What couldn’t be pruned, and why</summary>{_rows(rows, head=['why', 'axes'])}</details></section>"


def _provenance(record: RunRecord, missing: str) -> str:
    recipe = _escape(yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True))
    versions = ", ".join(f"{_escape(k)} {_escape(v)}" for k, v in record.versions.items())
    prints = "".join(
        f"<li>{_escape(k)} <code>{_escape(v[:16])}</code></li>" for k, v in record.fingerprints.items() if v
    )
    notes = "".join(
        f"<li>{_escape(note)}</li>"
        for note in [*record.notes, *record.data.duplicates, *([missing] if missing else [])]
    )
    return (
        "<section><h2>How it was made</h2>"
        + (f"<ul>{notes}</ul>" if notes else "")
        + f'<p class="dim">Seeds {_escape(", ".join(map(str, record.seeds)))}. {versions}.</p><ul class="dim">{prints}</ul>'
        f"<details><summary>Recipe</summary><pre>{recipe}</pre></details></section>"
    )
