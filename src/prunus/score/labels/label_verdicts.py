"""Of each example with one class: does it keep its label, get another one, or go?

A label is called wrong where it is with a high probability (``examples.precision``), by models that didn't learn from it and by how
many labels are wrong, which is estimated and never assumed. It is replaced where another class contradicts it with confidence
(``examples.confident``) *and* that class is the true one with a high probability, by the same estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunus.core.types import Bools, Floats, Ints
from prunus.score.examples.confident import confident_labels
from prunus.score.examples.precision import Precision, wrong_labels

__all__ = ["FLAGGED", "SPARED", "LabelVerdicts", "Wrong", "judge_labels"]

Wrong = Literal["flag", "drop", "relabel", "both"]
"""What becomes of wrong labels: they are told, their examples go, they are replaced, or what fits of the latter two."""
FLAGGED = "flagged: "
"""How the reason begins of an example that is called wrong and stays as it is."""
SPARED = "spared: "
"""How the reason begins of one that stays because too few of its class would."""


@dataclass(frozen=True)
class LabelVerdicts:
    """What becomes of each example, and how sure that is.

    ``noise`` is the share of all labels that is estimated to be wrong. ``dropped``, ``relabelled`` and ``flagged`` say how many of
    these lists are estimated to have a wrong label, ``repaired`` how many of the relabelled ones to have the right one now; None
    of an empty list. ``n_spared`` would have gone, if their class had enough others.

    Shapes:
        ``(n,)`` each. ``decision`` is keep, drop or relabel, ``probability`` that of a wrong label, ``new_label`` a class number,
        -1 where the label stays.
    """

    decision: npt.NDArray[np.object_]
    probability: Floats
    new_label: Ints
    reason: npt.NDArray[np.object_]
    noise: Precision
    dropped: Precision | None
    relabelled: Precision | None
    flagged: Precision | None
    repaired: float | None
    n_spared: int


def judge_labels(
    probability: Floats,
    given: Ints,
    class_names: Sequence[str],
    *,
    wrong: Wrong = "both",
    drop_probability: float = 0.7,
    relabel_probability: float = 0.9,
    class_floor: float = 0.1,
    confidence: float = 0.95,
    seed: int = 0,
) -> LabelVerdicts:
    """Return what becomes of each example.

    Args:
        probability: of each class, by models that didn't learn from the example.
        given: the class numbers.
        class_names: of the classes.
        wrong: what becomes of those with a wrong label.
        drop_probability: the least probability that the given label is wrong, for the example to go.
        relabel_probability: the least probability that the new label is right, for it to take the place of the old one.
        class_floor: this share of the examples that carry a label keeps it, or has it new, and one at least; 0: a class may vanish.
        confidence: of the intervals.
        seed: of the resamples behind them.

    Shapes:
        ``probability`` is ``(n, classes)``, ``given`` ``(n,)``.
    Raises:
        DataError: probabilities or labels that are none.
        ShapeError: not one row per label.
    """
    found = wrong_labels(probability, given, seed=seed)
    contradicted = confident_labels([(probability.astype(np.float32), given)])
    other, new = _likeliest_other(probability, given, found.sharpness, found.chance)
    listed = found.chance >= drop_probability
    sure = contradicted.contradicted & (contradicted.suggested == other) & (new >= relabel_probability)
    relabel = sure if wrong in ("relabel", "both") else sure & False
    drop = listed & ~relabel if wrong in ("drop", "both") else listed & False
    spared = _spared(drop, relabel, given, other, found.chance, class_floor)
    relabel, drop = relabel & ~spared, drop & ~spared
    flagged = listed & ~relabel & ~drop & ~spared
    decision = np.full(len(given), "keep", object)
    decision[drop], decision[relabel] = "drop", "relabel"
    reason = np.full(len(given), "kept", object)
    for row in np.flatnonzero(drop | relabel | flagged | spared).tolist():
        says = f"{class_names[other[row]]!r} ({new[row]:.2f})"
        unsure = f"label wrong ({found.chance[row]:.2f}), and the likeliest, {says}, isn't sure"
        told = f"label wrong ({found.chance[row]:.2f}): models that didn't see it say {says}"
        start = SPARED if spared[row] else FLAGGED if flagged[row] else ""
        reason[row] = start + (unsure if drop[row] and wrong == "both" else told)

    def precision(rows: Bools) -> Precision | None:
        return found.precision(rows, confidence=confidence, seed=seed)

    return LabelVerdicts(
        decision=decision,
        probability=found.chance,
        new_label=np.where(relabel, other, -1),
        reason=reason,
        noise=found.share(confidence=confidence),
        dropped=precision(drop),
        relabelled=precision(relabel),
        flagged=precision(flagged),
        repaired=float(new[relabel].mean()) if relabel.any() else None,
        n_spared=int(spared.sum()),
    )


def _likeliest_other(probability: Floats, given: Ints, sharpness: float, chance: Floats) -> tuple[Ints, Floats]:
    """Return the likeliest class that isn't the given one, and the probability that it is the true one.

    The given label is wrong with ``chance``; then the true class is one of the others, as likely as the model says.
    """
    scores = sharpness * np.log(np.clip(probability, 1e-9, None))
    rows = np.arange(len(given))
    scores[rows, given] = -np.inf
    other = scores.argmax(axis=1)
    scores -= scores[rows, other][:, None]
    return other, chance / np.exp(scores).sum(axis=1)


def _spared(drop: Bools, relabel: Bools, given: Ints, suggested: Ints, chance: Floats, floor: float) -> Bools:
    """Return which examples stay as they are, the least suspect first, so that no class has fewer than its floor."""
    spared = np.zeros(len(given), np.bool_)
    if floor == 0:
        return spared
    n_classes = int(max(given.max(), suggested.max())) + 1
    counts = np.bincount(given, minlength=n_classes)
    floors = np.where(counts > 0, np.maximum((floor * counts).astype(np.int64), 1), 0)
    short = True
    while short:  # who is spared isn't relabelled to another class, which may then have too few itself
        stays = ~(drop | relabel) | spared
        left = np.bincount(given[stays], minlength=n_classes)
        left = left + np.bincount(suggested[relabel & ~spared], minlength=n_classes)
        short = False
        for number in np.flatnonzero(left < floors).tolist():
            rows = np.flatnonzero(~stays & (given == number))
            least = rows[np.argsort(chance[rows], kind="stable")][: int(floors[number] - left[number])]
            spared[least] = True
            short = short or len(least) > 0
    return spared
