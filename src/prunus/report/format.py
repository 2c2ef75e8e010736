"""How is a number said: with its unit, few digits, and what it means?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunus.core.units import as_mask, plural
from prunus.report.record import ComparisonRow, LabelFacts, Number, PrecisionFacts, RunRecord

if TYPE_CHECKING:
    from prunus.tasks import Metric

__all__ = [
    "amount",
    "budget",
    "called",
    "difference",
    "finding",
    "headline",
    "is_share",
    "lead_metrics",
    "mask_note",
    "noise_share",
    "not_faster",
    "percent",
    "points",
    "ratio_with_interval",
    "size",
    "speed_change",
    "suspected",
    "suspected_labels",
    "times",
    "told",
    "value",
    "verdict",
    "with_interval",
]

_WIDEST = 0.2
"""By an interval that is wider nobody knows how many labels are wrong."""


def is_share(name: str) -> bool:
    """Tell whether a metric is a share of 1, said in percent; of a metric that isn't there nothing is known."""
    metric = _metric(name)
    return metric is not None and metric.is_share


def called(name: str) -> str:
    """Return a metric's name as one says it.

    >>> called("f1_macro"), called("accuracy"), called("r2"), called("mae"), called("not_there")
    ('macro F1', 'accuracy', 'R²', 'MAE', 'not_there')
    """
    metric = _metric(name)
    return name if metric is None else metric.label


def _metric(name: str) -> Metric | None:
    # Imported here: a record is read, and its absence said, without torch.
    from prunus.tasks import metrics

    return metrics[name] if name in metrics else None  # noqa: SIM401 - a registry has no get


def percent(number: float | None) -> str:
    """Return a share in percent.

    >>> percent(0.97834), percent(None)
    ('97.8 %', '–')
    """
    return "–" if number is None else f"{100 * number:.1f} %"


def value(name: str, number: float | None) -> str:
    """Return a metric's value in words.

    >>> value("accuracy", 0.97834), value("rmse", 12.3456), value("r2", None)
    ('97.8 %', '12.35', '–')
    """
    if is_share(name):
        return percent(number)
    return "–" if number is None else f"{number:.4g}"


def suspected(record: RunRecord) -> str:
    """Return how many of the labels that were called wrong are estimated to be; "" where it isn't known, or counted instead."""
    return suspected_labels(record.precision, record.labels)


def suspected_labels(precision: Sequence[PrecisionFacts], labels: LabelFacts | None) -> str:
    """Return how many labels are estimated to be wrong, of all and of each list; "" where none were looked at."""
    lists = [
        f"{percent(facts.precision.value)} of the {amount(facts.n)} {facts.action} "
        f"({percent(facts.precision.low)} to {percent(facts.precision.high)})"
        for facts in precision
    ]
    if labels is None and not lists:
        return ""
    of_all = f"{percent(precision[0].noise)} of all" if labels is None else noise_share(labels.noise)
    if labels is not None:
        if labels.repaired is not None:
            of_all += f"; {percent(labels.repaired)} of the relabelled are estimated to be right now"
        if labels.n_spared:
            of_all += f"; {amount(labels.n_spared)} stay though they look wrong, since too few of their class would (class_floor)"
        if labels.evidence == "recorded":
            of_all += "; by a model that learnt from them, which is less sure"
    return f"labels estimated to be wrong, if by chance: {', '.join(lists)}{'; ' * bool(lists)}{of_all}"


def noise_share(noise: Number) -> str:
    """Return which share of all labels is estimated to be wrong; that it can't be told, where the models are too unsure for it."""
    between = f"({percent(noise.low)} to {percent(noise.high)})"
    if told(noise):
        return f"{percent(noise.value)} of all {between}"
    return f"how many of all can't be told, since the models are too unsure {between}"


def told(noise: Number) -> bool:
    """Tell whether the interval of a share of wrong labels is narrow enough to say the share."""
    return noise.low is not None and noise.high is not None and noise.high - noise.low <= _WIDEST


def with_interval(name: str, number: Number) -> str:
    """Return a value with its interval."""
    return f"{value(name, number.value)} ({value(name, number.low)} to {value(name, number.high)})"


def difference(name: str, number: Number) -> str:
    """Return a signed difference with its interval; of shares in points."""
    return points(number) if is_share(name) else _apart(number, 1, "", 3)


def points(number: Number) -> str:
    """Return a signed difference of shares, in points, with its interval."""
    return _apart(number, 100, " points", 1)


def _apart(number: Number, scale: int, unit: str, digits: int) -> str:
    if number.value is None or number.low is None or number.high is None:
        return "–"
    said = [_signed(scale * x, digits) for x in (number.value, number.low, number.high)]
    return f"{said[0]}{unit} ({said[1]} to {said[2]})"


def _signed(number: float, digits: int) -> str:
    """Return a number with its sign; nothing is neither more nor less."""
    said = f"{number:+.{digits}f}"
    return said[1:] if float(said) == 0 else said


def times(ratio: float) -> str:
    """Return a ratio.

    >>> times(5.8381), times(0.97), times(1.009), times(123.4)
    ('5.8x', '0.97x', '1.01x', '123x')
    """
    return f"{ratio:.0f}x" if ratio >= 100 else f"{ratio:.1f}x" if ratio >= 1.095 else f"{ratio:.2f}x"


def ratio_with_interval(number: Number) -> str:
    """Return a ratio with its interval."""
    if number.value is None or number.low is None or number.high is None:
        return "–"
    return f"{times(number.value)} ({times(number.low)} to {times(number.high)})"


