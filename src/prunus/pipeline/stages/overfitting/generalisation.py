"""Does a pruned model over-fit: is it further from its training examples to the validation examples than the dense model is?

The gap is how much better a model is on examples that it was trained on than on the validation examples, in the first metric that
is evaluated, whatever its sense. Of the training examples so many are looked at as there are validation examples (a thousand at
least).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from prunus.core.runtime import derive_seed
from prunus.core.types import Step
from prunus.data import Examples
from prunus.evaluate import observe
from prunus.pipeline.jobs.job import Candidate, Job
from prunus.pipeline.stages.selection_gate import by_chance
from prunus.tasks import default_metrics, metrics, value_of

__all__ = [
    "ENDS",
    "Ended",
    "Gap",
    "Overfits",
    "Parts",
    "each_epoch",
    "how_it_ended",
    "seen_gap",
    "stopping",
    "taken_back",
    "trend",
    "watched",
]

ENDS = "schedule_ends"
"""What the settings of a step say after which a schedule ended: the gap was too large after the next one."""
_LEAST = 1000


@dataclass(frozen=True)
class Gap:
    """A metric on both kinds of examples; ``value`` is positive where the training examples are answered better."""

    metric: str
    train: float
    validation: float

    @property
    def value(self) -> float:
        """By how much the training examples are answered better."""
        apart = self.train - self.validation
        return apart if metrics[self.metric].higher_is_better else -apart


@dataclass
class Overfits:
    """What a pruned model's gap is compared with: the dense model's, of one seed."""

    job: Job
    seed: int
    dense: nn.Module
    examples: Examples
    _dense_gap: float | None = field(default=None, init=False)

    @property
    def metric(self) -> str:
        """The first metric that is evaluated."""
        return (self.job.recipe.evaluation.metrics or default_metrics(self.examples.task.name))[0]

    @property
    def dense_gap(self) -> float:
        """The dense model's gap, measured once; on all of the training examples that it saw."""
        if self._dense_gap is None:
            self._dense_gap = self.gap(self.dense).value
        return self._dense_gap

    def gap(self, model: nn.Module) -> Gap:
        """Measure a model."""
        validation = self.job.data.validation
        n = min(len(self.examples), max(len(validation), _LEAST))
        some = by_chance(self.examples, n, derive_seed(self.seed, "gap")) if n < len(self.examples) else self.examples
        return Gap(self.metric, *(self._value(model, part) for part in (some, validation)))

    def _value(self, model: nn.Module, examples: Examples) -> float:
        return value_of(examples.task, self.metric, observe(model, examples, examples.task))

    def exceeds(self, gap: float) -> bool:
        """Return whether a gap is beyond the dense model's by more than the margin that is asked for."""
        margin = self.job.recipe.recovery.gap_margin
        return margin is not None and gap - self.dense_gap > margin


def watched(job: Job, *, rounds: int) -> bool:
    """Return whether gaps are measured: where there is a course of pruning steps, or a margin, and examples to see it on."""
    if len(job.data.validation) == 0:
        return False
    return rounds > 1 or job.recipe.target is not None or job.recipe.recovery.gap_margin is not None


def seen_gap(overfits: Overfits, gap: Gap) -> dict[str, Any]:
    """Return a gap beside the dense model's, as plain values."""
    return {
        "metric": gap.metric,
        "train": gap.train,
        "validation": gap.validation,
        "gap": gap.value,
        "dense_gap": overfits.dense_gap,
    }


def trend(candidate: Candidate, overfits: Overfits, step: Step, *, first: bool) -> Candidate:
    """Return the candidate with one more row in its trend: after ``step``, the first one of its kind or not."""
    gap = overfits.gap(candidate.model)
    before = 1.0 if first or not candidate.gaps else candidate.gaps[-1]["kept"]
    row: dict[str, Any] = {
        "seed": overfits.seed,
        "cut": len(candidate.gaps) + 1,
        "kept": before * step.n_kept / max(step.n_units, 1),
        **seen_gap(overfits, gap),
        "taken_back": False,
    }
    return candidate.replaced(gaps=(*candidate.gaps, row))


