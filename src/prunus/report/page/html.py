"""How does a run's record become one page that loads nothing and can be passed on?

Everything that comes from a record is escaped; the page has no script, and forbids itself to load anything.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from prunus.core.errors import MissingExtraError
from prunus.core.files.plain_files import write_text
from prunus.report.format import amount, called, difference, finding, size, speed_change, times, value
from prunus.report.page import page_tables as tables
from prunus.report.page.charts import all_charts
from prunus.report.page.example_map import map_html
from prunus.report.page.examples_page import document, pairs_html, suspects_html
from prunus.report.page.gate_table import gate_html
from prunus.report.page.joint.joint_map import joint_html
from prunus.report.page.page_marks import definitions, details, escape, joined, section
from prunus.report.page.provenance import made
from prunus.report.page.repairs import adjustments_html, allocations_html
from prunus.report.page.safety.harm_section import harm_html
from prunus.report.page.safety.safety_page import safety_sections
from prunus.report.page.searches import search_html
from prunus.report.page.sections.gap_table import gap_trend_html
from prunus.report.page.sections.int8_table import int8_html
from prunus.report.record import RunRecord
from prunus.report.record_safety import SafetyFacts

__all__ = ["render_html", "write_html"]


def write_html(record: RunRecord, path: Path, safety: SafetyFacts | None = None) -> None:
    """Write the page in one step."""
    write_text(path, render_html(record, safety))


def render_html(record: RunRecord, safety: SafetyFacts | None = None) -> str:
    """Return the page; the same record gives the same bytes.

    Args:
        safety: what was measured of the run's models afterwards; of harm it takes the place of what the run itself found.
    """
    charts, missing = _charts(record)
    parts = [
        _head(record),
        _numbers(record),
        section("Quality", _quality_note(record), tables.quality(record), tables.spreads(record)),
        section("Whom it harms", harm_html(record.harm if safety is None else safety.harm or record.harm)),
        *safety_sections(safety),
        section("Cost", tables.cost(record)),
        section("Target and contract", search_html(record)),
        section("Over-fitting, cut by cut", gap_trend_html(record)),
        section("In 8-bit whole numbers", int8_html(record)),
        section("Other allocations", allocations_html(record)),
        section("Set right after the cut", adjustments_html(record)),
        section(
            "Where it changed",
            charts,
            tables.layers(record),
            tables.classes(record),
            tables.groups(record),
            tables.features(record),
            tables.frozen(record),
        ),
        suspects_html(record.suspects, record.precision, record.labels),
        section("Alike", pairs_html(record.pairs)),
        section("Map of the examples", map_html(record.map)),
        section("Does the selection pay?", gate_html(record.gate)),
        section("Data and model together", joint_html(record.joint)),
        _provenance(record, missing),
    ]
    return document(f"{record.name} · prunus", parts)


def _sign(text: str) -> str:
    """Escape a ratio, with a sign of multiplication."""
    return escape(text).replace("x ", "× ").removesuffix("x") + ("×" if text.endswith("x") else "")


def _head(record: RunRecord) -> str:
    row = record.comparison[0]
    confidence = _confidence(record)
    seeds = f"{row.n_seeds} seeds" if row.n_seeds > 1 else "one seed"
    return (
        f'<header><p class="eyebrow">prunus · {escape(record.name)}</p><h1>{_sign(finding(record))}</h1>'
        f'<p class="lead">Test {escape(called(row.metric))} is <strong>{escape(value(row.metric, row.pruned))}</strong> pruned against '
        f"<strong>{escape(value(row.metric, row.dense))}</strong> dense: {escape(difference(row.metric, row.difference))}, "
        f"{escape(seeds)}, paired, {confidence} % interval.</p></header>"
    )


def _confidence(record: RunRecord) -> str:
    return f"{100 * record.confidence:g}"


def _numbers(record: RunRecord) -> str:
    """Return the few numbers that matter most, large."""
    dense, pruned = record.cost["dense"], record.cost["pruned"]
    found = [
        (times(record.ratio("macs")), "fewer MACs", f"{amount(dense.macs)} → {amount(pruned.macs, dense.macs)}"),
        (
            times(record.ratio("size_bytes")),
            "smaller on disk",
            f"{size(dense.size_bytes)} → {size(pruned.size_bytes)}",
        ),
    ]
    found += _speed(record)
    removed, relabelled = (sum(getattr(c, what) for c in record.classes) for what in ("removed", "relabelled"))
    if removed or relabelled:
        words = " or ".join(w for w, n in (("removed", removed), ("relabelled", relabelled)) if n)
        total = amount(sum(c.before for c in record.classes))
        each = f"{amount(removed)} removed, {amount(relabelled)} relabelled, " if removed and relabelled else ""
        found.append((amount(removed + relabelled), f"training examples {words}", f"{each}of {total}"))
    if record.data.noise is not None:
        noise = record.data.noise
        found.append(
            (
                f"{noise.n_found}/{noise.n_flipped}",
                "labels flipped on purpose were found",
                f"{amount(noise.n_repaired)} got their own label back"
                + (f"; {amount(noise.n_clean)} clean examples went or changed with them" if noise.n_clean else ""),
            )
        )
    if record.features:
        gone = sum(not item.kept for item in record.features)
        found.append((f"{gone}/{len(record.features)}", "input features cut out", "replaced by their training mean"))
    cells = "".join(
        f"<div><b>{_sign(a)}</b><span>{escape(b)}</span><small>{_sign(c)}</small></div>" for a, b, c in found
    )
    return f'<div class="numbers">{cells}</div>'


def _speed(record: RunRecord) -> list[tuple[str, str, str]]:
    speedup = record.latency and record.latency.speedup
    if not record.latency or not speedup or not speedup.value or not speedup.low or not speedup.high:
        return []
    ratio, word = speed_change(record) or (speedup.value, "the speed, no measurable difference")
    between = f"{times(speedup.low)} to {times(speedup.high)} the speed, {record.latency.runtime}"
    return [(times(ratio), word, between)]


def _quality_note(record: RunRecord) -> str:
    n = len(record.seeds)
    over = f"Mean over {n} seeds" if n > 1 else "One seed, which says nothing about other seeds"
    row = record.comparison[0]
    unknown = " (the given weights may have)" if record.data.test_seen == "unknown" else ""
    seen = f"no decision of this run saw{unknown}"
    which = f" (the test set: {escape(record.data.test_set)})" if record.data.test_set else ""
    return (
        f'<p class="dim">{over}, on {amount(record.data.n["test"])} test examples that {seen}{which}. Under each value, what one '
        f"model’s {_confidence(record)} % interval is by the choice of examples. The difference: {escape(row.method)}.</p>"
    )


def _charts(record: RunRecord) -> tuple[str, str]:
    """Return the charts, and one line when they can't be drawn."""
    try:
        charts = all_charts(record)
    except MissingExtraError as error:
        return "", f"The charts are missing: {error}"
    figures = "".join(
        f"<figure><figcaption>{escape(chart.title)}<small>{escape(chart.note)}</small></figcaption>{chart.svg}</figure>"
        for chart in charts
    )
    return f'<div class="charts">{figures}</div>' if figures else "", ""


