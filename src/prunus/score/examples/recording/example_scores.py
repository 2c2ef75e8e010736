"""What is each example worth by what recordings hold, and how sure is that?

Recordings are read in blocks of examples, so the memory needed doesn't grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.errors import DataError, RunError
from prunus.core.types import Ints
from prunus.score.examples.example_criteria import example_criteria
from prunus.score.examples.recording.epoch_files import EpochFiles
from prunus.score.examples.recording.over_epochs import OverEpochs
from prunus.score.examples.recording.standard_errors import DEGREES_OF_FREEDOM, error_of_deviation, error_of_mean

__all__ = ["SCORES", "ExampleScores", "scores_of"]

SCORES: Mapping[str, str] = {
    "el2n": "el2n",
    "aum": "aum",
    "loss": "loss",
    "loss_deviation": "loss_deviation",
    "forgetting": "forgotten",
    "confidence": "confidence",
    "variability": "confidence_deviation",
    "entropy": "entropy",
    "margin": "gap",
}
"""Each score by the name of its criterion, and the evidence that it is made of: as far apart from others as that is."""

_BLOCK_BYTES = 1 << 25
_NOT_FOR_SCORES = ("probability",)


class Recorded(Protocol):
    """What scores are made of: a recording."""

    @property
    def n_examples(self) -> int: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def record_bytes(self) -> int: ...

    def epoch_files(self) -> list[EpochFiles]: ...

    def decoded(self, words: Any) -> dict[str, Tensor]: ...


@dataclass(frozen=True, eq=False)
class ExampleScores:
    """Scores of every example, by the name of their criterion (higher means keep), with standard errors.

    ``values`` and ``errors`` are float32 ``(n,)``; an error is NaN where too little was recorded to know it. ``n_epochs`` says how
    many epochs (of all trainings) hold each example, ``n_torn`` how many records were begun and not finished. ``labels`` are the
    classes that were given, -1 where none is known; None of other tasks. An interval is ``value ± t * error`` with the quantile t
    of ``degrees_of_freedom``.
    """

    values: Mapping[str, npt.NDArray[np.float32]]
    errors: Mapping[str, npt.NDArray[np.float32]]
    labels: Ints | None
    n_epochs: Ints
    n_torn: int
    n_recordings: int
    degrees_of_freedom: int

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of an example table: every score, and its error under ``<score>_error``."""
        found: dict[str, npt.NDArray[Any]] = {}
        for name, values in self.values.items():
            found[name], found[f"{name}_error"] = values, self.errors[name]
        return found


