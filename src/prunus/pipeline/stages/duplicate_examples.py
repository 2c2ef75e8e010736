"""Which training examples say what another one says already, and which test examples does the training know?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prunus.core.recipes.recipe import Duplicates
from prunus.core.types import Bools, Decision, Ints, Step
from prunus.data import Examples
from prunus.score import flat_inputs, near_duplicates

__all__ = ["alike_notes", "drop_duplicates"]


def drop_duplicates(examples: Examples, rows: Tensor, config: Duplicates, *, judged: Bools, seed: int) -> Step:
    """Return a step that keeps the most typical of near-duplicates with one label; the saliency is one minus the cosine to it.

    A value is no label: two examples that are alike are duplicates whatever values they have.

    Args:
        examples: the training examples.
        rows: what they look like, ``(n, features)``.
        config: from which cosine on two are alike.
        judged: which of them may go.
        seed: of the search.
    """
    ids = np.array(examples.ids, object)
    decisions = []
    for name, units in _by_label(examples, judged):
        found = near_duplicates(rows[torch.from_numpy(units)], cosine=config.cosine, seed=seed)
        reason = np.full(len(units), "kept", object)
        for i in np.flatnonzero(~found.kept).tolist():
            reason[i] = f"like {ids[units[found.keeper[i]]]}, cosine {found.cosine[i]:.4f}"
        saliency = np.where(found.kept, 1.0, 1.0 - found.cosine.astype(np.float64))
        decisions.append(Decision(name, units, saliency, found.kept, reason, label=ids[units]))
    return Step("remove", "example", "near_duplicates", tuple(decisions), config.model_dump())


def alike_notes(train: Examples, test: Examples, config: Duplicates | None) -> list[str]:
    """Return lines about training examples that are alike and have other labels, and about test examples that training knows.

    Only of inputs: an embedding is another one for each seed.
    """
    if config is None or config.space != "inputs":
        return []
    rows = flat_inputs(train, test)
    lines = (
        _otherwise_labelled(train, rows[: len(train)], config),
        _seen_in_training(train, test, rows, config),
    )
    return [line for line in lines if line is not None]


def _otherwise_labelled(train: Examples, rows: Tensor, config: Duplicates) -> str | None:
    if not train.task.exclusive:
        return None
    found = near_duplicates(rows, cosine=config.cosine)
    labels = train.targets.cpu().numpy()
    differ = np.flatnonzero(labels != labels[found.keeper])
    if not len(differ):
        return None
    one, other = int(differ[0]), int(found.keeper[differ[0]])
    names = train.class_names
    return (
        f"{len(differ)} training examples are near-duplicates of one with another label (cosine >= {config.cosine:g}) and stay: "
        f"the first is {train.ids[one]} ({names[labels[one]]}), like {train.ids[other]} ({names[labels[other]]})"
    )


def _seen_in_training(train: Examples, test: Examples, rows: Tensor, config: Duplicates) -> str | None:
    found = near_duplicates(rows, cosine=config.cosine)
    # The training knows something of a group where any member is a training example: the keeper, or one that it stands for.
    known = np.full(len(rows), -1, np.int64)
    of_train = np.arange(len(train))[::-1]
    known[found.keeper[of_train]] = of_train  # the last write wins: the first example
    leaked = np.flatnonzero(known[found.keeper[len(train) :]] >= 0)
    if not len(leaked):
        return None
    one = int(leaked[0])
    other = int(known[found.keeper[len(train) + one]])
    return (
        f"{len(leaked)} of {len(test)} test examples are near-duplicates of training examples (cosine >= {config.cosine:g}), so "
        f"the test flatters: the first is {test.ids[one]}, like {train.ids[other]}; keep what belongs together in one part "
        "(data.split.groups)"
    )


def _by_label(examples: Examples, judged: Bools) -> Sequence[tuple[str, Ints]]:
    if not examples.task.exclusive:
        return [("all", np.flatnonzero(judged).astype(np.int64))]
    labels = examples.targets.cpu().numpy()
    numbers = np.unique(labels[judged]).tolist()
    return [(examples.class_names[k], np.flatnonzero(judged & (labels == k)).astype(np.int64)) for k in numbers]
