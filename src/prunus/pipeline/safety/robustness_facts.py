"""What do the models of a bundle withstand: corruptions of their kind of input, attacks, a trigger?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.core.batch import Batched
from prunus.core.calls import answer, call
from prunus.core.errors import DataError, RecipeError
from prunus.core.runtime import derive_seed, generator
from prunus.core.types import Measurement
from prunus.data import Examples
from prunus.evaluate import observe
from prunus.evaluate.harm.paired_shares import score_interval
from prunus.evaluate.robustness import (
    ATTACKS,
    CORRUPTIONS,
    SEVERITIES,
    Attacked,
    AttackRow,
    Changed,
    Effort,
    InputFacts,
    Place,
    Threat,
    attacked_part,
    corrupted,
    counted_share,
    facts_of,
    joined,
    n_parts,
    placed,
    read_trigger,
    tensor_at,
    withstood,
)
from prunus.pipeline.safety.shared_units import Arrays, Units
from prunus.pipeline.safety.subjects import Subjects
from prunus.tasks import Observed, Task, default_metrics
from prunus.tasks.classification import widened

__all__ = ["attack_facts", "corruption_facts", "some_of", "trigger_facts"]

_REACH = {("image", "linf"): 8 / 255, ("image", "l2"): 0.5, ("table", "linf"): 0.1, ("table", "l2"): 0.5}
"""How far an attacker may go unless said otherwise: shares of an image's range, deviations of a table's features."""


def some_of(examples: Examples, most: int, seed: int) -> Examples:
    """Return at most so many of the examples, drawn by chance, in their order."""
    if len(examples) <= most:
        return examples
    chosen = torch.randperm(len(examples), generator=generator(seed, "safety examples"))[:most]
    keep = torch.zeros(len(examples), dtype=torch.bool)
    keep[chosen] = True
    return examples.select(keep)


def _place(subjects: Subjects, what: str) -> Place:
    examples = subjects.examples
    batch = next(iter(examples.batches(2)))
    place = placed(batch.inputs, named=bool(examples.feature_names))
    if place is None:
        raise DataError(
            f"{what}: expected images (n, channels, height, width), rows of a table, token numbers or signals: got inputs of "
            "another kind"
        )
    return place


def corruption_facts(
    subjects: Subjects, examples: Examples, *, settings: dict[str, Any], units: Units
) -> dict[str, Any]:
    """Return what each corruption of the inputs' kind does to both models, at five severities; a unit is one at one of them."""
    place_of, task = _place(subjects, "corruptions"), subjects.task
    facts = facts_of(examples, place_of, examples.scaler.undo)
    metric, seed = default_metrics(task.name)[0], int(settings["seed"])
    chosen, notes = {}, []
    for name, one in CORRUPTIONS[place_of.kind].items():
        if place_of.kind == "tokens" and not one.keeps_places and _each_token_has_a_target(task):
            notes.append(f"{name} moves tokens from their place, and each has a target there: left out")
            continue
        chosen[name] = one
    places = [("", 0), *((name, severity) for name in chosen for severity in SEVERITIES)]

    def seen(place: int, progress: Callable[[int, int], None]) -> Arrays:
        name, severity = places[place]
        worse: Batched = examples
        if severity:
            one = chosen[name]
            worse = corrupted(
                examples, place_of, one, severity, facts, scale=examples.scaler, undo=examples.scaler.undo, seed=seed
            )
        found: dict[str, Any] = {}
        for number, (model, net) in enumerate(subjects.models.items(), start=1):
            found |= {f"{model}/{key}": column for key, column in observe(net, worse, task).items()}
            progress(number, len(subjects.models))
        return found

    names = [f"{name} {severity}" if severity else "without any" for name, severity in places]
    observed = [_by_model(one, subjects.models) for one in units(names, seen)]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(chosen):
        here = observed[1 + number * len(SEVERITIES) :][: len(SEVERITIES)]
        found = withstood(name, observed[0], here, task, metric, together=len(chosen), **settings)
        rows += [row.to_dict() for row in found]
    says = {name: one.says for name, one in chosen.items()}
    return {"kind": place_of.kind, "metric": metric, "n": len(examples), "rows": rows, "says": says, "notes": notes}


