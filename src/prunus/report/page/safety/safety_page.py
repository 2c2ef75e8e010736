"""How does a page show what models withstand, and what they tell of their training examples?"""

from __future__ import annotations

from collections.abc import Sequence

from prunus.report.format import called
from prunus.report.page.examples_page import document
from prunus.report.page.page_marks import definitions, details, escape, section, table
from prunus.report.page.safety.harm_section import harm_html
from prunus.report.record_safety import PrivacyFacts, RobustnessFacts, SafetyFacts
from prunus.report.texts.robustness_text import (
    attack_line,
    attack_rows,
    corruption_line,
    corruption_rows,
    membership_line,
    membership_rows,
    models_of,
    severity_rows,
    trigger_line,
    trigger_rows,
)

__all__ = ["render_safety", "safety_sections"]


def render_safety(facts: SafetyFacts) -> str:
    """Return the page of a bundle that isn't in a run; the same facts give the same bytes."""
    head = (
        f'<header><p class="eyebrow">prunus · {escape(facts.bundle)}</p><h1>How safe it is</h1>'
        f'<p class="lead">{escape(facts.task)}, on {escape(facts.data)}.</p></header>'
    )
    hashes = [(f"{name} SHA-256", f"<code>{escape(digest)}</code>") for name, digest in facts.hashes.items()]
    software = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    made = definitions([*hashes, ("seed", str(facts.seed)), ("software", escape(software))])
    parts = [
        head,
        section("Whom it harms", harm_html(facts.harm)),
        *safety_sections(facts),
        section("How it was made", made),
    ]
    return document(f"{facts.bundle} · safety · prunus", parts)


def safety_sections(facts: SafetyFacts | None) -> list[str]:
    """Return the sections about robustness and privacy; none where nothing was looked for."""
    if facts is None:
        return []
    return [
        section("What it withstands", _robustness(facts.robustness)),
        section("What it tells of its training", _privacy(facts.privacy)),
    ]


def _robustness(found: RobustnessFacts | None) -> str:
    if found is None:
        return ""
    parts = []
    worse = found.corruptions
    if worse is not None and worse.rows:
        models = models_of(list(worse.rows[0].values))
        head = ["", *models, *(["pruned − dense", "beyond what clean inputs cost"] if len(models) > 1 else [])]
        parts.append(_sentence(corruption_line(worse)) + _table(head, corruption_rows(worse)))
        says = definitions((name, escape(said)) for name, said in worse.says.items())
        every = f"{escape(called(worse.metric))}, {len(worse.rows)} rows"
        parts.append(details("Every severity", every, _table(head, severity_rows(worse)) + says))
        parts += [f'<p class="dim">{escape(note)}.</p>' for note in worse.notes]
    for one in found.attacks:
        head = ["", "right", "right under PGD", "right under all", "PGD alone overstates"]
        parts.append(_sentence(attack_line(one)) + _table(head, attack_rows(one)))
    if found.trigger is not None:
        head = ["", "trigger works", "its class is said anyway", "right without it"]
        parts.append(_sentence(trigger_line(found.trigger)) + _table(head, trigger_rows(found.trigger)))
    parts += [f'<p class="dim">{escape(note)}.</p>' for note in found.notes]
    return "".join(parts)


def _privacy(found: PrivacyFacts | None) -> str:
    if found is None:
        return ""
    models = models_of(list(found.rows[0].values)) if found.rows else []
    head = ["", *models, *(["pruned − dense"] if len(models) > 1 else [])]
    notes = "".join(f'<p class="dim">{escape(note)}.</p>' for note in found.notes)
    return _sentence(membership_line(found)) + _table(head, membership_rows(found)) + notes


def _sentence(text: str) -> str:
    return f"<p>{escape(text[0].upper() + text[1:])}.</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table([escape(cell) for cell in head], [[escape(cell) for cell in row] for row in rows])
