"""What does a reader see of the harm that pruning does: which classes, groups and examples, and how sure the models are?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from prunus.data import Examples
from prunus.evaluate import Pairs
from prunus.evaluate.harm import Flip, calibration_change, change_by_class, change_by_group, flips
from prunus.pipeline.stages.example_facts import label_text, look
from prunus.tasks import Observed, Task, default_metrics, metrics_of

__all__ = ["harm_facts"]


def harm_facts(
    pairs: Pairs,
    examples: Examples,
    models: Mapping[str, nn.Module],
    *,
    split: str,
    groups: Mapping[str, Sequence[str]],
    fit_on: Examples | None,
    fitted_on: str,
    calibrated: bool = True,
) -> dict[str, Any]:
    """Return the facts of one pair of models.

    Args:
        pairs: what was observed of both on ``examples``, of one seed.
        models: ``dense`` and ``pruned``.
        split: what the examples are called.
        groups: the group of each example, by the column's name.
        fit_on: what temperatures are fitted on; None: none are.
        fitted_on: what these are called.
        calibrated: look at calibration, too, which takes another pass over the examples.
    """
    task, notes = pairs.task, []
    metric = default_metrics(task.name)[0]
    classes = change_by_class(pairs)
    if classes is None:
        notes.append(f"{task.name} counts no classes: there is no change by class")
    elif task.name == "token_classification" and task.counted_names != task.class_names:
        notes.append("classes are types of spans")
    found = flips(pairs, _for_one(task.name, metric))
    if not found.n_by_kind:
        notes.append(f"an answer to {task.name} isn't right or wrong as a whole: examples that changed most are shown")
    calibration = None
    if calibrated:
        calibration = calibration_change(
            models["dense"],
            models["pruned"],
            examples,
            task,
            fit_on=fit_on,
            fitted_on=fitted_on,
            confidence=pairs.confidence,
            bootstrap=pairs.bootstrap,
            seed=pairs.seed,
        )
        if calibration is not None and calibration.n_examples < len(examples):
            notes.append(
                f"calibration is measured on {calibration.n_examples} of the {len(examples)} examples, evenly from first to last"
            )
        if calibration is None:
            notes.append(f"{task.name} gives no probabilities: there is no calibration to look at")
        elif fit_on is None:
            notes.append("no examples apart to fit a temperature on: give a recipe, or evaluate a run")
    tables = [change_by_group(pairs, names, metric, by=column).to_dict() for column, names in groups.items()]
    return {
        "split": split,
        "n": len(examples),
        "seed": pairs.seed,
        "confidence": pairs.confidence,
        "classes": classes and classes.to_dict(),
        "groups": tables,
        "flips": {
            "n": found.n,
            "n_by_kind": found.n_by_kind,
            "measure": found.measure,
            "shown": [_row(one, pairs, examples) for one in found.shown],
        },
        "calibration": calibration and calibration.to_dict(),
        "notes": notes,
    }


def _for_one(task: str, metric: str) -> str:
    """Return a metric that is finite for a single example: a share of explained variance isn't."""
    if metric != "r2":
        return metric
    return next(name for name in metrics_of(task) if name in ("mae", "rmse"))


def _row(flip: Flip, pairs: Pairs, examples: Examples) -> dict[str, Any]:
    image, values = look(examples, flip.row)
    return {
        "id": examples.ids[flip.row],
        "kind": flip.kind,
        "label": label_text(examples, flip.row) or _class_of(pairs.dense[0], "true", pairs.task, flip.row),
        "dense": _said(pairs.dense[0], pairs.task, flip.row),
        "pruned": _said(pairs.pruned[0], pairs.task, flip.row),
        "worse": round(flip.worse, 6),
        "image": image,
        "values": values,
    }


def _said(seen: Observed, task: Task, row: int) -> str:
    """Return what a model says of an example, and how sure it is."""
    name = _class_of(seen, "predicted", task, row)
    scores = seen.get("scores")
    if not name or scores is None or scores.ndim != 2 or not scores.shape[1]:
        return name
    return f"{name} {100 * float(np.exp(scores[row].max())):.0f} %"


def _class_of(seen: Observed, column: str, task: Task, row: int) -> str:
    if not task.exclusive or column not in seen:
        return ""
    number = int(seen[column][row])
    return task.class_names[number] if number < len(task.class_names) else str(number)
