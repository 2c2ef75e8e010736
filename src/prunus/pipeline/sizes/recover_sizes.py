"""How do the sizes get their quality back: together, with their weights in common, or each by itself?

Together they take turns, a step each, in as many epochs as recovering each by itself would take; an epoch of theirs is so many of
the training's as there are sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunus.core.runtime import generator
from prunus.data import Batch
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import base_loss, distilling
from prunus.pipeline.sizes.nested_cuts import Cut, taken
from prunus.pipeline.stages.model_stage import fit, recover
from prunus.pipeline.stages.overfitting.generalisation import Ended, Overfits, Parts, how_it_ended, stopping
from prunus.recover import Loss, recompute_batch_norm
from prunus.recover.sizes import SharedSizes, Taken

__all__ = ["recovered_apart", "recovered_together"]

Recovered = tuple[list[nn.Module], list[Taken], list[Ended]]
"""The sizes, what each takes from the largest, and how its recovery ended."""


@dataclass(frozen=True)
class _OfTurn:
    """The loss of the size whose turn it is. No closure: it goes to the other ranks of a training."""

    losses: Sequence[Loss]

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, SharedSizes)
        return self.losses[model.turn](model.answer(model.turn, batch.inputs), batch)


def recovered_together(
    job: Job, seed: int, dense: nn.Module, cuts: Sequence[Cut], overfits: Overfits | None
) -> Recovered:
    """Return the sizes after a training in which they share their weights.

    Where the gap of one is beyond the margin the training of all ends: their weights are the same.
    """
    largest = duplicate(cuts[0].candidate.model)
    smaller = [(duplicate(cut.candidate.model), taken(largest, cut)) for cut in cuts[1:]]
    shared = SharedSizes(largest, smaller)
    config, stage, ended = job.recipe.recovery, f"seed {seed} / recover all sizes", Ended(0, over_fits=False)
    is_trained = config.method != "none" and config.epochs > 0
    if is_trained:
        fractions = [f"size {cut.keep_fraction:g}" for cut in cuts]
        parts = Parts(lambda: dict(zip(fractions, shared.hand_out(), strict=True)), every=shared.n_turns)
        options: dict[str, Any] = {}
        if overfits is not None and (stop := stopping(overfits, stage, shared, parts)) is not None:
            options["after_epoch"] = stop
        with ExitStack() as stack:
            losses = _losses(job, dense, [largest, *shared.smaller], stage, stack)
            facts = fit(
                job,
                shared,
                job.data.train,
                config.model_copy(
                    update={
                        "epochs": config.epochs * shared.n_turns,
                        "average": config.average.model_copy(update={"last": config.average.last * shared.n_turns}),
                    }
                ),
                seed=seed,
                stage=stage,
                loss=losses[0],
                training_step=_OfTurn(losses),
                **options,
            )
        ended = how_it_ended(job, stage, len(facts["loss"]), every=shared.n_turns)
    shared.settle()
    shared.eval()
    if is_trained and not ended.over_fits and config.average.kind in ("ema", "swa"):
        for number, model in enumerate(shared.smaller, start=2):  # the training did so for the largest alone
            order = generator(seed, f"seed {seed} / recover size {number}", "batch norm")
            recompute_batch_norm(model, job.data.train, batch_size=config.batch_size, generator=order)
    return [largest, *shared.smaller], [{}, *(places for _, places in smaller)], [ended] * len(cuts)


def _losses(job: Job, dense: nn.Module, sizes: Sequence[nn.Module], stage: str, stack: ExitStack) -> list[Loss]:
    """Return what each size minimises; one loss for all but where features are compared, which are each size's own."""
    config = job.recipe.recovery
    if config.method != "distil":
        return [base_loss(job, config)] * len(sizes)
    if config.distil.features == 0:
        return [distilling(job, config, dense, sizes[0], job.data.train, stage, stack)] * len(sizes)
    return [distilling(job, config, dense, size, job.data.train, stage, stack) for size in sizes]


def recovered_apart(job: Job, seed: int, dense: nn.Module, cuts: Sequence[Cut], overfits: Overfits | None) -> Recovered:
    """Return the sizes, each recovered by itself, and ended by itself where it over-fits."""
    models, ended = [], []
    for number, cut in enumerate(cuts, start=1):
        candidate = cut.candidate.replaced(model=duplicate(cut.candidate.model))
        stage = f"seed {seed} / recover size {number}"
        facts = recover(job, seed, dense, candidate, job.data.train, stage=stage, overfits=overfits)
        models.append(candidate.model)
        ended.append(how_it_ended(job, stage, len(facts["loss"])) if facts else Ended(0, over_fits=False))
    return models, [{} for _ in cuts], ended
