"""What does one short training say of every training example, for the criteria that a section ``examples`` names?

It is gathered once and kept, so that a resumed run decides on the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from prunus.core.recipes.recipe import Examples as ExamplesConfig
from prunus.data import Examples
from prunus.graph.tracing.states import duplicate
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import base_loss
from prunus.pipeline.stages.recorded_training import recorded_evidence
from prunus.pipeline.stages.unseen_answers import unseen_probabilities
from prunus.recover import train
from prunus.score import (
    INFLUENCE_NEEDS,
    ExampleRecorder,
    embed,
    example_criteria,
    gradient_evidence,
    influence_evidence,
)

__all__ = ["by_embedding", "evidence_read", "example_evidence", "judging_stage", "named_criteria", "watch_training"]

_CHECKPOINTS = 3
"""Influence is the mean over so many states of the short training, evenly spread; that they differ gives its error."""


_LAYERS = 2
"""Influence is by the weights of the last so many layers; by all of a model that has fewer."""


def judging_stage(seed: int) -> str:
    """Return what the judging of the examples of a seed is called."""
    return f"seed {seed} / judge examples"


def named_criteria(config: ExamplesConfig) -> list[tuple[str, str]]:
    """Return the criteria that a section names, each with the key that names it."""
    covered = [] if config.cover is None else [("cover", config.cover.criterion)]
    return [*(("remove", remove.criterion) for remove in config.remove), *covered]


def evidence_read(config: ExamplesConfig) -> set[str]:
    """Return what the criteria of a section read."""
    return {need for _, criterion in named_criteria(config) for need in example_criteria[criterion].needs}


def by_embedding(config: ExamplesConfig) -> bool:
    """Tell whether duplicates are told by what the short training's last layer reads."""
    return config.duplicates is not None and config.duplicates.space == "embedding"


def needs_training(config: ExamplesConfig) -> bool:
    """Tell whether something is asked that only the course of a training can answer."""
    recorded = config.clean is not None and config.clean.evidence == "recorded"
    return recorded or bool(evidence_read(config) - {"noise"}) or config.relabel is not None or by_embedding(config)


def example_evidence(job: Job, seed: int, config: ExamplesConfig) -> dict[str, Tensor]:
    """Return what a short training says of the training examples, where a section asks for it; kept for a resume."""
    if not needs_training(config):
        return {}
    stage = judging_stage(seed)
    return job.workspace.kept(f"{stage} / evidence", lambda: _gathered(job, seed, config, stage))


def _gathered(job: Job, seed: int, config: ExamplesConfig, stage: str) -> dict[str, Tensor]:
    """Return what one training says; with folds, models judge what they didn't train on."""
    examples = job.data.train
    if config.recording is not None:
        evidence = recorded_evidence(Path(config.recording), examples)
        return evidence | ({"label": examples.targets.cpu()} if "label" in evidence_read(config) else {})
    evidence = watch_training(job, seed, config, examples, stage)
    if config.relabel is not None and config.folds > 1:
        settings = job.recipe.train.model_copy(update={"epochs": config.epochs})
        evidence["probability"] = unseen_probabilities(job, seed, config.folds, settings, stage)
    return evidence


def watch_training(job: Job, seed: int, config: ExamplesConfig, examples: Examples, stage: str) -> dict[str, Tensor]:
    """Train a fresh model briefly on ``examples`` while a recorder watches, and return all that a section reads of it.

    The loss is minimised, never a training step of the user's: that shows no outputs to record.
    """
    settings = job.recipe.train.model_copy(update={"epochs": config.epochs})
    recorder = ExampleRecorder(len(examples), examples.task)
    model, read = job.build(seed).to(job.device), evidence_read(config)
    states: list[dict[str, Tensor]] = []
    marked = {-(-settings.epochs * part // _CHECKPOINTS) for part in range(1, _CHECKPOINTS + 1)}

    def after_epoch(done: int) -> None:
        if done in marked and read & INFLUENCE_NEEDS:
            states.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    train(
        model,
        examples,
        settings,
        seed=seed,
        stage=stage,
        loss=base_loss(job, settings),
        watch=recorder,
        after_epoch=after_epoch,
        listener=job.workspace.listener,
    )
    evidence = recorder.tensors()
    if config.relabel is not None or by_embedding(config) or "embedding" in read:
        evidence["embedding"] = embed(model, examples)
    if "label" in read:
        evidence["label"] = examples.targets.cpu()
    evidence |= gradient_evidence(model, examples, examples.task, read)
    if read & INFLUENCE_NEEDS:
        target, many = getattr(job.data, config.target), n_layers(model) >= _LAYERS
        layers = _LAYERS if many else None
        evidence |= influence_evidence(
            _loaded(model, states), examples, target, examples.task, layers=layers, seed=seed
        )
    return evidence


def n_layers(model: nn.Module) -> int:
    """Return how many linear and convolutional layers a model has."""
    return sum(isinstance(module, nn.Linear | _ConvNd) for module in model.modules())


def _loaded(model: nn.Module, states: list[dict[str, Tensor]]) -> Iterator[nn.Module]:
    """Yield a copy of the model as it was at each of its states."""
    copy = duplicate(model)
    for state in states:
        copy.load_state_dict(state)
        yield copy
