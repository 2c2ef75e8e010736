"""How are parameters trained: the one loop for dense training, evidence, sparsity, fine-tuning and distilling.

Every epoch draws its order and its dropout from seeds named after the stage and the epoch, so an epoch depends only on
the state before it: a training that is resumed equals one that never stopped, bit for bit on one thread.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.core.errors import DataError, ModelError, RunError
from prunus.core.events import Event, Listener, silent
from prunus.core.recipe import Average, Train
from prunus.core.runtime import generator, seeded
from prunus.recover.average import Running, make_average, recompute_batch_norm
from prunus.recover.batches import n_training_batches, training_batches
from prunus.recover.checkpoint import Checkpoint, fingerprint
from prunus.recover.history import History
from prunus.recover.losses import Loss, default_loss
from prunus.recover.optimizers import clip_gradients, learning_rate, make_optimizer

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

    Watch = Callable[[int, Batch, Tensor], None]
else:
    Watch = Callable[..., None]

__all__ = ["train"]


def train(
    model: nn.Module,
    examples: Examples,
    config: Train,
    *,
    seed: int,
    stage: str,
    loss: Loss | None = None,
    after_step: Callable[[], None] | None = None,
    on_optimizer: Callable[[Optimizer], None] | None = None,
    watch: Watch | None = None,
    after_epoch: Callable[[int], None] | None = None,
    epochs: tuple[int, int] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 2.0,
    listener: Listener = silent,
) -> History:
    """Train ``model`` in place, leave it in evaluation mode, and return its learning curve.

    Args:
        loss: default: cross-entropy with ``config.label_smoothing``, or mean squared error.
        after_step: called after every optimizer step.
        on_optimizer: gets the optimizer before the first step, to hook into its steps.
        watch: gets (epoch, batch, detached outputs) at every step. If it has ``state_dict`` and ``load_state_dict``, its
            state goes through the checkpoint; otherwise ``checkpoint`` isn't used, as half of what it saw would be lost.
        after_epoch: gets the number of epochs that are done, after each of this process, before the checkpoint is written.
        epochs: (first, end): only these of ``config.epochs``, at their place in the learning rate's course; averaging is left
            to the part that ends the training.
        checkpoint: a file to go on from after a kill, written at most every ``checkpoint_every_s`` seconds at the end of an
            epoch. The caller removes it once the result is safe.

    Raises:
        DataError: no examples.
        ModelError: nothing can be trained, or the loss doesn't depend on the parameters.
        RunError: the loss or a parameter became NaN or infinite; the model is as it was after the last good epoch.
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
    if watch is not None and not isinstance(watch, _Remembers):
        checkpoint = None
    identity = "" if checkpoint is None else fingerprint(model, examples, config, seed=seed, stage=stage)
    optimizer = make_optimizer(parameters, config)
    if on_optimizer is not None:
        on_optimizer(optimizer)
    loop = _Loop(
        model,
        examples,
        config,
        seed,
        stage,
        loss or default_loss(examples.task, config.label_smoothing),
        after_step,
        after_epoch,
        (first, end),
        watch,
        parameters,
        optimizer,
        make_average(parameters, config.average if end == config.epochs else Average(), config.epochs),
        n_training_batches(len(examples), config.batch_size),
    )
    try:
        return loop.run(Checkpoint(checkpoint, identity, every_s=checkpoint_every_s), listener)
    finally:
        model.eval()


