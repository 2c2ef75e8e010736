"""Which criteria may a recipe name? Importing this module registers them all."""

from __future__ import annotations

from prunus.score import compensated, gradients, regularized, weights
from prunus.score.criteria import criteria
from prunus.score.examples import example_criteria

__all__ = ["criteria_table"]

_MODULES = (weights, gradients, compensated, regularized)  # imported for what they register


def criteria_table() -> list[dict[str, str]]:
    """Return one row per criterion: where it is named in a recipe, what it judges, what it needs, what it is.

    >>> [row["name"] for row in criteria_table() if row["section"] == "examples.remove"]
    ['aum', 'el2n', 'random']
    """
    rows = [
        {
            "section": "strategy",
            "name": name,
            "judges": "single weights"
            if criteria[name].single
            else "every unit"
            if "weight" in criteria[name].granularities
            else "widths",
            "needs": ", ".join(need for need in criteria[name].needs if need != "noise"),
            "training": criteria[name].regularizer or "",
            "summary": criteria[name].summary,
            "reference": criteria[name].reference,
        }
        for name in criteria
    ]
    rows += [
        {
            "section": "examples.remove",
            "name": name,
            "judges": "example",
            "needs": "" if name == "random" else "a short training",
            "training": "",
            "summary": example_criteria[name].summary,
            "reference": example_criteria[name].reference,
        }
        for name in example_criteria
    ]
    return rows