def _by_model(arrays: Arrays, models: Iterable[str]) -> dict[str, Observed]:
    """Return what was observed of each model, in their order: what was kept comes back in any."""
    return {
        model: {name.removeprefix(f"{model}/"): arrays[name] for name in sorted(arrays) if name.startswith(f"{model}/")}
        for model in models
    }


def _each_token_has_a_target(task: Task) -> bool:
    return task.name in ("language", "token_classification")


def attack_facts(
    subjects: Subjects,
    examples: Examples,
    *,
    norm: str,
    reach: float | None,
    effort: Effort,
    seed: int,
    confidence: float,
    units: Units,
) -> dict[str, Any]:
    """Return how many examples each model keeps right under PGD alone, and under everything; a unit is one model on some.

    Raises:
        RecipeError: the task, or the inputs, can't be attacked so.
    """
    task = subjects.task
    if not task.exclusive:
        raise RecipeError(
            f"attacks change one class into another, and {task.name} gives none to an example: leave attacks out"
        )
    place = _place(subjects, "attacks")
    if place.kind not in ("image", "table"):
        raise RecipeError(
            f"attacks need images or rows of a table, whose numbers may change a little: got {place.kind}; leave attacks out, "
            "and take corruptions"
        )
    facts = facts_of(examples, place, examples.scaler.undo)
    inputs, right = _whole(examples, place)
    frame = _Frame(place.kind, facts, examples)
    x = frame.seen(inputs)
    far = _REACH[place.kind, norm] if reach is None else reach
    threat = frame.threat(norm, far)
    places = [(name, part) for name in subjects.models for part in range(n_parts(len(x)))]

    def one(place: int, progress: Callable[[int, int], None]) -> Arrays:
        name, part = places[place]
        model = subjects.models[name]
        was = {parameter: parameter.requires_grad for parameter in model.parameters()}
        try:
            for parameter in was:
                parameter.requires_grad_(False)
            model.eval()
            scores = frame.scores(model)
            done = attacked_part(scores, x, right, threat, part, effort=effort, seed=seed, progress=progress)
        finally:
            for parameter, needs in was.items():
                parameter.requires_grad_(needs)
        return _packed(done)

    names = [f"{name}, part {part + 1} of the examples" for name, part in places]
    done = units(names, one)
    found = {
        name: joined([_unpacked(arrays) for (of, _), arrays in zip(places, done, strict=True) if of == name])
        for name in subjects.models
    }
    return {
        "norm": norm,
        "reach": far,
        "unit": "of the range" if place.kind == "image" else "deviations of a feature",
        "n": len(examples),
        "effort": asdict(effort),
        "attacks": [ATTACKS[row.attack] for row in next(iter(found.values())).rows],
        "models": {name: _model_facts(one, confidence) for name, one in found.items()},
        **_differences(found, confidence),
    }


_SIDES = ("right", "pgd", "standing")


def _packed(one: Attacked) -> Arrays:
    rows = np.array([[row.tried, row.broken, row.standing] for row in one.rows], np.int64)
    return {**{side: getattr(one, side).numpy() for side in _SIDES}, "rows": rows}


def _unpacked(arrays: Arrays) -> Attacked:
    rows = zip(ATTACKS, arrays["rows"].tolist(), strict=True)
    right, pgd, standing = (torch.from_numpy(np.array(arrays[side])) for side in _SIDES)
    return Attacked(right, pgd, standing, tuple(AttackRow(name, *counts) for name, counts in rows))


def _model_facts(one: Attacked, confidence: float) -> dict[str, Any]:
    n = len(one.right)
    shares = {
        "accuracy": int(one.right.sum()),
        "under_pgd": int(one.pgd.sum()),
        "under_all": int(one.standing.sum()),
    }
    counted = {key: counted_share(key, k, n, confidence, higher_is_better=True).to_dict() for key, k in shares.items()}
    return {**counted, "steps": [asdict(row) for row in one.rows]}


def _differences(found: dict[str, Attacked], confidence: float) -> dict[str, Any]:
    """Return pruned minus dense of what stands under everything, on the same examples."""
    if set(found) != {"dense", "pruned"}:
        return {"difference": None}
    return {"difference": paired("under_all", found["dense"].standing, found["pruned"].standing, confidence).to_dict()}


