"""Which training examples say what another one says already, and which test examples does the training know?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.recipes.recipe import Duplicates
from prunus.core.types import Bools, Decision, Ints, Step
from prunus.data import Examples
from prunus.score import (
    FILLED,
    check_flat,
    check_tokens,
    flat_inputs,
    near_duplicate_sequences,
    near_duplicates,
    sequence_similarities,
    sequence_width,
    token_rows,
)
from prunus.score import Duplicates as Found

__all__ = [
    "Alike",
    "Apart",
    "alike_apart",
    "alike_notes",
    "check_likeness",
    "drop_duplicates",
    "likeness_rows",
    "pair_of",
    "usual_duplicates",
]


def likeness_rows(config: Duplicates | None, train: Examples, *others: Examples) -> Tensor | None:
    """Return what examples are compared by, those of ``others`` after them; None where only a training can tell."""
    if config is None or config.space == "embedding":
        return None
    return (token_rows if config.space == "tokens" else flat_inputs)(train, *others)


def check_likeness(config: Duplicates | None, *parts: Examples) -> None:
    """See that examples can be compared as the recipe asks, before anything is trained.

    Raises:
        DataError: they can't.
    """
    if config is not None and config.space != "embedding":
        for part in parts:
            (check_tokens if config.space == "tokens" else check_flat)(part)


_FEW_COLUMNS = 32
_EQUAL = 0.99999
"""Above what single precision rounds by."""


def usual_duplicates(train: Examples) -> Duplicates:
    """Return from when on inputs are duplicates where nobody said it: in a table of few columns, only where rows are all but equal.

    Many of its rows lie in nearly the same direction by chance.
    """
    shape = tuple(train.input_shape)
    return Duplicates(cosine=_EQUAL) if len(shape) == 1 and shape[0] < _FEW_COLUMNS else Duplicates()


def drop_duplicates(examples: Examples, rows: Tensor, config: Duplicates, *, judged: Bools, seed: int) -> Step:
    """Return a step that keeps the most typical of near-duplicates with one label; the saliency is one minus the likeness to it.

    A value is no label: two examples that are alike are duplicates whatever values they have.

    Args:
        examples: the training examples.
        rows: what they look like, ``(n, features)``, or the tokens that they hold.
        config: from which likeness on two are alike.
        judged: which of them may go.
        seed: of the search.
    """
    ids = np.array(examples.ids, object)
    decisions = []
    config = _with_width(config, rows)
    measure = "Jaccard" if config.space == "tokens" else "cosine"
    for name, units in _by_label(examples, judged):
        found = _alike(rows[torch.from_numpy(units)], config, seed)
        reason = np.full(len(units), "kept", object)
        for i in np.flatnonzero(~found.kept).tolist():
            reason[i] = f"like {ids[units[found.keeper[i]]]}, {measure} {found.similarity[i]:.4f}"
        saliency = np.where(found.kept, 1.0, 1.0 - found.similarity.astype(np.float64))
        decisions.append(Decision(name, units, saliency, found.kept, reason, label=ids[units]))
    return Step("remove", "example", "near_duplicates", tuple(decisions), config.model_dump())


class Alike(NamedTuple):
    """Two examples that are alike: the numbers of both, each in its own part, and their cosine or, of tokens, their Jaccard."""

    one: int
    other: int
    likeness: float


@dataclass(frozen=True)
class Apart:
    """Examples that are alike and no duplicates: ``otherwise`` labelled in training, and ``leaked``, of test and training."""

    otherwise: tuple[Alike, ...] = ()
    leaked: tuple[Alike, ...] = ()


_SEARCHED: WeakKeyDictionary[Examples, dict[tuple[int, Duplicates], tuple[Examples, Apart]]] = WeakKeyDictionary()


def pair_of(reason: object) -> tuple[str, float] | None:
    """Return for which example a duplicate goes, and their likeness, as :func:`drop_duplicates` gave the reason.

    >>> pair_of("like photo, 3, cosine 0.9963"), pair_of("kept")
    (('photo, 3', 0.9963), None)
    """
    found = re.fullmatch(r"like (.*), (?:cosine|Jaccard) (\d\.\d+)", str(reason), re.DOTALL)
    return None if found is None else (found[1], float(found[2]))


def alike_apart(train: Examples, test: Examples, config: Duplicates | None) -> Apart:
    """Return training examples that are alike and have other labels, and test examples that are like one of the training.

    Not by an embedding: that is another one for each seed. The same parts are searched once, and remembered as long as they live.
    """
    if config is None or config.space == "embedding":
        return Apart()
    known = _SEARCHED.setdefault(train, {})
    key = (id(test), config)
    if key not in known:
        rows = likeness_rows(config, train, test)
        assert rows is not None
        wide = _with_width(config, rows)
        found = Apart(_otherwise_labelled(train, rows[: len(train)], wide), _seen_in_training(len(train), rows, wide))
        known[key] = (test, found)  # the test examples are held, so that no others take their id
    return known[key][1]


def alike_notes(train: Examples, test: Examples, config: Duplicates | None, found: Apart | None = None) -> list[str]:
    """Return a line each about what :func:`alike_apart` found, or finds."""
    found = alike_apart(train, test, config) if found is None else found
    lines = []
    if config is not None and found.otherwise:
        one, other, _ = found.otherwise[0]
        labels, names = train.targets.tolist(), train.class_names
        lines.append(
            f"{len(found.otherwise)} training examples are near-duplicates of one with another label ({_threshold(config)}) "
            f"and stay: the first is {train.ids[one]} ({names[labels[one]]}), like {train.ids[other]} ({names[labels[other]]})"
        )
    if config is not None and found.leaked:
        one, other, _ = found.leaked[0]
        lines.append(
            f"{len(found.leaked)} of {len(test)} test examples are near-duplicates of training examples "
            f"({_threshold(config)}), so the test flatters: the first is {test.ids[one]}, like {train.ids[other]}; keep what "
            "belongs together in one part (data.split.groups)"
        )
    return lines


def _with_width(config: Duplicates, rows: Tensor) -> Duplicates:
    """Return the settings with the width that tokens are compared by, one for all classes."""
    if config.space != "tokens" or config.width is not None:
        return config
    return config.model_copy(update={"width": sequence_width(rows, padding=FILLED)})


def _alike(rows: Tensor, config: Duplicates, seed: int = 0) -> Found:
    if config.space == "tokens":
        return near_duplicate_sequences(rows, jaccard=config.jaccard, width=config.width, padding=FILLED, seed=seed)
    return near_duplicates(rows, cosine=config.cosine, seed=seed)


def _threshold(config: Duplicates) -> str:
    return f"Jaccard >= {config.jaccard:g}" if config.space == "tokens" else f"cosine >= {config.cosine:g}"


def _otherwise_labelled(train: Examples, rows: Tensor, config: Duplicates) -> tuple[Alike, ...]:
    if not train.task.exclusive:
        return ()
    found = _alike(rows, config)
    labels = train.targets.cpu().numpy()
    differ = np.flatnonzero(labels != labels[found.keeper])
    return tuple(Alike(one, int(found.keeper[one]), float(found.similarity[one])) for one in differ.tolist())


def _seen_in_training(n_train: int, rows: Tensor, config: Duplicates) -> tuple[Alike, ...]:
    found = _alike(rows, config)
    # The training knows something of a group where any member is a training example: the keeper, or one that it stands for.
    known = np.full(len(rows), -1, np.int64)
    of_train = np.arange(n_train)[::-1]
    known[found.keeper[of_train]] = of_train  # the last write wins: the first example
    leaked = np.flatnonzero(known[found.keeper[n_train:]] >= 0)
    others = known[found.keeper[n_train + leaked]]
    near = _likeness(rows, n_train + leaked, others, config)
    return tuple(Alike(*pair) for pair in zip(leaked.tolist(), others.tolist(), near, strict=True))


def _likeness(rows: Tensor, one: Ints, other: Ints, config: Duplicates) -> list[float]:
    if config.space == "tokens" and config.width is not None:
        pairs = np.stack([one, other], axis=1)
        near: list[float] = sequence_similarities(rows, pairs, width=config.width, padding=FILLED).tolist()
    else:
        near = functional.cosine_similarity(rows[one], rows[other], dim=1).tolist()
    return near


def _by_label(examples: Examples, judged: Bools) -> Sequence[tuple[str, Ints]]:
    if not examples.task.exclusive:
        return [("all", np.flatnonzero(judged).astype(np.int64))]
    labels = examples.targets.cpu().numpy()
    numbers = np.unique(labels[judged]).tolist()
    return [(examples.class_names[k], np.flatnonzero(judged & (labels == k)).astype(np.int64)) for k in numbers]
