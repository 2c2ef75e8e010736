"""How are parameters trained: the one loop for dense training, evidence, sparsity, fine-tuning and distilling.

Every epoch draws its order and its dropout from seeds named after the stage and the epoch, so an epoch depends only on
the state before it: a training that is resumed equals one that never stopped, bit for bit on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import Optimizer

from prunus.core.errors import DataError, ModelError, RecipeError, RunError
from prunus.core.events import Listener, silent
from prunus.core.recipes.recipe import Train
from prunus.core.runtime import device_of
from prunus.recover.training.history import History
from prunus.recover.training.loop import Here, Remembers, Training, run_training
from prunus.recover.training.losses import Loss, TrainingStep, default_loss
from prunus.recover.training.mixed_precision import check_precision
from prunus.recover.training.ranks.fsdp import Sharded, check_shards
from prunus.recover.training.ranks.meeting import Meeting, current, is_lost
from prunus.recover.training.ranks.parcel import pack, send, unpack
from prunus.recover.training.ranks.together import Alone, Together
from prunus.recover.training.training_state import Checkpoint, fingerprint

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

    Watch = Callable[[int, Batch, Any], None]
else:
    Watch = Callable[..., None]

__all__ = ["together", "train"]


def train(
    model: nn.Module,
    examples: Examples,
    config: Train,
    *,
    seed: int,
    stage: str,
    loss: Loss | None = None,
    training_step: TrainingStep | None = None,
    after_step: Callable[[], None] | None = None,
    on_optimizer: Callable[[Optimizer], None] | None = None,
    watch: Watch | None = None,
    after_epoch: Callable[[int], bool | None] | None = None,
    epochs: tuple[int, int] | None = None,
    still: tuple[str, ...] = (),
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 2.0,
    listener: Listener = silent,
) -> History:
    """Train ``model`` in place, leave it in evaluation mode, and return its learning curve.

    Args:
        loss: default: cross-entropy with ``config.label_smoothing``, or mean squared error.
        training_step: instead of the loss: ``(model, batch) -> loss``. Its outputs aren't seen, so the history has no accuracy.
        after_step: called after every optimizer step.
        on_optimizer: gets the optimizer before the first step, to hook into its steps.
        watch: gets (epoch, batch, detached outputs) at every step. If it has ``state_dict`` and ``load_state_dict``, its
            state goes through the checkpoint; otherwise ``checkpoint`` isn't used, as half of what it saw would be lost.
        after_epoch: gets the number of epochs that are done, after each of this process, before the checkpoint is written; where it
            returns True the training is over, and what it left in the model is the result: nothing is averaged.
        epochs: (first, end): only these of ``config.epochs``, at their place in the learning rate's course; averaging is left
            to the part that ends the training.
        still: names of the model's parts that stay in evaluation mode; what isn't there (any more) has no say.
        checkpoint: a file to go on from after a kill, written at most every ``checkpoint_every_s`` seconds at the end of an
            epoch. The caller removes it once the result is safe.

    Raises:
        DataError: no examples.
        RecipeError: a precision that the model's device doesn't train in; a ``watch`` of a ``training_step``.
        ModelError: nothing can be trained, or the loss doesn't depend on the parameters.
        RunError: the loss or a parameter became NaN or infinite; the model is as it was after the last good epoch (one whose loss
            hadn't doubled since the first step), and the ``checkpoint`` goes on from there at a tenth of the learning rate.
        OutputError: the checkpoint can't be written.
    """
    first, end = epochs or (0, config.epochs)
    if first >= end:
        model.eval()
        return History()
    if len(examples) == 0:
        raise DataError(f"{stage}: training needs at least one example, got 0: keep more of them")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError(f"{stage}: the model has no parameter that can be trained (requires_grad): got 0")
    if watch is not None and training_step is not None:
        raise RecipeError(f"{stage}: a training_step shows no outputs to watch: give a loss instead")
    if watch is not None and not isinstance(watch, Remembers):
        checkpoint = None
    check_precision(config.precision, device_of(model))
    identity = "" if checkpoint is None else fingerprint(model, examples, config, seed=seed, stage=stage)
    loss = loss or default_loss(examples.task, config.label_smoothing)
    kept = Checkpoint(checkpoint, identity, every_s=checkpoint_every_s)
    training = Training(
        model,
        examples,
        config,
        seed,
        stage,
        loss,
        training_step,
        on_optimizer,
        (first, end),
        watch is not None,
        checkpoint is not None,
        _resumed(model, kept.load()),
        still=still,
    )
    here = Here(after_step, after_epoch, watch, kept, listener)
    return _lead(training, here) if current() is not None else run_training(training, here, Alone())


def together(training: Training, meeting: Meeting) -> Together:
    """Return how this process takes part in a training."""
    return Sharded(meeting) if training.sharding == "fsdp" else Together(meeting)


def _resumed(model: nn.Module, state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Give ``model`` the weights of a kept state, and return what else it holds."""
    if state is None:
        return None
    model.load_state_dict(state["model"])
    return {**state, "model": None}


def _lead(training: Training, here: Here) -> History:
    """Train together with the others of the meeting that this process leads.

    Raises:
        RecipeError: a batch has fewer examples than there are processes.
        RunError: another process failed or is gone.
    """
    meeting = current()
    assert meeting is not None
    n_ranks = meeting.place.n_ranks
    if training.config.batch_size < n_ranks:
        raise RecipeError(
            f"{training.stage}: each rank needs an example of every batch: got batch_size {training.config.batch_size} for "
            f"{n_ranks} ranks; raise it, or start fewer"
        )
    sharded = meeting.sharding == "fsdp"
    if sharded:
        check_shards(training.config, training.on_optimizer, training.stage)
    parcel = pack(replace(training, sharding=meeting.sharding), meeting.known)
    meeting.call()
    try:
        send(parcel)
        own = unpack(parcel, meeting.known) if sharded else training
        return run_training(own, here, together(own, meeting), training.model)
    except Exception as error:
        if is_lost(error):
            said = meeting.failure() or "another rank is gone"
            raise RunError(f"{training.stage}: {said}; what is done is kept, --resume goes on from there") from error
        raise