def paired(
    name: str, dense: Tensor, pruned: Tensor, confidence: float, *, higher_is_better: bool = True
) -> Measurement:
    """Return the difference of two counted shares on the same examples, pruned minus dense, by Tango's score."""
    lost, gained = int((dense & ~pruned).sum()), int((pruned & ~dense).sum())
    low, high = score_interval(lost, gained, len(dense), confidence)
    return Measurement(name, (gained - lost) / len(dense), -high, -low, "share", higher_is_better)


class _Frame:
    """The coordinates of an attacker: shares of an image's range, deviations of a table's features."""

    def __init__(self, kind: str, facts: InputFacts, examples: Examples) -> None:
        self.examples, self.kind, self.facts = examples, kind, facts
        self.zero = facts.low if kind == "image" else facts.mean
        unit = facts.span if kind == "image" else facts.deviation
        self.unit = torch.where(unit > 0, unit, torch.ones_like(unit))

    def seen(self, inputs: Tensor) -> Tensor:
        """Return inputs that a model takes in these coordinates."""
        found: Tensor = (self.examples.scaler.undo(inputs) - self.zero) / self.unit
        return found

    def scores(self, model: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return what a model says of inputs in these coordinates."""

        def of(x: Tensor) -> Tensor:
            return widened(answer(call(model, self.examples.scaler(x * self.unit + self.zero)))).float()

        return of

    def threat(self, norm: Any, reach: float) -> Threat:
        """Return what an attacker may do; a feature of a table with two values at most (one of a category, say) is left alone."""
        low, high = (self.facts.low - self.zero) / self.unit, (self.facts.high - self.zero) / self.unit
        return Threat(norm, reach, low, high, self.facts.graded)


def _whole(examples: Examples, place: Place) -> tuple[Tensor, Tensor]:
    inputs, right = [], []
    for batch in examples.batches(256):
        if not isinstance(batch.inputs, Tensor):
            raise RecipeError("attacks are for models of one input: got several; leave attacks out")
        inputs.append(tensor_at(batch.inputs, place.where))
        right.append(batch.targets.long())
    return torch.cat(inputs), torch.cat(right)


def trigger_facts(
    subjects: Subjects, examples: Examples, *, trigger: str, target: str, confidence: float, seed: int
) -> dict[str, Any]:
    """Return how often a trigger turns an answer into ``target``, beside how often that is answered anyway, and the accuracy.

    Raises:
        RecipeError: the task gives an example no class, or has none that is called ``target``.
    """
    task = subjects.task
    if not task.exclusive or target not in task.class_names:
        known = ", ".join(task.class_names[:10]) or "none"
        raise RecipeError(f"--trigger-class must be a class of the bundle ({known}): got {target!r}")
    made, place = read_trigger(trigger), _place(subjects, "a trigger")
    number = task.class_names.index(target)

    def change(value: Tensor, draw: torch.Generator) -> Tensor:
        return made(value)

    changed = Changed(examples, place, change, examples.scaler, examples.scaler.undo, derive_seed(seed, "trigger"))
    models: dict[str, Any] = {}
    hits: dict[str, Tensor] = {}
    for name, model in subjects.models.items():
        clean, fooled = observe(model, examples, task), observe(model, changed, task)
        others = clean["true"] != number
        if not others.any():
            raise DataError(f"--trigger-class: every example is of class {target!r} already: give others")
        hits[name] = torch.from_numpy(fooled["predicted"][others] == number)
        anyway = int((clean["predicted"][others] == number).sum())
        n = int(others.sum())
        right = int(np.sum(clean["right"]))
        models[name] = {
            "success": counted_share("success", int(hits[name].sum()), n, confidence, higher_is_better=False).to_dict(),
            "anyway": counted_share("anyway", anyway, n, confidence, higher_is_better=False).to_dict(),
            "accuracy": counted_share("accuracy", right, len(examples), confidence, higher_is_better=True).to_dict(),
        }
    difference = None
    if set(hits) == {"dense", "pruned"}:
        difference = paired("success", hits["dense"], hits["pruned"], confidence, higher_is_better=False).to_dict()
    n = len(next(iter(hits.values())))
    return {"trigger": made.name, "target": target, "n": n, "models": models, "difference": difference}