@dataclass(frozen=True)
class Parts:
    """Several models that one training makes: where one goes back, all do.

    ``looked_at`` returns each by its name, as it is now; ``every`` says how many of the training's epochs are one of theirs.
    """

    looked_at: Callable[[], Mapping[str, nn.Module]]
    every: int


def stopping(
    overfits: Overfits, stage: str, model: nn.Module, parts: Parts | None = None
) -> Callable[[int], bool] | None:
    """Return what ends a training: after each epoch it looks at the gap, and goes back to the last epoch within the margin.

    Where no epoch was within, the first one stays. None where no margin is asked for. Of a model of ``parts`` each one's gap has to
    be within.
    """
    work = overfits.job.workspace
    if overfits.job.recipe.recovery.gap_margin is None:
        return None
    held = f"{stage} / within the margin"
    parts = parts or Parts(lambda: {"": model}, every=1)

    def after_epoch(trained: int) -> bool:
        done, rest = divmod(trained, parts.every)
        if rest:
            return False
        gaps = {name: overfits.gap(part).value for name, part in parts.looked_at().items()}
        beyond = {name: gap for name, gap in gaps.items() if overfits.exceeds(gap)}
        if not beyond:
            work.keep_state(held, model)
            return False
        state = work.kept_state(held) if done > 1 else None
        which, gap = max(beyond.items(), key=lambda item: item[1])
        said = (
            f"after {done} epoch{'s' if done > 1 else ''} the gap {f'of {which} ' if which else ''}between training and validation "
            f"examples is {gap:.4g}, and the dense model's {overfits.dense_gap:.4g}: the training{' of all' if which else ''} ends"
        )
        kept = done if state is None else done - 1
        work.remembered(_ended(stage, trained), lambda: {"epochs": kept, "over_fits": True})
        if state is None:
            work.warn(stage, f"{said}, and no epoch was within recovery.gap_margin")
            return True
        model.load_state_dict(state)
        work.note(stage, f"{said}, with the weights of the last epoch within recovery.gap_margin")
        return True

    return after_epoch


@dataclass(frozen=True)
class Ended:
    """Of which epoch of a recovery the weights are, and whether it ended there because a gap was beyond the margin."""

    epochs: int
    over_fits: bool


def how_it_ended(job: Job, stage: str, trained: int, *, every: int = 1) -> Ended:
    """Return how a training ended that went on for ``trained`` of its epochs."""
    said = job.workspace.remembered(_ended(stage, trained), lambda: {"epochs": trained // every, "over_fits": False})
    return Ended(int(said["epochs"]), bool(said["over_fits"]))


def _ended(stage: str, trained: int) -> str:
    return f"{stage} / ended after {trained}"


def taken_back(job: Job, stage: str, earlier: Candidate, failed: Candidate) -> Candidate:
    """Return the candidate before a cut after which the gap was too large, with what was seen."""
    row = {**failed.gaps[-1], "taken_back": True}
    job.workspace.warn(
        stage,
        f"the schedule ends before this cut: after it the gap between training and validation examples is {row['gap']:.4g}, and "
        f"the dense model's {row['dense_gap']:.4g} (recovery.gap_margin {job.recipe.recovery.gap_margin:g})",
    )
    return earlier.replaced(gaps=(*failed.gaps[:-1], row))


def each_epoch(looks: Sequence[Callable[[int], None]], stop: Callable[[int], bool] | None) -> Callable[[int], bool]:
    """Return what looks at a model after an epoch, and then says whether the training ends."""

    def after_epoch(done: int) -> bool:
        for look in looks:
            look(done)
        return stop is not None and stop(done)

    return after_epoch
