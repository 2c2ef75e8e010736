"""Which tables does the page have: quality, cost, and what went where?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prunus.report.format import (
    amount,
    called,
    difference,
    is_share,
    lead_metrics,
    mask_note,
    percent,
    points,
    size,
    times,
    value,
)
from prunus.report.page.page_marks import chip, details, escape, forest, joined, share_bar, spread, table
from prunus.report.record import ClassScore, ComparisonRow, ModelName, Number, RunRecord

__all__ = ["classes", "cost", "features", "frozen", "groups", "layers", "quality", "spreads"]


def quality(record: RunRecord) -> str:
    """Return dense against pruned on the test examples, one row per metric, with the paired difference."""
    leading, rest = lead_metrics(record)
    reach = max((_reach(row.difference) for row in record.comparison if is_share(row.metric)), default=0.0)
    rows = []
    for row in (*leading, *rest):
        better_is_less = row.difference.higher_is_better is False
        drawn = forest(
            row.difference,
            reach=reach if is_share(row.metric) else _reach(row.difference),
            tone=row.verdict.split()[0],
            flip=better_is_less,
        )
        cells = [spread(row.metric, _typical(record, model, row.metric), of_model) for model, of_model in _means(row)]
        said, _, between = difference(row.metric, row.difference).partition(" (")
        change = escape(said) + (f"<small>{escape(between.removesuffix(')'))}</small>" if between else "")
        rows.append([escape(called(row.metric)), *cells, change, drawn, chip(row)])
    head = ["", "dense", "pruned", "pruned − dense", "worse&ensp;|&ensp;better", ""]
    shown, folded = rows[: len(leading)], rows[len(leading) :]
    if not folded:
        return table(head, shown, kind="quality")
    names = ", ".join(called(row.metric) for row in rest)
    more = details(f"{len(rest)} more with the same verdict", names, table(head, folded, kind="quality"))
    return table(head, shown, kind="quality") + more


def _means(row: ComparisonRow) -> tuple[tuple[ModelName, float], ...]:
    return ("dense", row.dense), ("pruned", row.pruned)


def _reach(number: Number) -> float:
    return 1.05 * max(abs(number.low or 0.0), abs(number.high or 0.0))


def _typical(record: RunRecord, model: ModelName, metric: str) -> Number | None:
    """Return the interval of one model by its test examples, averaged over the seeds."""
    found = record.values(model, "test", metric)
    if not found:
        return None
    middle, low, high = (
        sum(getattr(number, part) or 0.0 for number in found) / len(found) for part in ("value", "low", "high")
    )
    return Number(name=metric, value=middle, low=low, high=high)


def spreads(record: RunRecord) -> str:
    """Return train against test, the gap between them, and the deviation over seeds."""
    rows = []
    for row in record.comparison:
        cells = [escape(called(row.metric))]
        for model in ("dense", "pruned"):
            cells += [escape(value(row.metric, record.mean(model, part, row.metric))) for part in ("train", "test")]
            cells.append(_gap(record, model, row.metric))
        cells += [escape(value(row.metric, number)) for number in (row.dense_deviation, row.pruned_deviation)]
        rows.append(cells)
    head = ["", *(f"{m}<br>{p}" for m in ("dense", "pruned") for p in ("train", "test", "gap"))]
    head += ["deviation over<br>seeds, dense", "pruned"]
    return details("Training against test, and seed against seed", "the gap is train minus test", table(head, rows))


def _gap(record: RunRecord, model: str, metric: str) -> str:
    found = [row for row in record.gaps if (row.model, row.metric) == (model, metric) and row.value is not None]
    if not found:
        return "–"
    middle, low, high = (
        sum(getattr(row, part) or 0.0 for row in found) / len(found) for part in ("value", "low", "high")
    )
    return spread(metric, Number(name=metric, value=middle, low=low, high=high))


def cost(record: RunRecord) -> str:
    """Return sizes and times, dense against pruned."""
    dense, pruned = record.cost["dense"], record.cost["pruned"]
    lines: list[tuple[str, Callable[[float, float], str], str]] = [
        ("parameters", amount, "parameters"),
        ("of which not zero", amount, "nonzero_parameters"),
    ]
    lines += [("MACs per example", amount, "macs"), ("weights on disk", lambda n_bytes, _: size(n_bytes), "size_bytes")]
    rows = [
        [
            name,
            *(escape(say(getattr(model, what), getattr(dense, what))) for model in (dense, pruned)),
            _times(record.ratio(what)),
        ]
        for name, say, what in lines
        if what != "nonzero_parameters" or pruned.nonzero_parameters < pruned.parameters
    ]
    notes = []
    latency = record.latency
    if latency is not None and latency.speedup is not None:
        cells = []
        for name in ("dense", "pruned"):
            item = latency.milliseconds[name]
            cells.append(f"{_ms(item.value)} ms<small>{_ms(item.low)} to {_ms(item.high)}</small>")
        speedup = latency.speedup
        said = f"{_times(speedup.value)}<small>{_times(speedup.low)} to {_times(speedup.high)}</small>"
        rows.append([f"latency, batch of {latency.batch_size}", *cells, said])
        threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
        clock = " by the thread’s own clock" if latency.clock == "processor" else ""
        notes.append(
            f"Latency in {latency.runtime} on {threads}{clock}: median and quartiles of {latency.repeats} rounds in which both "
            f"models took turns, after {latency.warm_up} to warm up; the ratio is the median of the paired ones with its interval."
        )
    if note := mask_note(record):
        notes.append(note)
    if record.kind == "graph":
        notes.append("The pruned model is the traced computation, not the original class.")
    said_notes = "".join(f'<p class="dim">{escape(note)}</p>' for note in notes)
    return table(["", "dense", "pruned", "ratio"], rows, kind="cost") + said_notes


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else escape(times(ratio)).replace("x", "×")


def _ms(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


def layers(record: RunRecord) -> str:
    """Return units before and after, per layer."""
    if not record.layers:
        return ""
    rows = [
        [
            f"<code>{escape(layer.name)}</code>",
            escape(layer.granularity),
            amount(layer.before),
            amount(layer.after),
            share_bar(layer.after, layer.before),
        ]
        for layer in record.layers
    ]
    kept, total = sum(layer.after for layer in record.layers), sum(layer.before for layer in record.layers)
    aside = f"{amount(kept, total)} of {amount(total)} units kept in {len(record.layers)} groups"
    return details("Every layer", aside, table(["", "unit", "before", "after", "kept"], rows))


def classes(record: RunRecord) -> str:
    """Return recall per class, its change, and what happened to the training examples."""
    if not record.class_changes:
        return ""
    counts = {item.name: item for item in record.classes}
    changes = {item.name: item for item in record.class_changes}
    reach = max(_reach(change) for change in changes.values())
    scores = [(row.model, row.per_class) for row in record.quality if row.split == "test"]
    rows, absent = [], []
    for position, name in enumerate(record.data.class_names):
        of_class = [(model, per_class[position]) for model, per_class in scores if position < len(per_class)]
        if name not in changes or not of_class:
            absent.append(name)
            continue
        count, change = counts.get(name), changes[name]
        tone = "better" if (change.low or 0) > 0 else "worse" if (change.high or 0) < 0 else ""
        row = [escape(name), amount(of_class[0][1].support), _recall(of_class, "dense"), _recall(of_class, "pruned")]
        row += [escape(points(change).partition(" (")[0]), forest(change, reach=reach, tone=tone)]
        row += [amount(count.before), amount(count.removed), amount(count.relabelled)] if count else ["–"] * 3
        rows.append(row)
    head = ["", "test<br>examples", "recall<br>dense", "recall<br>pruned", "change", "worse&ensp;|&ensp;better"]
    head += ["training<br>examples", "removed", "relabelled"]
    note = ""
    if absent:
        note = f'<p class="dim">Without test examples, so in no average over classes: {joined(absent)}.</p>'
    aside = f"{len(rows)}, with recall before and after; the intervals of all classes hold together"
    return details("Every class", aside, table(head, rows) + note)


def groups(record: RunRecord) -> str:
    """Return the change in every group of a column, the largest group first."""
    found = record.group_changes
    if found is None:
        return ""
    reach = max((_reach(item.difference) for item in found.changes), default=0.0)
    rows = [
        [
            escape(item.name),
            amount(item.n),
            escape(value(found.metric, item.dense)),
            escape(value(found.metric, item.pruned)),
            escape(difference(found.metric, item.difference)),
            forest(
                item.difference,
                reach=reach,
                tone=item.verdict.split()[0],
                flip=item.difference.higher_is_better is False,
            ),
            escape(item.verdict),
        ]
        for item in found.changes
    ]
    head = ["", "test<br>examples", f"{escape(called(found.metric))}<br>dense", "pruned", "pruned − dense"]
    note = f'<p class="dim">All {len(rows)} intervals hold together with {percent(found.confidence)} confidence.</p>'
    shown = table([*head, "worse&ensp;|&ensp;better", ""], rows)
    return details(f"Every group of {escape(found.column)}", f"{len(rows)}, with the change of each", shown + note)


def _recall(scores: Sequence[tuple[str, ClassScore]], model: str) -> str:
    found = [score.recall.value for name, score in scores if name == model and score.recall.value is not None]
    return escape(percent(sum(found) / len(found) if found else None))


def features(record: RunRecord) -> str:
    """Return how much each input feature matters, the most important first."""
    if not record.features:
        return ""
    rows = [
        [escape(item.name), escape(f"{item.importance:.4f}"), "kept" if item.kept else "replaced by its mean, cut out"]
        for item in sorted(record.features, key=lambda item: -item.importance)
    ]
    kept = sum(item.kept for item in record.features)
    return details("Every input feature", f"{kept} of {len(rows)} kept", table(["", "importance", ""], rows))


def frozen(record: RunRecord) -> str:
    """Return what couldn't be pruned, by reason."""
    if not record.frozen:
        return ""
    reasons: dict[str, list[str]] = {}
    for axis in record.frozen:
        reasons.setdefault(axis.reason, []).append(f"{axis.name} ({axis.size})")
    rows = [[escape(reason), f"<code>{joined(names)}</code>"] for reason, names in reasons.items()]
    aside = f"{len(record.frozen)} dimension{'s' if len(record.frozen) > 1 else ''}"
    return details(
        "What couldn’t be pruned, and why", aside, table(["why", "axes (and their size)"], rows, kind="words")
    )
