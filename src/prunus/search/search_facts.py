"""What does a search leave for people and machines? One tree of plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prunus.core.recipes.recipe import Recipe
from prunus.core.recipes.search_section import leading_cost
from prunus.core.runtime import versions
from prunus.pipeline.sizes import FACTS
from prunus.search.confirm import frontier_of
from prunus.search.space import Space, search_of
from prunus.search.study import Study
from prunus.search.where import Where

__all__ = ["judged", "recorded"]

_KEPT = ("state", "why", "quality", "dense_quality", "drop", "gap", "dense_gap", "gap_trend", "shares", "seconds")


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


def judged(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a search judges the sizes of its settings: by which contract, beside how many settings."""
    return {"study": told["study"], "contract": told["contract"], "n_settings": max(len(told["confirmed"]), 1)}


def _sizes(where: Where, how: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what is known of the sizes that were made of one of this study's settings, and judged as it judges."""
    path = where.sizes / FACTS
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    of = found.get("of", {})
    return found if all(of.get(key) == value for key, value in how.items()) else None


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