@runtime_checkable
class _Remembers(Protocol):
    """A watcher whose memory can be saved."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass
class _Loop:
    model: nn.Module
    examples: Examples
    config: Train
    seed: int
    stage: str
    loss: Loss
    after_step: Callable[[], None] | None
    after_epoch: Callable[[int], None] | None
    span: tuple[int, int]
    watch: Watch | None
    parameters: Sequence[nn.Parameter]
    optimizer: Optimizer
    average: Running
    n_batches: int

    def run(self, checkpoint: Checkpoint, listener: Listener) -> History:
        epochs = self.config.epochs
        start, history = self._resume(checkpoint.load())
        good = copy.deepcopy(self.model.state_dict())
        for epoch in range(start, self.span[1]):
            with torch.enable_grad(), seeded(self.seed, self.stage, "epoch", epoch):
                losses, sizes, n_right = self._epoch(epoch)
            self._check(losses, epoch, good)
            self.average.after_epoch(epoch)
            history = _extended(history, losses, sizes, n_right)
            _keep(self.model.state_dict(), good)
            if self.after_epoch is not None:
                self.after_epoch(epoch + 1)
            checkpoint.save(self._state(epoch + 1, history))
            listener(_progress(self.stage, epoch + 1, epochs, history))
        if self.average.finish():
            order = generator(self.seed, self.stage, "batch norm")
            recompute_batch_norm(self.model, self.examples, batch_size=self.config.batch_size, generator=order)
        return history

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take one pass; return each step's loss and size, and the number of right answers (None: no classes)."""
        self.model.train()
        losses: list[Tensor] = []
        sizes: list[int] = []
        right: list[Tensor] = []
        n_steps = self.n_batches * self.config.epochs
        classify = self.examples.task == "classification"
        order = generator(self.seed, self.stage, "order", epoch)
        for number, batch in enumerate(training_batches(self.examples, self.config.batch_size, order)):
            rate = learning_rate(self.config, epoch * self.n_batches + number, n_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            outputs = self._forward(batch)
            value = self.loss(outputs, batch)
            if not losses:
                _check_loss(value, self.stage)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            if self.config.clip_norm is not None:
                clip_gradients(self.parameters, self.config.clip_norm)
            self.optimizer.step()
            if self.after_step is not None:
                self.after_step()
            self.average.after_step()
            seen = outputs.detach()
            if self.watch is not None:
                self.watch(epoch, batch, seen)
            losses.append(value.detach())
            sizes.append(len(batch.targets))
            if classify and seen.ndim == 2:
                right.append((seen.argmax(dim=1) == batch.targets).sum())
        return torch.stack(losses), torch.tensor(sizes), torch.stack(right).sum() if right else None

    def _forward(self, batch: Batch) -> Tensor:
        try:
            outputs = self.model(batch.inputs)
        except ValueError as error:
            if "more than 1 value per channel" in str(error):
                raise ModelError(
                    f"{self.stage}: batch norm can't train on a batch of one example: got batch_size {self.config.batch_size} "
                    f"and {len(self.examples)} examples; use a batch_size of at least 2 and more examples"
                ) from error
            raise
        if not isinstance(outputs, Tensor):
            raise ModelError(
                f"{self.stage}: the model must return one tensor, got {type(outputs).__name__}; wrap it in a module"
            )
        return outputs

    def _check(self, losses: Tensor, epoch: int, good: dict[str, Any]) -> None:
        """Raise and go back to the last good epoch when a loss or a parameter isn't finite; looked at once per epoch."""
        finite = losses.isfinite()
        with torch.no_grad():
            sound = nn.utils.get_total_norm(self.parameters).isfinite()
        if bool(finite.all() & sound):
            return
        step = int(finite.long().argmin()) if not bool(finite.all()) else len(losses) - 1
        rate = learning_rate(self.config, epoch * self.n_batches + step, self.n_batches * self.config.epochs)
        what = (
            f"the loss became {float(losses[step])}" if not bool(finite.all()) else "a parameter became NaN or infinite"
        )
        _keep(good, self.model.state_dict())
        raise RunError(
            f"{self.stage}: {what} in epoch {epoch + 1} of {self.config.epochs}, step {step + 1} of {self.n_batches}, at learning "
            f"rate {rate:.3g}: lower the learning_rate, set clip_norm, or look for extreme values in the data; "
            f"the model is back at {'its start' if epoch == 0 else f'the end of epoch {epoch}'}"
        )

    def _state(self, epoch: int, history: History) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state(),
            "history": {"loss": list(history.loss), "accuracy": list(history.accuracy)},
            "watch": self.watch.state_dict() if isinstance(self.watch, _Remembers) else {},
        }

    def _resume(self, state: dict[str, Any] | None) -> tuple[int, History]:
        if state is None:
            return self.span[0], History()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])
        if isinstance(self.watch, _Remembers):
            self.watch.load_state_dict(state["watch"])
        return int(state["epoch"]), History(tuple(state["history"]["loss"]), tuple(state["history"]["accuracy"]))


def _keep(source: dict[str, Any], target: dict[str, Any]) -> None:
    """Copy the tensors of one state dict into another's, in place."""
    with torch.no_grad():
        for name, value in source.items():
            if isinstance(value, Tensor):
                target[name].copy_(value)


def _check_loss(value: Tensor, stage: str) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ModelError(f"{stage}: the loss must be one number (a tensor with one element), got {got}")
    if not value.requires_grad:
        raise ModelError(
            f"{stage}: the loss doesn't depend on any parameter that can be trained (it has no gradient): "
            "look for a detach(), no_grad() or argmax in the model or the loss"
        )


def _extended(history: History, losses: Tensor, sizes: Tensor, n_right: Tensor | None) -> History:
    """Return ``history`` with the epoch's means: one transfer from the device for all of it."""
    sizes = sizes.to(losses.device)
    mean = float((losses.flatten().double() * sizes).sum() / sizes.sum())
    accuracy = () if n_right is None else (float(n_right) / int(sizes.sum()),)
    return History((*history.loss, mean), (*history.accuracy, *accuracy))


def _progress(stage: str, done: int, total: int, history: History) -> Event:
    facts = {"loss": history.loss[-1]}
    message = f"epoch {done} of {total}: loss {history.loss[-1]:.4g}"
    if history.accuracy:
        facts["accuracy"] = history.accuracy[-1]
        message += f", accuracy {history.accuracy[-1]:.1%}"
    return Event("progress", stage, message, done, total, facts)
