"""How does a page show whom pruning harms: which classes and groups lose, which examples flip, and how sure the models are?"""

from __future__ import annotations

from prunus.report.format import amount, percent, value
from prunus.report.page.page_marks import details, escape, forest, table
from prunus.report.record_parts import Number
from prunus.report.record_safety import FlipFacts, FlipRow, HarmFacts, PartTable
from prunus.report.texts.safety_text import calibration_cells, change_said, flips_line, harm_line, temperature_line

__all__ = ["harm_html"]


def harm_html(harm: HarmFacts | None) -> str:
    """Return what was found of one pair of models; nothing where nothing was looked for."""
    if harm is None:
        return ""
    parts = [_sentences(harm)]
    parts += [_parts(one) for one in (*([harm.classes] if harm.classes is not None else []), *harm.groups)]
    if harm.flips is not None:
        parts.append(_flips(harm.flips))
    if harm.calibration is not None:
        found = harm.calibration
        rows = [[escape(cell) for cell in cells] for cells in calibration_cells(found)]
        under = f'<p class="dim">{escape(temperature_line(found))}.</p>' if found.temperatures else ""
        aside = f"{amount(found.n)} answers; lower is better"
        parts.append(details("Calibration", aside, table(["", "dense", "pruned", "pruned − dense"], rows) + under))
    parts += [f'<p class="dim">{escape(note)}.</p>' for note in harm.notes]
    return "".join(parts)


def _sentences(harm: HarmFacts) -> str:
    said = [harm_line(one) for one in (*([harm.classes] if harm.classes is not None else []), *harm.groups)]
    if harm.flips is not None:
        said.append(flips_line(harm.flips))
    text = ". ".join(one[0].upper() + one[1:] for one in said)
    return f"<p>{escape(text)}.</p>" if text else ""


def _parts(one: PartTable) -> str:
    """Return the change in every part, the largest loss first."""
    reach = max((_reach(row.change) for row in one.changes), default=0.0)

    def shown(number: float | None) -> str:
        return escape(percent(number) if one.metric == "recall" else value(one.metric, number))

    ranked = sorted(
        one.changes, key=lambda row: (row.change.value or 0.0) * (-1 if row.change.higher_is_better is False else 1)
    )
    rows = []
    for row in ranked:
        worse_is_more = row.change.higher_is_better is False
        tone = row.verdict.split()[0] if row.verdict != "no measurable difference" else ""
        rows.append(
            [
                escape(row.name),
                amount(row.n),
                shown(row.dense),
                shown(row.pruned),
                escape(change_said(one.metric, row.change)),
                forest(row.change, reach=reach, tone=tone, flip=worse_is_more),
                "" if row.n_lost is None else f"{row.n_lost} / {row.n_gained}",
                "–" if row.p_value is None else escape(f"{row.p_value:.2g}"),
            ]
        )
    head = ["", "examples", "dense", "pruned", "pruned − dense", "worse&ensp;|&ensp;better", "lost / gained", "p"]
    note = f'<p class="dim">{escape(one.method)}.</p>'
    return details(f"Change by {one.by}", harm_line(one), table(head, rows) + note)


def _reach(number: Number) -> float:
    return 1.05 * max(abs(number.low or 0.0), abs(number.high or 0.0))


def _flips(found: FlipFacts) -> str:
    """Return the examples on which the models decide differently, with what there is to look at."""
    if not found.shown:
        return ""
    rows = [_flip(row) for row in found.shown]
    head = ["", "example", "label", "dense says", "pruned says", f"worse by<br>({escape(found.measure)})", ""]
    aside = f"{len(rows)} of them, the largest changes of each kind"
    return details(
        "Decisions that flip" if found.n_by_kind else "What changed most", aside, table(head, rows, kind="words")
    )


def _flip(row: FlipRow) -> list[str]:
    look = f'<img alt="" src="{escape(row.image)}">' if row.image else escape(row.values)
    said = [escape(one) for one in (row.id, row.label, row.dense, row.pruned)]
    return [look, *said, escape(f"{row.worse:+.3g}"), escape(row.kind)]
