"""What does a reader see of what was decided about the training examples: which look wrong, what is alike, and where each lies?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.calls import tensors
from prunus.core.types import Step
from prunus.data import Examples, Prepared
from prunus.pipeline.stages.duplicate_examples import Alike, Apart, pair_of
from prunus.pipeline.stages.label_cleaning import is_flagged
from prunus.pipeline.stages.label_precision import action_of, suspects
from prunus.report import png_data_uri
from prunus.tasks import Regression

__all__ = ["class_facts", "label_text", "look", "map_facts", "n_alike", "pair_facts", "suspect_facts"]

N_SUSPECTS = 48
N_PAIRS = 12
"""Of each kind of pair so many are shown side by side, those with the highest likeness."""
N_POINTS = 3000
"""Of more examples a map shows a sample, so that the page stays small."""
_COLUMNS = 6
"""So many columns of a table tell what an example is."""
_TOKENS = 16


def class_facts(steps: Sequence[Step], train: Examples) -> list[dict[str, Any]]:
    """Return for each class how many examples it had, and how many were removed or relabelled."""
    if not train.task.exclusive or train.known_targets is None:
        return []
    before = torch.bincount(train.known_targets.cpu(), minlength=len(train.class_names)).tolist()
    counts = {
        name: {"name": name, "before": n, "removed": 0, "relabelled": 0}
        for name, n in zip(train.class_names, before, strict=True)
    }
    if not any(step.granularity == "example" for step in steps):
        return list(counts.values())
    given = dict(zip(train.ids, train.known_targets.tolist(), strict=True))
    for what, word in (("remove", "removed"), ("relabel", "relabelled")):
        for step in steps:
            for name in _touched(step) if step.operation == what else ():
                counts[train.class_names[given[name]]][word] += 1
    return list(counts.values())


def _touched(step: Step) -> list[str]:
    return [name for d in step.decisions if d.label is not None for name in d.label[~d.keep].tolist()]


def suspect_facts(steps: Sequence[Step], data: Prepared) -> list[dict[str, Any]]:
    """Return the examples whose labels are the most doubtful, the worst first, with a picture where they are images."""
    train = data.train
    if not any(map(suspects, steps)):
        return []
    row = {name: number for number, name in enumerate(train.ids)}
    found: list[dict[str, Any]] = []
    for step in steps:
        if not suspects(step):
            continue
        for d in step.decisions:
            flagged = np.array([is_flagged(reason) for reason in d.reason], np.bool_)
            for at in np.flatnonzero(~d.keep | flagged):
                assert d.label is not None
                number = row[d.label[at]]
                after = None if d.after is None or np.isnan(d.after[at]) else train.class_names[int(d.after[at])]
                found.append(
                    {
                        "id": str(d.label[at]),
                        "given": label_text(train, number),
                        "suggested": after,
                        "score": float(d.saliency[at]),
                        "action": action_of(step, flagged=bool(flagged[at])),
                        "row": number,
                        "reason": "" if train.task.exclusive else str(d.reason[at]),
                    }
                )
    found.sort(key=lambda suspect: (suspect["action"], suspect["score"]))
    relabelled = [s for s in found if s["action"] == "relabelled"][:N_SUSPECTS]
    shown = relabelled + [s for s in found if s["action"] != "relabelled"][: N_SUSPECTS - len(relabelled)]
    for suspect in shown:
        reason = suspect.pop("reason")
        suspect["image"], values = look(train, suspect.pop("row"))
        suspect["values"] = reason or values
    return shown


def label_text(examples: Examples, number: int) -> str:
    """Return an example's label as one reads it; "" where that isn't known without reading it."""
    if examples.known_targets is None:
        return ""
    if examples.task.exclusive:
        return examples.class_names[int(examples.targets[number])]
    value = examples.in_units(examples.targets[number])
    return f"{float(value):.6g}" if isinstance(examples.task, Regression) and value.numel() == 1 else ""


def n_alike(steps: Sequence[Step], apart: Apart) -> dict[str, int]:
    """Return how many examples of each kind are near-duplicates."""
    dropped = sum(1 for _ in _dropped(steps))
    return {"dropped": dropped, "otherwise": len(apart.otherwise), "leaked": len(apart.leaked)}


def pair_facts(data: Prepared, steps: Sequence[Step], apart: Apart) -> list[dict[str, Any]]:
    """Return a few of the examples that are alike, side by side: those with other labels first."""
    train, test = data.train, data.test
    near = any(step.criterion == "near_duplicates" for step in steps)
    row = {name: number for number, name in enumerate(train.ids)} if near else {}
    dropped = (Alike(row[name], row[other], likeness) for name, other, likeness in _dropped(steps))
    kinds: list[tuple[str, Sequence[Alike], Examples]] = [
        ("otherwise", apart.otherwise, train),
        ("leaked", apart.leaked, test),
        ("dropped", tuple(dropped), train),
    ]
    found = []
    for kind, pairs, part in kinds:
        for one, other, likeness in sorted(pairs, key=lambda pair: -pair.likeness)[:N_PAIRS]:
            image, values = look(part, one)
            other_image, other_values = look(train, other)
            found.append(
                {
                    "kind": kind,
                    "id": part.ids[one],
                    "other": train.ids[other],
                    "label": label_text(part, one),
                    "other_label": label_text(train, other),
                    "likeness": likeness,
                    "image": image,
                    "other_image": other_image,
                    "values": values,
                    "other_values": other_values,
                }
            )
    return found


def _dropped(steps: Sequence[Step]) -> Iterator[tuple[str, str, float]]:
    """Yield which examples went, each with the one that stands for it and their likeness."""
    for step in steps:
        if step.criterion != "near_duplicates":
            continue
        for d in step.decisions:
            assert d.label is not None
            for name, reason in zip(d.label[~d.keep].tolist(), d.reason[~d.keep].tolist(), strict=True):
                if (pair := pair_of(reason)) is not None:
                    yield name, *pair


def map_facts(
    examples: Examples, steps: Sequence[Step], place: Tensor, explained: float, of: str, *, seed: int = 0
) -> dict[str, Any]:
    """Return where examples lie and what was decided about them; of more than ``N_POINTS`` a sample, half of it of those that go.

    Args:
        examples: the training examples.
        steps: what was decided.
        place: where each lies in a plane, ``(n, 2)``.
        explained: the share of their spread that it holds.
        of: what they were embedded by, in words.
        seed: of the sample.
    """
    n, ids = len(examples), examples.ids
    what, why = dict.fromkeys(ids, "keep"), dict.fromkeys(ids, "")
    for step in steps:
        for d in step.decisions if step.granularity == "example" else ():
            assert d.label is not None
            for name, kept, reason in zip(d.label.tolist(), d.keep.tolist(), d.reason.tolist(), strict=True):
                if reason != "kept":
                    why[name] = reason
                if not kept:
                    what[name] = "relabel" if step.operation == "relabel" else "drop"
                elif is_flagged(reason):
                    what[name] = "flag"
    shown = _sample(np.array([what[name] != "keep" for name in ids], np.bool_), seed)
    return {
        "n": n,
        "of": of,
        "explained": explained,
        "id": [ids[row] for row in shown],
        "x": [round(float(place[row, 0]), 4) for row in shown],
        "y": [round(float(place[row, 1]), 4) for row in shown],
        "decision": [what[ids[row]] for row in shown],
        "label": [label_text(examples, row) for row in shown],
        "reason": [why[ids[row]] for row in shown],
    }


def _sample(touched: Any, seed: int) -> list[int]:
    if len(touched) <= N_POINTS:
        return list(range(len(touched)))
    draw = np.random.default_rng(seed)
    parts = [draw.permutation(np.flatnonzero(touched))[: N_POINTS // 2]]
    parts.append(draw.permutation(np.flatnonzero(~touched))[: N_POINTS - len(parts[0])])
    return sorted(np.concatenate(parts).tolist())


def look(examples: Examples, number: int) -> tuple[str | None, str]:
    """Return a picture of an example, or some of its columns or its first tokens: whatever there is to look at."""
    shape, names = examples.input_shape, examples.feature_names
    is_image = len(shape) == 3 and shape[0] in (1, 3)
    is_table = len(shape) == 1 and bool(names)
    if not is_image and not is_table:
        return None, _tokens(examples.inputs_at(torch.tensor([number])))
    inputs = examples.source.inputs(examples.rows[number : number + 1])[0]
    if is_image:
        return png_data_uri(inputs.numpy()), ""
    told = [f"{name} {value:.4g}" for name, value in zip(names, inputs[:_COLUMNS].tolist(), strict=False)]
    return None, ", ".join(told) + ", …" * (len(names) > _COLUMNS)


def _tokens(inputs: Any) -> str:
    """Return the numbers of an example's first tokens; "" where it isn't a row of tokens."""
    for where, value in tensors(inputs):
        if value.ndim == 2 and not value.is_floating_point() and "mask" not in where:
            ids = value[0, :_TOKENS].tolist()
            return f"tokens {' '.join(map(str, ids))}" + " …" * (value.shape[1] > _TOKENS)
    return ""
