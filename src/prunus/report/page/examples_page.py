"""How does a reader see what is wrong with the training examples: labels, what is alike, and a map?

The sections stand in a run's report, and alone on a page of their own where only the examples were looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prunus.core.files.plain_files import write_text
from prunus.report.format import amount, percent, suspected_labels
from prunus.report.format import told as is_told
from prunus.report.page.example_map import map_html
from prunus.report.page.page_marks import details, escape, section, table
from prunus.report.page.page_style import STYLE
from prunus.report.record_examples import ClassCount, ExamplesFacts, LabelFacts, LikePair, PrecisionFacts, Suspect

__all__ = ["POLICY", "document", "pairs_html", "render_examples", "suspects_html", "write_examples_html"]

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""No script runs on a page, and it loads nothing."""
_FIRST = 12
"""So many rows of a table stand open; the others open on demand."""
_KINDS = {
    "otherwise": "Alike, and labelled otherwise: one of the two labels is wrong",
    "leaked": "Test examples that the training knows: the test flatters by them",
    "dropped": "Duplicates: the one on the left goes, the other one stays for it",
}


def write_examples_html(facts: ExamplesFacts, path: Path) -> None:
    """Write the page about examples in one step."""
    write_text(path, render_examples(facts))


def render_examples(facts: ExamplesFacts) -> str:
    """Return the page about examples; the same facts give the same bytes."""
    notes = "".join(f"<li>{escape(line)}</li>" for line in facts.notes)
    parts = [
        _head(facts),
        suspects_html(facts.suspects, facts.precision, facts.labels),
        section("Alike", pairs_html(facts.pairs, facts.n_alike)),
        section("Map of the examples", map_html(facts.map)),
        section("Every class", _classes(facts.classes)),
        section("Notes", f'<ul class="notes dim">{notes}</ul>' if notes else ""),
    ]
    return document(f"{facts.name} · examples · prunus", parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Return a whole page of its parts."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _head(facts: ExamplesFacts) -> str:
    n, labels = amount(facts.n["train"]), facts.labels
    found: list[tuple[str, str, str]] = []
    said = f"What {n} training examples look like"
    if labels is not None:
        noise = labels.noise
        between = f"{percent(noise.low)} to {percent(noise.high)}"
        said = f"How many of {n} training labels are wrong can’t be told: the models are too unsure"
        if is_told(noise):
            said = f"{percent(noise.value)} of {n} training labels are estimated to be wrong"
        found.append((percent(noise.value) if is_told(noise) else "?", "labels estimated to be wrong", between))
        told = {item.action: item.precision for item in facts.precision}
        for word, count in (
            ("relabelled", labels.n_relabelled),
            ("removed", labels.n_dropped),
            ("flagged", labels.n_flagged),
        ):
            if count:
                sure = f"{percent(told[word].value)} of them wrong, by the estimate" if word in told else ""
                found.append((amount(count), f"would be {word}" if word != "flagged" else word, sure))
    alike: tuple[tuple[Literal["dropped", "leaked"], str], ...] = (
        ("dropped", "near-duplicates would be removed"),
        ("leaked", "test examples that training knows"),
    )
    for kind, words in alike:
        if count := facts.n_alike.get(kind, 0):
            found.append((amount(count), words, f"of {amount(facts.n['test'])}" if kind == "leaked" else ""))
    cells = "".join(
        f"<div><b>{escape(a)}</b><span>{escape(b)}</span><small>{escape(c)}</small></div>" for a, b, c in found
    )
    lead = f"{facts.source}, {facts.task}. Nothing was changed: the decisions stand in the table, to be edited and given back."
    return (
        f'<header><p class="eyebrow">prunus · {escape(facts.name)}</p><h1>{escape(said)}</h1>'
        f'<p class="lead">{escape(lead)}</p></header><div class="numbers">{cells}</div>'
    )


def suspects_html(suspects: Sequence[Suspect], precision: Sequence[PrecisionFacts], labels: LabelFacts | None) -> str:
    """Return the section about labels that look wrong, with how many of them are estimated to be."""
    line = suspected_labels(precision, labels)
    if not suspects and not line:
        return ""
    lead = ""
    if suspects:
        says, means = "the model and its neighbours say", "The lower the score, the more they contradict the label"
        if labels is not None:
            says, means = "models say that didn’t see it", "The score is the probability that it is right"
        lead = (
            f'<p class="dim">The given label, and what {says} instead. {means}. {len(suspects)} are shown; those with an arrow '
            "were relabelled.</p>"
        )
    if line:
        lead += f'<p class="dim">{escape(line[0].upper() + line[1:])}. Models that didn’t learn from an example said what they '
        lead += "believe of its label; labels that people confuse are wrong more often than that.</p>"
    if not any(suspect.image for suspect in suspects):
        with_values = any(suspect.values for suspect in suspects)
        rows = [
            [
                *map(escape, (s.id, s.given, s.suggested or "–", s.action, f"{s.score:.2f}")),
                *([f"<small>{escape(s.values)}</small>"] if with_values else []),
            ]
            for s in suspects
        ]
        head = ["example", "given", "says", "", "score", *(["what it is"] if with_values else [])]
        kind = "looks" if with_values else ""
        first = table(head, rows[:_FIRST], kind=kind) if rows else ""
        more = details(f"{len(rows) - _FIRST} more", "", table(head, rows[_FIRST:], kind=kind)) if rows[_FIRST:] else ""
        return section("Suspected wrong labels", lead, first, more)
    pictures = "".join(_picture(suspect) for suspect in suspects)
    return section("Suspected wrong labels", lead, f'<ul class="suspects">{pictures}</ul>')


def _picture(suspect: Suspect) -> str:
    image = f'<img src="{escape(suspect.image)}" alt="" loading="lazy">' if suspect.image else ""
    label = f"<del>{escape(suspect.given)}</del>"
    label += f" → <ins>{escape(suspect.suggested)}</ins>" if suspect.suggested is not None else ""
    parts = [f"#{suspect.id}", f"{suspect.score:.2f}"]
    if suspect.suggested is None:
        parts.insert(1, suspect.action)
    small = f"<small>{' · '.join(escape(part) for part in parts)}</small>"
    return f"<li>{image}{label}{small}</li>"


def pairs_html(pairs: Sequence[LikePair], n_alike: Mapping[Any, int] | None = None) -> str:
    """Return pairs of examples side by side, by kind."""
    parts = []
    for kind, title in _KINDS.items():
        own = [pair for pair in pairs if pair.kind == kind]
        if not own:
            continue
        n = (n_alike or {}).get(kind, len(own))
        some = f" <small>{len(own)} of {amount(n)}</small>" if n > len(own) else f" <small>{amount(n)}</small>"
        parts.append(f"<h3>{escape(title)}{some}</h3>")
        if any(pair.image for pair in own):
            parts.append(f'<ul class="pairs">{"".join(map(_side_by_side, own))}</ul>')
        else:
            parts.append(_pair_table(own))
    return "".join(parts)


def _side_by_side(pair: LikePair) -> str:
    images = "".join(
        f'<img src="{escape(image)}" alt="" loading="lazy">' for image in (pair.image, pair.other_image) if image
    )
    labels = (
        escape(pair.label) if pair.label == pair.other_label else f"{escape(pair.label)} | {escape(pair.other_label)}"
    )
    return f"<li><div>{images}</div>{labels}<small>#{escape(pair.id)} · #{escape(pair.other)} · {pair.likeness:.4f}</small></li>"


def _pair_table(pairs: Sequence[LikePair]) -> str:
    with_values = any(pair.values for pair in pairs)
    rows = [
        [
            *map(escape, (pair.id, pair.label, pair.other, pair.other_label, f"{pair.likeness:.4f}")),
            *(
                [f"<small>{escape(pair.values)}</small><small>{escape(pair.other_values)}</small>"]
                if with_values
                else []
            ),
        ]
        for pair in pairs
    ]
    head = ["example", "label", "like", "label", "likeness", *(["what both are"] if with_values else [])]
    return table(head, rows, kind="looks" if with_values else "")


def _classes(classes: Sequence[ClassCount]) -> str:
    if not classes:
        return ""
    rows = [[escape(c.name), *map(amount, (c.before, c.removed, c.relabelled))] for c in classes]
    return table(["", "training<br>examples", "would be<br>removed", "would be<br>relabelled"], rows)
