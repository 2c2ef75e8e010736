"""How is it told what models withstand, and what they tell of their training examples: rows and sentences for text and page?"""

from __future__ import annotations

from collections.abc import Sequence

from prunus.report.format import amount, called, difference, percent, points, value
from prunus.report.record_parts import Number
from prunus.report.record_safety import (
    AttackFacts,
    CorruptionFacts,
    CorruptionLine,
    MembershipLine,
    PrivacyFacts,
    TriggerFacts,
)

__all__ = [
    "attack_line",
    "attack_rows",
    "corruption_line",
    "corruption_rows",
    "membership_line",
    "membership_rows",
    "models_of",
    "severity_rows",
    "share_said",
    "trigger_line",
    "trigger_rows",
]

_MEASURES = {"auc": "area under the curve", "tpr_at_0.01": "found at 1 % false", "tpr_at_0.001": "found at 0.1 % false"}
_ATTACKS = {"loss": "by the loss", "lira": "by the likelihood ratio"}


def models_of(names: Sequence[str]) -> list[str]:
    """Return the models, the dense one first."""
    return [name for name in ("dense", "pruned") if name in names]


def share_said(number: Number) -> str:
    """Return a counted share with its interval."""
    return f"{percent(number.value)} ({percent(number.low)} to {percent(number.high)})"


def _said(metric: str, number: Number | None) -> str:
    if number is None:
        return ""
    if number.low is None or number.high is None:
        return value(metric, number.value)
    return f"{value(metric, number.value)} ({value(metric, number.low)} to {value(metric, number.high)})"


def corruption_rows(found: CorruptionFacts) -> list[list[str]]:
    """Return one row for each corruption, the mean over its severities: the models, pruned minus dense, and the excess."""
    return [_cells(found, row, row.name) for row in found.rows if row.severity == 0]


def severity_rows(found: CorruptionFacts) -> list[list[str]]:
    """Return one row for each corruption at each severity."""
    return [_cells(found, row, f"{row.name}, {row.severity}") for row in found.rows if row.severity]


def _cells(found: CorruptionFacts, row: CorruptionLine, name: str) -> list[str]:
    apart = [] if row.difference is None or row.excess is None else [row.difference, row.excess]
    values = [_said(found.metric, row.values[model]) for model in models_of(list(row.values))]
    return [name, *values, *(difference(found.metric, one) for one in apart)]


def corruption_line(found: CorruptionFacts) -> str:
    """Return in one sentence which corruptions hit the pruned model harder than pruning does anyway."""
    rows = [row for row in found.rows if row.severity == 0]
    if not rows or rows[0].excess is None:
        return (
            f"{called(found.metric)} under {len(rows)} corruptions of {found.kind} inputs, {amount(found.n)} examples"
        )
    worse = [row.name for row in rows if _costs(row.excess)]
    if not worse:
        return f"none of {len(rows)} corruptions costs the pruned model measurably more than clean inputs do"
    return f"{len(worse)} of {len(rows)} corruptions cost the pruned model measurably more than clean inputs do: {', '.join(worse)}"


def _costs(excess: Number | None) -> bool:
    if excess is None or excess.low is None or excess.high is None:
        return False
    return excess.low > 0 if excess.higher_is_better is False else excess.high < 0


def attack_rows(found: AttackFacts) -> list[list[str]]:
    """Return one row for each model: right without attack, under PGD alone, under all attacks, and what PGD alone overstates."""
    rows = []
    for name in models_of(list(found.models)):
        one = found.models[name]
        over = 100 * ((one.under_pgd.value or 0.0) - (one.under_all.value or 0.0))
        rows.append([name, *map(share_said, (one.accuracy, one.under_pgd, one.under_all)), f"{over:.1f} points"])
    return rows


def attack_line(found: AttackFacts) -> str:
    """Return in one sentence what was allowed, what was run, and how the models differ."""
    said = f"{found.norm} attacks of up to {found.reach:.3g} {found.unit} on {amount(found.n)} examples"
    said = f"{said}: {', then '.join(found.attacks)}"
    if found.difference is not None:
        said += f"; what withstands all of them, pruned - dense: {points(found.difference)}"
    return said


def trigger_rows(found: TriggerFacts) -> list[list[str]]:
    """Return one row for each model: how often the trigger works, how often its class is said anyway, and the accuracy."""
    return [
        [name, *map(share_said, (one.success, one.anyway, one.accuracy))]
        for name in models_of(list(found.models))
        for one in [found.models[name]]
    ]


def trigger_line(found: TriggerFacts) -> str:
    """Return what was measured of a trigger, and that nothing was taken out."""
    said = f"trigger {found.trigger} for {found.target}, on {amount(found.n)} examples of other classes"
    if found.difference is not None:
        said += f"; success, pruned - dense: {points(found.difference)}"
    return f"{said}; measured, not removed"


def membership_rows(found: PrivacyFacts) -> list[list[str]]:
    """Return one row for each attack and measure: the models, and pruned minus dense."""
    return [
        [
            f"{_ATTACKS[row.attack]}: {_MEASURES.get(row.measure, row.measure)}",
            *(_share(row, row.values[name]) for name in models_of(list(row.values))),
            *([] if row.difference is None else [_apart(row)]),
        ]
        for row in found.rows
    ]


def _share(row: MembershipLine, number: Number) -> str:
    if row.measure != "auc" or number.value is None or number.low is None or number.high is None:
        return share_said(number)
    return f"{number.value:.3f} ({number.low:.3f} to {number.high:.3f})"


def _apart(row: MembershipLine) -> str:
    number = row.difference
    assert number is not None
    if row.measure != "auc" or number.value is None or number.low is None or number.high is None:
        return points(number)
    return f"{number.value:+.3f} ({number.low:+.3f} to {number.high:+.3f})"


def membership_line(found: PrivacyFacts) -> str:
    """Return what was compared; an area of 0.5 is a guess."""
    shadows = f", {found.n_shadows} shadow models" if found.n_shadows else ""
    return (
        f"who was trained on: {amount(found.n_members)} training examples against {amount(found.n_outsiders)} others{shadows}; an "
        "area of 0.5 is a guess"
    )
