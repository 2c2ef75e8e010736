"""Which small pieces is the page put together from? Every function returns HTML; text goes through :func:`escape`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from prunus.core.text import plain
from prunus.report.format import value
from prunus.report.record import ComparisonRow, Number

__all__ = ["chip", "definitions", "details", "escape", "forest", "joined", "section", "share_bar", "spread", "table"]


def escape(text: object) -> str:
    """Return text that is safe between tags and inside quotes, and turns nothing round; a hyphen before a digit becomes a minus.

    >>> escape("<b> -0.3 & x-1")
    '&lt;b&gt; −0.3 &amp; x-1'
    """
    said = html.escape("\n".join(map(plain, str(text).split("\n"))), quote=True)
    for before in (" -", "(-"):
        for digit in "0123456789":
            said = said.replace(before + digit, f"{before[0]}−{digit}")
    return f"−{said[1:]}" if said[:1] == "-" and said[1:2].isdigit() else said


def section(title: str, *parts: str) -> str:
    """Return a section with its title beside it, or nothing when there is nothing to show."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2><div>{body}</div></section>" if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """Return a table that scrolls sideways where it must; cells are HTML already, and the first one names the row."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    named = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{named}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, aside: str, body: str) -> str:
    """Return a part that opens on demand."""
    small = f" <small>{escape(aside)}</small>" if aside else ""
    return f"<details><summary>{escape(summary)}{small}</summary>{body}</details>"


def definitions(rows: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms and what they mean; meanings are HTML already."""
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{meaning}</dd>' for term, meaning in rows)}</dl>"


def joined(parts: Iterable[str]) -> str:
    """Return escaped parts with commas between."""
    return ", ".join(escape(part) for part in parts)


def chip(row: ComparisonRow) -> str:
    """Return the verdict, coloured."""
    return f'<span class="mark {escape(row.verdict.split()[0])}">{escape(row.verdict)}</span>'


def spread(name: str, number: Number | None, mean: float | None = None) -> str:
    """Return a metric's value with its interval under it."""
    if number is None or number.value is None:
        return "–"
    said = value(name, number.value if mean is None else mean)
    return f"{escape(said)}<small>{escape(value(name, number.low))} to {escape(value(name, number.high))}</small>"


def share_bar(kept: int, total: int) -> str:
    """Return a small bar: what was kept, and what went."""
    percent = 100 * kept / total if total else 100.0
    return f'<span class="bar" role="img" aria-label="{percent:.0f} % kept"><i style="width:{percent:.1f}%"></i></span>'


def forest(number: Number, *, reach: float, tone: str = "", flip: bool = False) -> str:
    """Return a drawing of a difference and its interval around zero; ``reach`` is what the half width stands for.

    ``flip`` puts a smaller error to the right: right is always better.
    """
    if number.value is None or number.low is None or number.high is None:
        return ""
    sign, half = (-1.0 if flip else 1.0), 70.0

    def at(difference: float) -> str:
        inside = max(-1.0, min(1.0, sign * difference / reach)) if reach > 0 else 0.0
        return f"{75 + half * inside:.1f}"

    low, high, middle = at(number.low), at(number.high), at(number.value)
    return (
        f'<svg class="forest {escape(tone)}" viewBox="0 0 150 20" aria-hidden="true"><path class="zero" d="M75 1V19"/>'
        f'<path d="M{low} 10H{high}" stroke="currentColor" stroke-width="2.5" stroke-linecap="round"/>'
        f'<circle cx="{middle}" cy="10" r="4" fill="currentColor"/></svg>'
    )
