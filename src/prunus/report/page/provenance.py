"""How was a run made, in a few lines: which model, cut by what, to which amount, recovered how, when, in which time?

A record may come from anywhere: a recipe that isn't as prunus writes it says less, and breaks nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prunus.report.format import amount, percent
from prunus.report.record import RunRecord
from prunus.report.record_examples import ScorerFacts

__all__ = ["made", "scorer_line"]

_COSTS = {"macs": "MACs", "params": "parameters"}
_COUNTED = re.compile(r" \d+ of \d+$")


def made(record: RunRecord) -> list[tuple[str, str]]:
    """Return what a reader asks first, as (term, text) pairs; what wasn't done has none."""
    recipe = record.recipe
    strategy = _mapping(recipe, "strategy")
    rows = [
        ("model", _model(recipe)),
        ("pruned by", _criterion(strategy)),
        ("budget", _budget(recipe, strategy)),
        ("examples scored by", scorer_line(record.scorer)),
        ("recovery", _recovery(_mapping(recipe, "recovery"))),
        ("date", str(record.timing.get("finished") or "").replace("T", " ").replace("+00:00", " UTC")),
        ("time", _time(record.timing)),
    ]
    return [(term, text) for term, text in rows if text]


def scorer_line(facts: ScorerFacts | None) -> str:
    """Return which model scored the examples, what it costs, and how far its order is the dense model's; "" of the dense one."""
    if facts is None:
        return ""
    said = f"a pruned model: keep_fraction {facts.keep_fraction:g}, {percent(facts.macs)} of the MACs"
    found = [one for one in facts.agreement if None not in (one.value, one.low, one.high)]
    if not found:
        return said
    told = "; ".join(
        f"{one.score} {one.value:.2f} ({one.low:.2f} to {one.high:.2f}"
        + (f"; two dense trainings {one.between_dense:.2f})" if one.between_dense is not None else ")")
        for one in found
    )
    return f"{said}; rank correlation with the dense model's scores on {amount(facts.n_sample)} examples: {told}"


def _mapping(tree: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = tree.get(key)
    return found if isinstance(found, Mapping) else {}


def _model(recipe: Mapping[str, Any]) -> str:
    model = _mapping(recipe, "model")
    if _mapping(recipe, "data").get("source") == "memory":
        return "an object, given in Python"
    if not model.get("builder"):
        return ""
    arguments = ", ".join(f"{name} {value}" for name, value in _mapping(model, "args").items())
    weights = f", weights from {model['weights']}" if model.get("weights") else ""
    return f"{model['builder']}{f' ({arguments})' if arguments else ''}{weights}"


def _criterion(strategy: Mapping[str, Any]) -> str:
    if not strategy.get("criterion"):
        return ""
    units = strategy.get("granularity")
    said = " and ".join(map(str, units)) if isinstance(units, list | tuple) else str(units or "")
    schedule = _mapping(strategy, "schedule")
    rounds = f", {schedule.get('kind')} in {schedule['rounds']} rounds" if _number(schedule.get("rounds")) > 1 else ""
    return f"{strategy['criterion']}{f', by {said}' if said else ''}, {strategy.get('allocation', 'uniform')} allocation{rounds}"


def _budget(recipe: Mapping[str, Any], strategy: Mapping[str, Any]) -> str:
    parts = []
    target, contract = recipe.get("target"), _mapping(recipe, "contract")
    if isinstance(target, Mapping):
        parts += [f"{share:g} of the {_COSTS.get(what, what)}" for what, share in target.items() if _number(share)]
        if smallest := target.get("smallest"):
            parts.append(f"as little {_COSTS.get(str(smallest), smallest)} as the contract allows")
    if isinstance(strategy.get("keep_fraction"), int | float):
        parts.append(f"keep_fraction {strategy['keep_fraction']:g}")
    if isinstance(strategy.get("cutoff"), int | float):
        parts.append(f"cutoff {strategy['cutoff']:g}")
    if isinstance(contract.get("max_drop"), int | float):
        parts.append(f"at most {contract['max_drop']:g} less {contract.get('metric')}")
    return ", ".join(parts)


def _recovery(recovery: Mapping[str, Any]) -> str:
    method = recovery.get("method")
    adjust = recovery.get("adjust")
    adjusted = [str(name) for name in adjust] if isinstance(adjust, list | tuple) else []
    trained = f"{method}, {recovery.get('epochs')} epochs" if method and method != "none" else ""
    return "; ".join(part for part in (" and ".join(adjusted), trained) if part).replace("_", "-")


def _time(timing: Mapping[str, Any]) -> str:
    """Return how long it took, and the stages that took most of it."""
    stages = timing.get("seconds") if isinstance(timing.get("seconds"), Mapping) else {}
    seconds = {str(name): _number(value) for name, value in (stages or {}).items()}
    total = _number(timing.get("total_seconds")) or sum(seconds.values())
    if not total:
        return ""
    by_kind: dict[str, float] = {}
    for name, value in seconds.items():
        kind = name.partition(" / ")[2].split(" / ")[0] or name
        if name.startswith("joint / "):
            if not name.endswith(" / cell"):
                continue  # within a cell, or the dense model of a row
            kind = "data and model together"
        kind = "search" if "candidate" in kind else _COUNTED.sub("", kind)
        by_kind[kind] = by_kind.get(kind, 0.0) + value
    most = sorted(by_kind.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{kind} {amount(value)} s" for kind, value in most if value >= 0.5)
    return f"{amount(total)} s{f' ({shares})' if shares else ''}"


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
