"""How is a training recorded, and which example of a recipe is which of a recording that somebody else made?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe import Examples as ExamplesConfig
from prunus.data import Examples
from prunus.pipeline.jobs.job import Job
from prunus.pipeline.jobs.objective import base_loss
from prunus.recover import train
from prunus.score import Recording

__all__ = ["check_recordable", "check_recorded", "places_in", "record_training", "recorded_evidence"]


def check_recordable(examples: Examples) -> None:
    """Refuse a task whose model tells the loss of a whole batch only.

    Raises:
        RecipeError: it does.
    """
    if examples.task.told_by_model:
        raise RecipeError(
            f"examples of the task {examples.task.name} can't be scored by a training: its model tells the loss of a whole batch, "
            "and none of an example"
        )


def record_training(job: Job, seed: int, epochs: int, folder: Path, stage: str) -> Recording:
    """Train a fresh model for so many epochs, record what it says of every example, and return the recording.

    A training that was killed goes on after its last whole epoch, and records the epochs again that come after it. The loss is
    minimised, never a training step of the user's: that shows no outputs to record.
    """
    examples = job.data.train
    recording = Recording(folder, n_examples=len(examples), task=examples.task, fingerprint=job.data.fingerprint)
    settings = job.recipe.train.model_copy(update={"epochs": epochs})
    model = job.build(seed).to(job.device)

    def fit(checkpoint: Path | None) -> dict[str, Any]:
        history = train(
            model,
            examples,
            settings,
            seed=seed,
            stage=stage,
            loss=base_loss(job, settings),
            watch=_Watch(recording),
            checkpoint=checkpoint,
            listener=job.workspace.listener,
        )
        recording.close()
        return history.to_dict()

    job.workspace.trained(stage, model, fit)
    return recording


class _Watch:
    """What ``train`` tells of each batch goes to the recording; on disk, so that a checkpoint needs to hold nothing of it."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def __call__(self, epoch: int, batch: Batch, outputs: Any) -> None:
        self.recording.watch(epoch, batch, outputs)

    def state_dict(self) -> dict[str, Any]:
        self.recording.flush()
        return {}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Do nothing: epochs that are trained again are recorded again."""


def places_in(recording: Recording, examples: Examples, labels: Tensor | None) -> Tensor:
    """Return where each training example stands in a recording: by its position, or by its row in the data where all are recorded.

    Args:
        recording: of the user's own training.
        examples: those of the recipe.
        labels: the classes that were recorded, where there are any.

    Raises:
        DataError: another number of examples, another task, or another label; the first example is named.
    """
    n, n_all = recording.n_examples, len(examples.source.ids)
    if n not in (len(examples), n_all):
        raise DataError(
            f"{recording.folder} records {n} examples: expected the {len(examples)} for training, or all {n_all} in the order of "
            "the data; use the data and the split that it was recorded with"
        )
    places = torch.arange(n) if n == len(examples) else examples.rows.cpu()
    if recording.task.exclusive != examples.task.exclusive:
        raise DataError(
            f"{recording.folder} is of the task {recording.header.task}: expected {examples.task.name}; set data.task"
        )
    known = examples.known_targets
    if labels is None or not examples.task.exclusive or known is None:
        return places
    said, true = labels[places], known.cpu()
    wrong = torch.nonzero((said != true) & (said >= 0)).flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{recording.folder}: example {examples.ids[first]!r} was recorded with class number {int(said[first])}, and the data "
            f"say {int(true[first])} ({len(wrong)} of {len(examples)} differ): it is of other data, or its index isn't their order"
        )
    return places


def check_recorded(config: ExamplesConfig, examples: Examples, by_embedding: bool) -> None:
    """Refuse what no recording tells, and a recording of other data, before anything is trained.

    Raises:
        RecipeError: something is asked that needs the model itself.
        DataError: it is of other data.
    """
    assert config.recording is not None
    if by_embedding or config.relabel is not None:
        raise RecipeError(
            "examples.recording: a recording holds no embedding and no gradient, which relabel, duplicates with space embedding "
            "and criteria of places and gradients read: leave recording out, use clean instead of relabel, or duplicates with "
            "space inputs"
        )
    _ = _placed(Recording(config.recording), examples)


def recorded_evidence(folder: Path, examples: Examples) -> dict[str, Tensor]:
    """Return what the user's own training recorded of the training examples, as criteria read it.

    Raises:
        DataError: it is of other data.
        RunError: an example that no epoch holds.
    """
    recording = Recording(folder)
    places = _placed(recording, examples)
    found = {name: value[places] for name, value in recording.tensors().items()}
    if examples.task.exclusive and "probability" not in found:
        found["probability"] = torch.from_numpy(recording.probabilities(0, recording.n_examples))[places]
    return found


def _placed(recording: Recording, examples: Examples) -> Tensor:
    labels = recording.scores(partial=True).labels
    return places_in(recording, examples, None if labels is None else torch.from_numpy(labels))