def scores_of(
    recordings: Sequence[Recorded], *, el2n_epochs: int | None = None, partial: bool = False, block: int | None = None
) -> ExampleScores:
    """Return the scores of examples that one or several trainings recorded: the mean over the trainings, and its error.

    Args:
        recordings: of one data set; more than one: of trainings that differ by their seed.
        el2n_epochs: EL2N looks at the first so many epochs only; None: at all.
        partial: examples that no epoch holds get NaN, instead of stopping it.
        block: how many examples are read at once; None: so many that it takes a few dozen megabytes. It changes nothing else.

    Raises:
        DataError: no recording, recordings of different numbers of examples or of other tasks, or files of another length.
        RunError: an example that no epoch holds.
    """
    if not recordings:
        raise DataError("scores need at least one recording: got none")
    first = recordings[0]
    for other in recordings[1:]:
        if (other.n_examples, other.names) != (first.n_examples, first.names):
            raise DataError(
                f"recordings of one data set and task are scored together: got {first.n_examples} and {other.n_examples} examples, "
                f"{', '.join(first.names)} and {', '.join(other.names)}"
            )
    n, names = first.n_examples, tuple(name for name in first.names if name not in _NOT_FOR_SCORES)
    made = {score: evidence for score, evidence in SCORES.items() if evidence in names}
    files = [recording.epoch_files() for recording in recordings]
    if not all(files) and not partial:
        raise RunError(f"a recording of {n} examples holds no epoch: record at least one whole epoch")
    values, errors = ({name: np.empty(n, np.float32) for name in made} for _ in range(2))
    labels: Ints = np.full(n, -1, np.int64)
    n_epochs: Ints = np.zeros(n, np.int64)
    n_torn = 0
    per_example = 64 * max(map(len, files), default=0) + 24 * first.record_bytes
    for start, stop in _blocks(n, block or max(1, _BLOCK_BYTES // max(per_example, 1))):
        rows = slice(start, stop)
        read = [
            _read_block(recording, own, start, stop, names, el2n_epochs)
            for recording, own in zip(recordings, files, strict=True)
        ]
        for found in read:
            if not partial and not found.seen.all():
                raise RunError(_never_seen(n, start + int((found.seen == 0).argmax())))
            labels[rows] = np.where(found.labels >= 0, found.labels, labels[rows])
            n_epochs[rows] += found.seen
            n_torn += found.n_torn
        for name, evidence in made.items():
            each = torch.stack([example_criteria[name]({evidence: found.means[evidence]}).double() for found in read])
            values[name][rows] = each.nanmean(dim=0).numpy()
            errors[name][rows] = (read[0].errors[evidence] if len(read) == 1 else _between(each)).numpy()
    freedom = DEGREES_OF_FREEDOM if len(recordings) == 1 else len(recordings) - 1
    known = bool((labels >= 0).any())
    return ExampleScores(values, errors, labels if known else None, n_epochs, n_torn, len(recordings), freedom)


@dataclass(frozen=True, eq=False)
class _Block:
    means: dict[str, Tensor]
    errors: dict[str, Tensor]
    seen: Ints
    labels: Ints
    n_torn: int


def _read_block(
    recording: Recorded,
    files: Sequence[EpochFiles],
    start: int,
    stop: int,
    names: tuple[str, ...],
    el2n_epochs: int | None,
) -> _Block:
    """Return what the epochs of one recording say of some examples, over all of them and with its errors."""
    over = OverEpochs(stop - start, names, el2n_epochs=el2n_epochs)
    courses = {name: torch.full((len(files), stop - start), torch.nan, dtype=torch.float64) for name in _bases(names)}
    labels: Ints = np.full(stop - start, -1, np.int64)
    n_torn = 0
    for number, epoch in enumerate(files):
        words, whole = epoch.read(start, stop)
        n_torn += int((words.any(axis=1) & ~whole).sum())
        early = over.counts_early(epoch.epoch)
        if not whole.any():
            continue
        index = torch.from_numpy(np.flatnonzero(whole))
        found = recording.decoded(words[whole])
        over.add(epoch.epoch, index, found)
        for name, course in courses.items():
            if name != "el2n" or early:
                course[number, index] = found[name]
        if "label" in found:
            labels[whole] = found["label"].numpy()
    return _Block(over.tensors(), _errors(courses, names), over.seen.numpy(), labels, n_torn)


def _bases(names: Sequence[str]) -> tuple[str, ...]:
    """Return what epochs are asked for, given what is wanted over them."""
    found = [name.removesuffix("_deviation") for name in names if name != "forgotten"]
    return tuple(dict.fromkeys([*found, *(["aum"] if "forgotten" in names else [])]))


def _errors(courses: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return the error of each kind of evidence, from the course of one training."""
    found = {}
    for name in names:
        if name == "forgotten":
            found[name] = _error_of_forgetting(courses["aum"])
        elif name.endswith("_deviation"):
            found[name] = error_of_deviation(courses[name.removesuffix("_deviation")])
        else:
            found[name] = error_of_mean(courses[name])
    return found


def _error_of_forgetting(margin: Tensor) -> Tensor:
    """Return the error of the number of times that what was right became wrong: that of its mean over the steps.

    NaN of what was never right: how often it was seen is no estimate.
    """
    there = ~margin.isnan()
    # Of an epoch that didn't see the example, the last one that did tells.
    last = torch.where(there, torch.arange(len(margin))[:, None], 0).cummax(dim=0).values
    filled = margin.gather(0, last)
    events = ((filled[:-1] > 0) & (filled[1:] <= 0)).double()
    events[~there[1:] | ~(there.cumsum(dim=0)[:-1] > 0)] = torch.nan
    error = error_of_mean(events) * (there.sum(dim=0) - 1)
    return error.where((margin > 0).any(dim=0), torch.nan)


def _between(each: Tensor) -> Tensor:
    """Return the error of the mean over trainings, ``(trainings, n)`` to ``(n,)``; NaN where not all saw the example."""
    error: Tensor = each.std(dim=0) / float(np.sqrt(len(each)))
    return error


def _blocks(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)


def _never_seen(n: int, example: int) -> str:
    return (
        f"example {example} of {n} is in no epoch of the recording, and maybe others after it: record at least one whole epoch, or "
        "say partial=True to leave what was never seen at NaN"
    )
