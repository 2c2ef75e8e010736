"""Which criteria may a recipe name, and what do they need?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from prunus.core.units import plural
from prunus.score.criteria.criterion import EVERY_UNIT, WIDTHS, Criterion, Need, criteria
from prunus.score.examples.example_criteria import example_criteria

__all__ = ["NEEDS", "criteria_table"]

NEEDS: Mapping[Need, str] = {
    "weight": "the parameter itself",
    "gradient": "the mean gradient of the loss over the calibration set",
    "squared_gradient": "the mean over examples of each example's squared gradient (one backward pass per example)",
    "curvature": "the diagonal of the Gauss-Newton matrix, exact up to 32 outputs (one backward pass per example and output)",
    "hessian_gradient": "the Hessian of the mean loss times its gradient (a second pass, with a double backward)",
    "flow": "the derivative of the summed outputs by the weights' absolute values, for an input of ones (no data)",
    "movement": "minus weight times gradient, summed over the steps of a short training (`strategy.l1_epochs`)",
    "input_norm": "the Euclidean norm of each input feature over examples and positions",
    "inverse_gram": "the diagonal of the inverse of the inputs' mean outer product, damped by 1 % of its mean diagonal",
    "active_fraction": "how often an output is above zero, behind the nonlinearity that follows",
    "output_mean": "the mean absolute value of an output, behind the nonlinearity that follows",
    "output_variance": "the variance of an output, behind the nonlinearity that follows (at least 2 examples)",
    "block_cosine": "the mean cosine between what goes into a block and what comes out",
    "noise": "a random number from the run's seed",
}
"""Each kind of evidence in words."""


def criteria_table() -> list[dict[str, str]]:
    """Return one row per criterion: where it is named in a recipe, what it judges, what it needs, what it is.

    >>> [row["judges"] for row in criteria_table() if row["name"] == "wanda"]
    ['every unit']
    """
    rows = [
        {
            "section": "strategy",
            "name": name,
            "judges": _judges(criteria[name]),
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


def _judges(criterion: Criterion) -> str:
    units = set(criterion.granularities)
    if units == set(EVERY_UNIT):
        return "every unit"
    widths = ["widths"] if units >= set(WIDTHS) else _plurals(units, WIDTHS)
    return ", ".join([*_plurals(units, ("weight",)), *widths, *_plurals(units, ("expert", "block"))])


def _plurals(units: Collection[str], among: Sequence[str]) -> list[str]:
    return [plural(unit) for unit in among if unit in units]
