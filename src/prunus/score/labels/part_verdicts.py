"""Of examples with several labels, or a label at each token: which of them are wrong, and which examples go for it?

Each label is judged by itself, as a class is (``label_verdicts``), and an example by its worst one. Nothing is replaced: a new
label for one of many has no place in a plan's table, so what is wrong is told, or its example goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prunus.core.types import Bools, Floats, Ints
from prunus.score.examples.precision import Precision, WrongLabels, wrong_labels
from prunus.score.labels.label_verdicts import FLAGGED, SPARED, LabelVerdicts

__all__ = ["Parts", "judge_parts"]


@dataclass(frozen=True, eq=False)
class Parts:
    """Labels of one kind: one label of many (there or not), or the classes of tokens.

    Shapes:
        ``(m,)``: the number of the ``example`` that each belongs to, the ``given`` class number, and the ``place`` in the example;
        ``probability`` of each class by models that didn't learn from it, ``(m, classes)``. ``words`` says of a class number what
        it means, and ``what`` of a place.
    """

    what: str
    words: Sequence[str]
    example: Ints
    place: Ints
    given: Ints
    probability: Floats


def judge_parts(
    parts: Sequence[Parts],
    n: int,
    present: Bools,
    *,
    wrong: Literal["flag", "drop"] = "flag",
    drop_probability: float = 0.7,
    class_floor: float = 0.1,
    confidence: float = 0.95,
    seed: int = 0,
) -> LabelVerdicts:
    """Return what becomes of each of ``n`` examples, by its worst label; the share of wrong ones is of labels, not of examples.

    Args:
        parts: the labels; of several kinds each has a share of wrong ones of its own.
        n: how many examples there are.
        present: which classes an example has, ``(n, classes)``.
        wrong: what becomes of examples with a wrong label.
        drop_probability: the least probability that one is wrong, for its example to go.
        class_floor: this share of the examples that have a class stays, and one at least.
        confidence: of the intervals.
        seed: of the resamples behind them.

    Raises:
        DataError: probabilities that are none.
        ShapeError: not one row per label.
    """
    worst, which = np.zeros(n), np.full((n, 2), -1, np.int64)
    found = [wrong_labels(part.probability, part.given, seed=seed) for part in parts]
    for number, (part, told) in enumerate(zip(parts, found, strict=True)):
        order = np.argsort(told.chance, kind="stable")  # the last write wins: the worst label of an example
        own = np.full(n, -1, np.int64)
        own[part.example[order]] = order
        examples = np.flatnonzero(own >= 0)
        examples = examples[told.chance[own[examples]] > worst[examples]]
        worst[examples] = told.chance[own[examples]]
        which[examples] = np.stack([np.full(len(examples), number), own[examples]], axis=1)
    listed = worst >= drop_probability
    drop = listed if wrong == "drop" else listed & False
    spared = _spared(drop, present, worst, class_floor)
    drop = drop & ~spared
    flagged = listed & ~drop & ~spared
    reason = np.full(n, "kept", object)
    for row in np.flatnonzero(listed).tolist():
        part, at = parts[which[row, 0]], int(which[row, 1])
        other = _likeliest_other(part.probability[at], int(part.given[at]))
        start = SPARED if spared[row] else FLAGGED if flagged[row] else ""
        reason[row] = (
            f"{start}{part.what.format(place=int(part.place[at]))} wrong ({worst[row]:.2f}): given {part.words[part.given[at]]!r}, "
            f"models that didn't see it say {part.words[other]!r}"
        )

    def resample(rows: Bools | Ints) -> Floats:
        """Return the chances of the worst labels of some examples."""
        at = which[rows]
        chances = np.zeros((len(found[0].noises), len(at)))
        for number, told in enumerate(found):
            mine = at[:, 0] == number
            chances[:, mine] = told.resample(at[mine, 1])
        return chances

    whole = WrongLabels(float(worst.mean()), worst, np.zeros(0), resample)
    decision = np.where(drop, "drop", "keep").astype(object)
    return LabelVerdicts(
        decision=decision,
        probability=worst,
        new_label=np.full(n, -1, np.int64),
        reason=reason,
        noise=_share(found, confidence),
        dropped=whole.precision(drop, confidence=confidence, seed=seed),
        relabelled=None,
        flagged=whole.precision(flagged, confidence=confidence, seed=seed),
        repaired=None,
        n_spared=int(spared.sum()),
    )


def _likeliest_other(probability: Floats, given: int) -> int:
    return int(np.where(np.arange(len(probability)) == given, -1.0, probability).argmax())


def _share(found: Sequence[WrongLabels], confidence: float) -> Precision:
    """Return the share of wrong labels of all kinds together."""
    sizes = np.array([len(told.chance) for told in found], np.float64)
    total = max(float(sizes.sum()), 1.0)
    value = float(sum(size * told.noise for size, told in zip(sizes, found, strict=True))) / total
    means = sum(size * told.noises for size, told in zip(sizes, found, strict=True)) / total
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Precision(int(sizes.sum()), value, min(float(low), value), max(float(high), value))


def _spared(drop: Bools, present: Bools, worst: Floats, floor: float) -> Bools:
    """Return which examples stay, the least suspect first, so that no class has fewer examples than its floor."""
    spared = np.zeros(len(drop), np.bool_)
    if floor == 0:
        return spared
    counts = present.sum(axis=0)
    floors = np.where(counts > 0, np.maximum((floor * counts).astype(np.int64), 1), 0)
    for number in range(present.shape[1]):
        gone = np.flatnonzero(present[:, number] & drop & ~spared)
        left = int(counts[number]) - len(gone)
        if left < floors[number]:
            spared[gone[np.argsort(worst[gone], kind="stable")][: int(floors[number]) - left]] = True
    return spared
