"""What does a round of pruning know when it scores: the calibration set's evidence, and the movement of a training?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from prunus.apply import Masks
from prunus.core.recipes.recipe import Strategy
from prunus.data import Examples
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.cut.shared_evidence import SharedEvidence
from prunus.pipeline.jobs.job import Candidate, Job
from prunus.pipeline.jobs.objective import base_loss, evidence_loss
from prunus.recover import train
from prunus.score import Evidence, MovementRecorder, criteria, gather

__all__ = ["gather_evidence"]


def gather_evidence(
    job: Job,
    candidate: Candidate,
    strategy: Strategy,
    names: Sequence[str],
    *,
    seed: int,
    stage: str,
    blocks: Sequence[str] = (),
    examples: Examples | None = None,
) -> Evidence:
    """Return what the strategy's criterion needs to know of the parameters ``names`` and the modules ``blocks``.

    ``examples`` are those of the short training that movement is measured in; default: all training examples.
    """
    calibration, needs = job.data.calibration, criteria[strategy.criterion].needs
    loss = evidence_loss(job, candidate.model)
    shared = SharedEvidence(job, stage)
    evidence = gather(candidate.model, names, calibration, loss, needs, blocks=blocks, seed=seed, joins=shared)
    if "movement" in needs:
        recorder = _moved(job, candidate, strategy, names, examples or job.data.train, seed=seed, stage=stage)
        evidence = evidence.replaced("movement", recorder.movement)
    return evidence


def _moved(
    job: Job,
    candidate: Candidate,
    strategy: Strategy,
    names: Sequence[str],
    examples: Examples,
    *,
    seed: int,
    stage: str,
) -> MovementRecorder:
    """Train a copy for as long as the strategy says, and return what moved; the candidate stays as it is."""
    model: nn.Module = duplicate(candidate.model)
    recorder = MovementRecorder(model, names)
    masks = Masks(model, dict(candidate.masks))
    attach = _Hooks((masks.guard, recorder.attach))
    config = job.recipe.train.model_copy(update={"epochs": max(1, strategy.l1_epochs)})
    listener = job.workspace.emit
    train(
        model,
        examples,
        config,
        seed=seed,
        stage=f"{stage} / movement",
        loss=base_loss(job, config),
        training_step=job.training_step,
        on_optimizer=attach,
        listener=listener,
    )
    masks.bake()
    return recorder


@dataclass(frozen=True)
class _Hooks:
    """Several hooks as one. No closure: it goes to the other ranks of a training."""

    hooks: tuple[Callable[[Optimizer], None], ...]

    def __call__(self, optimizer: Optimizer) -> None:
        for hook in self.hooks:
            hook(optimizer)