def _provenance(record: RunRecord, missing: str) -> str:
    data = record.data
    counts = ", ".join(f"{amount(n)} {part}" for part, n in data.n.items())
    kind = f"{data.task}, {len(data.class_names)} classes" if data.class_names else data.task
    inputs = data.inputs or " × ".join(map(str, data.input_shape))
    rows = [
        *((term, escape(text)) for term, text in made(record)),
        ("data", f"{escape(data.source)} ({escape(kind)}; inputs {escape(inputs)})"),
        ("split", escape(counts)),
        (
            "seeds",
            joined(map(str, record.seeds)) + (f"; in the bundle: seed {record.seeds[0]}" if record.seeds[1:] else ""),
        ),
        *(
            (f"{name} SHA-256", f"<code>{escape(digest)}</code>")
            for name, digest in record.fingerprints.items()
            if digest
        ),
        ("software", joined(f"{name} {version}" for name, version in record.versions.items())),
    ]
    lines = [*record.notes, *data.duplicates, *([missing] if missing else [])]
    if data.n_duplicates > len(data.duplicates):
        lines.append(f"and {amount(data.n_duplicates - len(data.duplicates))} more duplicates")
    notes = f'<ul class="notes dim">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""
    recipe = escape(yaml.safe_dump(record.recipe, sort_keys=False, allow_unicode=True))
    return section(
        "How it was made",
        definitions(rows),
        notes,
        details("The recipe, with every default", "", f"<pre>{recipe}</pre>"),
    )
