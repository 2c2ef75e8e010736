"""What does a search leave for people and machines? One tree of plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunus.core.errors import OutputError
from prunus.core.files.json_text import JsonError, read_json_file
from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.search_section import leading_cost
from prunus.core.runtime import versions
from prunus.core.text import shown
from prunus.pipeline.sizes import FACTS
from prunus.search.account.where import Where
from prunus.search.confirm import frontier_of
from prunus.search.space import Space, search_of
from prunus.search.study import Study
from prunus.tasks import metrics

__all__ = ["judged", "read_facts", "recorded"]

_KEPT = ("state", "why", "quality", "dense_quality", "drop", "gap", "dense_gap", "gap_trend", "shares", "seconds")

_STATES = ("done", "stopped", "failed")


def recorded(
    recipe: Recipe,
    space: Space,
    study: Study,
    results: Mapping[int, Mapping[str, Any]],
    confirmed: Sequence[Mapping[str, Any]],
    metric: str,
    where: Where,
    *,
    higher: bool,
) -> dict[str, Any]:
    """Return what was asked, tried, found and confirmed."""
    asked, values = search_of(recipe), study.known()
    trials = [
        {"number": number, "values": values[number]} | {key: found[key] for key in _KEPT if key in found}
        for number, found in results.items()
    ]
    states = [found["state"] for found in results.values()]
    told = {
        "name": recipe.name,
        "study": study.name,
        "metric": metric,
        "higher_is_better": higher,
        "objectives": list(asked.objectives),
        "contract": None if asked.contract is None else asked.contract.model_dump(mode="json"),
        "space": {key: list(v) if isinstance(v, tuple) else v.model_dump(mode="json") for key, v in space.keys.items()},
        "n": {state: states.count(state) for state in ("done", "stopped", "failed")},
        "trials": trials,
        "frontier": frontier_of(recipe, results, higher),
        "confirmed": [dict(row) for row in confirmed],
        "recommended": _recommended(asked.objectives, confirmed),
        "overfitting": _overfitting(results, asked.gap_margin),
        "importances": study.importances(),
        "share": asked.share,
        "recipe": recipe.model_dump(mode="json"),
        "versions": versions(),
    }
    return {**told, "sizes": _sizes(where, judged(told))}


def read_facts(path: Path, recipe: Recipe, space: Space) -> dict[str, Any]:
    """Return what a search left, which may have come from elsewhere: trials of this space, and what its page can show.

    Raises:
        OutputError: it isn't what a search with this recipe leaves.
    """
    try:
        facts = read_json_file(path)
        odd = _odd(facts, recipe, space) or _unshown(facts)
    except (JsonError, OSError) as error:
        odd = str(error)
    if odd:
        raise OutputError(
            f"{path} isn't what a search with the recipe beside it leaves: {odd}; prunus search RECIPE --resume writes it anew"
        )
    return dict(facts)


def _odd(facts: Any, recipe: Recipe, space: Space) -> str:
    """Return what is wrong with a search's facts; nothing where its settings are some that this search could have tried."""
    if not isinstance(facts, dict):
        return f"expected a mapping, got {shown(facts)}"
    trials, metric = facts.get("trials"), facts.get("metric")
    named = {search_of(recipe).metric, *recipe.evaluation.metrics} - {None}
    if not isinstance(metric, str) or not (metric in metrics or metric in named):
        return f"metric: expected one that there is, got {shown(metric)}"
    if not isinstance(trials, list) or not all(isinstance(row, dict) for row in trials):
        return f"trials: expected a list of trials, got {shown(trials)}"
    for place, row in enumerate(trials):
        values = row.get("values")
        if type(row.get("number")) is not int or row["number"] != place or row.get("state") not in _STATES:
            return f"trials: expected trial {place} and its state, got {shown(row)}"
        if not isinstance(values, dict) or not space.holds(values):
            return f"trial {place}: expected values of the keys in search.space, got {shown(values)}"
    known = range(len(trials))
    frontier, best, confirmed = facts.get("frontier"), facts.get("recommended"), facts.get("confirmed")
    rows = (
        [row.get("number") if isinstance(row, dict) else row for row in confirmed]
        if isinstance(confirmed, list)
        else [None]
    )
    numbers = [*(frontier if isinstance(frontier, list) else [None]), *rows, *([] if best is None else [best])]
    if not all(type(number) is int and number in known for number in numbers):
        return f"frontier, confirmed and recommended: expected numbers of trials, got {shown(numbers)}"
    return ""


def _unshown(facts: Mapping[str, Any]) -> str:
    """Return why the page can't show the facts; nothing where it can."""
    from prunus.report import render_search

    try:
        render_search(facts)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return f"its page can't be made ({type(error).__name__}: {shown(str(error))})"
    return ""


def judged(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a search judges the sizes of its settings: by which contract, beside how many settings."""
    return {"study": told["study"], "contract": told["contract"], "n_settings": max(len(told["confirmed"]), 1)}


def _sizes(where: Where, how: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what is known of the sizes that were made of one of this study's settings, and judged as it judges."""
    path = where.sizes / FACTS
    try:
        found = read_json_file(path) if path.is_file() else None
    except (JsonError, OSError):
        return None
    of = found.get("of") if isinstance(found, dict) else None
    return found if isinstance(of, dict) and all(of.get(key) == value for key, value in how.items()) else None


def _recommended(objectives: Sequence[str], confirmed: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the cheapest setting that keeps the contract on the test examples; None where none does, or nothing was promised."""
    cost = leading_cost(objectives)
    kept = [row for row in confirmed if row["kept"]]
    return min(kept, key=lambda row: (row["shares"].get(cost, 1.0), row["number"]))["number"] if kept else None


def _overfitting(results: Mapping[int, Mapping[str, Any]], margin: float | None) -> list[int]:
    """Return the trials whose gap between training and validation examples exceeds the dense model's by more than the margin."""
    if margin is None:
        return []
    return [
        number
        for number, found in results.items()
        if found["state"] == "done" and found["gap"] - found["dense_gap"] > margin
    ]