def mask_note(record: RunRecord) -> str:
    """Return what zeros are good for, and what would make them faster; empty where no single weights were pruned."""
    kinds = [unit for unit in dict.fromkeys(layer.granularity for layer in record.layers) if as_mask(unit) is not None]
    if not kinds:
        return ""
    what = ", ".join(map(plural, kinds))
    return (
        f"{what[0].upper()}{what[1:]} that are zero save bytes, not time: dense kernels multiply by them all the same. "
        "Time needs a runtime with sparse kernels, and zeros as it wants them: 4x1 blocks, or 90 % of the weights. "
        "None was measured in this run; `prunus export BUNDLE --to mnn` writes for one, which ran a ResNet-50 1.9x as fast "
        "with 90 % of zeros, and 3.3x with 90 % in 4x1 blocks."
    )


def amount(number: float, beside: float = 0.0) -> str:
    """Return a count with thousands separated by thin spaces, or in millions; ``beside`` a larger one, in its unit.

    >>> amount(94186), amount(1_234_567_890), amount(9_857_536)
    ('94\u2009186', '1.23 G', '9\u2009857\u2009536')
    >>> amount(9_857_536, beside=37_000_000), amount(14, beside=37_000_000)
    ('9.86 M', '14')
    """
    for limit, whole, unit in ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e7, 1e6, "M")):
        if number >= limit or (beside >= limit and number >= whole / 1000):
            return f"{number / whole:.3g} {unit}"
    return f"{number:,.0f}".replace(",", "\u2009")


def size(n_bytes: float) -> str:
    """Return a size in bytes.

    >>> size(512), size(380_000), size(2_500_000_000)
    ('512 B', '380 kB', '2.5 GB')
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= limit:
            return f"{n_bytes / limit:.3g} {unit}"
    return f"{n_bytes:.0f} B"


def verdict(row: ComparisonRow) -> str:
    """Return what the comparison of one metric says."""
    seeds = f"{row.n_seeds} seed{'s' if row.n_seeds > 1 else ''}"
    return (
        f"test {row.metric} {value(row.metric, row.pruned)} against {value(row.metric, row.dense)} dense: {row.verdict}, "
        f"{difference(row.metric, row.difference)}, {seeds}"
    )


def lead_metrics(record: RunRecord) -> tuple[list[ComparisonRow], list[ComparisonRow]]:
    """Return the metrics to show, and those that add nothing: the first leads, what has another verdict stands beside it.

    Where all agree, the second is shown, too, and two are never folded away.
    """
    first, *others = record.comparison
    shown = [first, *(row for row in others if row.verdict != first.verdict)]
    if len(shown) == 1:
        shown += others[:1]
    rest = [row for row in others if row not in shown]
    return (shown, rest) if len(rest) > 1 else (list(record.comparison), [])


def budget(record: RunRecord) -> str:
    """Return how much longer the pruned model was trained, where the difference may be due to that; else nothing."""
    more = record.epochs.get("pruned", 0) - record.epochs.get("dense", 0)
    if more <= 0 or record.comparison[0].verdict != "better":
        return ""
    return (
        f", after {more} epoch{'s' if more > 1 else ''} of training more than the dense model had "
        "(evaluation.control: same_budget compares with as much)"
    )


def headline(record: RunRecord) -> str:
    """Return the result of a run in one sentence."""
    parts = []
    for what, words in (("macs", "fewer MACs"), ("size_bytes", "smaller on disk")):
        if abs(record.ratio(what) - 1) > 0.005:
            parts.append(f"{times(record.ratio(what))} {words}")
    if parts and (speed := speed_change(record)) is not None and speed[1] == "faster":
        parts.append(f"{times(speed[0])} {speed[1]}")
    gone = sum(item.removed for item in record.classes)
    if gone and not parts:
        parts.append(f"{amount(gone)} training examples fewer")
    start = ", ".join(parts) if parts else "the same size"
    slow = not_faster(record)
    return f"{slow + '; ' if slow else ''}{start}; {verdict(record.comparison[0])}{budget(record)}"


def not_faster(record: RunRecord) -> str:
    """Return that a smaller model isn't measurably faster than the dense one; "" where it is, or nothing was timed."""
    speedup = record.latency and record.latency.speedup
    smaller = any(record.ratio(what) > 1.005 for what in ("macs", "size_bytes"))
    if not smaller or not speedup or not speedup.value or not speedup.low or speedup.low > 1:
        return ""
    assert record.latency is not None
    return f"NOT faster than the dense model: {ratio_with_interval(speedup)} in {record.latency.runtime}"


def speed_change(record: RunRecord) -> tuple[float, str] | None:
    """Return how many times faster or slower the pruned model is; None where the interval doesn't tell."""
    speedup = record.latency and record.latency.speedup
    if not speedup or not speedup.value or not speedup.low or not speedup.high or speedup.low <= 1 <= speedup.high:
        return None
    return (speedup.value, "faster") if speedup.low > 1 else (1 / speedup.value, "slower")


def finding(record: RunRecord) -> str:
    """Return what a run achieved as a title: what was saved, and at what price."""
    parts = []
    for what, words in (("macs", "fewer MACs"), ("size_bytes", "smaller on disk")):
        if record.ratio(what) >= 1.05:
            parts.append(f"{times(record.ratio(what))} {words}")
    gone = sum(item.removed for item in record.classes)
    if gone and not parts:
        parts.append(f"{amount(gone)} training examples fewer")
    row = record.comparison[0]
    price = {
        "better": f"and better {called(row.metric)}{' after more training' if budget(record) else ''}",
        "worse": f"but worse {called(row.metric)}",
        "no measurable difference": f"no measurable difference in {called(row.metric)}",
    }[row.verdict]
    text = ", ".join([*(parts or ["The same size"]), price])
    return text[0].upper() + text[1:]
