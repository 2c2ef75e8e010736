"""How does the one training loop go through its epochs, and who decides what after each of them?

Every epoch draws its order and its dropout from seeds named after the stage and the epoch, so an epoch depends only on
the state before it: a training that is resumed equals one that never stopped, bit for bit on one thread.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.core.calls import answer
from prunus.core.errors import RunError
from prunus.core.events import Event, Listener, silent
from prunus.core.recipes.recipe import Average, Train
from prunus.core.runtime import device_of, generator, seeded
from prunus.recover.training.average import Running, make_average, recompute_batch_norm
from prunus.recover.training.history import History
from prunus.recover.training.losses import Loss, TrainingStep
from prunus.recover.training.mixed_precision import make_precision
from prunus.recover.training.optimizers import learning_rate, make_optimizer
from prunus.recover.training.ranks.together import Alone
from prunus.recover.training.step import Stepper
from prunus.recover.training.step_values import StepValues
from prunus.recover.training.training_batches import n_training_batches, training_batches
from prunus.recover.training.training_state import Checkpoint
from prunus.recover.training.turns import InTurns, Yardstick, n_turns_of

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

    Watch = Callable[[int, Batch, Any], None]
else:
    Watch = Callable[..., None]

__all__ = ["Here", "Remembers", "Training", "run_training"]

LOWER = 0.1
"""How much of the learning rate a training that diverged goes on with."""


@runtime_checkable
class Remembers(Protocol):
    """A watcher whose memory can be saved."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it saw."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Go on from what it saw."""
        ...


@dataclass(frozen=True)
class Training:
    """What is trained, and how: all that each process needs to know where several train together.

    ``state`` is what a resumed training goes on from; the model has its weights of then already.
    """

    model: nn.Module
    examples: Examples
    config: Train
    seed: int
    stage: str
    loss: Loss
    training_step: TrainingStep | None
    on_optimizer: Callable[[Optimizer], None] | None
    span: tuple[int, int]
    watched: bool
    kept: bool
    state: dict[str, Any] | None = None
    sharding: Literal["ddp", "fsdp"] = "ddp"
    still: tuple[str, ...] = ()


@dataclass(frozen=True)
class Here:
    """What belongs to the one process that decides: who looks on, who is told, where the state is kept."""

    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[int], bool | None] | None = None
    watch: Watch | None = None
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(None, "", every_s=0.0))
    listener: Listener = silent


def run_training(training: Training, here: Here, ranks: Alone, whole: nn.Module | None = None) -> History:
    """Train on this process, alone or together with others.

    Args:
        whole: on rank 0 the model that is to have the whole weights, if the training's own is put into parts.
    """
    model, config = training.model, training.config
    whole = model if whole is None else whole
    ranks.shard(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    parameters = list(ranks.parts(parameters))
    optimizer = make_optimizer(parameters, config)
    if training.on_optimizer is not None:
        training.on_optimizer(optimizer)
    averages = training.span[1] == config.epochs and (ranks.rank == 0 or ranks.sharded)
    average = config.average if averages else Average()
    loop = _Loop(
        Stepper(
            model,
            config,
            training.stage,
            training.loss,
            training.training_step,
            parameters,
            optimizer,
            make_precision(config.precision, device_of(model)),
            ranks,
            training.still,
        ),
        training,
        here,
        ranks,
        make_average(parameters, average, config.epochs),
        n_training_batches(len(training.examples), config.batch_size * config.accumulate),
        whole,
    )
    try:
        return loop.run()
    finally:
        model.eval()
        whole.eval()


@dataclass
class _Loop:
    stepper: Stepper
    training: Training
    here: Here
    ranks: Alone
    average: Running
    n_batches: int
    model: nn.Module
    rate_factor: float = 1.0
    ended: bool = False

    def __post_init__(self) -> None:
        self.config, self.stage = self.stepper.config, self.stepper.stage
        self.yardstick = Yardstick(n_turns_of(self.stepper.model))
        self.seed, self.examples, self.watch = self.training.seed, self.training.examples, self.here.watch
        self.good: dict[str, Any] = {}
        self.whole: dict[str, Any] = {}

    def run(self) -> History:
        start, history = self._resume(self.training.state)
        self._gather()
        if self.ranks.rank == 0:
            # What was stopped on its way to infinity goes back as far as if it hadn't been.
            self.good = (self.training.state or {}).get("good") or self._good(start, history)
        others = () if self.ranks.rank == 0 else ("rank", self.ranks.rank)
        for epoch in range(start, start if self.ended else self.training.span[1]):
            self._begin_yardstick(epoch, others)
            with torch.enable_grad(), seeded(self.seed, self.stage, "epoch", epoch, *others):
                losses, sizes, n_right = self._epoch(epoch)
            self.average.after_epoch(epoch)
            self._gather()
            if self.ranks.rank == 0:
                history = self._look(epoch, losses, sizes, _extended(history, losses, sizes, n_right))
                if self.ended:
                    break
            elif not self.ranks.hears():
                return history
        if self.ended:
            return history
        changed = self.average.finish()
        if changed:
            self._gather()
        if changed and self.ranks.rank == 0:
            order = generator(self.seed, self.stage, "batch norm")
            recompute_batch_norm(
                self.model, self.examples, batch_size=self.config.batch_size, generator=order, still=self.training.still
            )
        return history

    def _gather(self) -> None:
        """Bring together on rank 0 what lies in parts: the model, and what is kept of the training beside it."""
        optimizer = self.stepper.optimizer if self.training.kept else None
        self.whole = self.ranks.gather(self.stepper.model, optimizer, self.average.state())
        if self.ranks.sharded and self.ranks.rank == 0:
            self.model.load_state_dict(self.whole["model"])

    def _look(self, epoch: int, losses: Tensor, sizes: Tensor, history: History) -> History:
        """Decide after an epoch whether it goes on, keep what is to be kept, and tell all others."""
        try:
            problem = self._problem(losses, epoch)
            if problem:
                raise RunError(f"{problem}; {self._go_back(self.good, self.here.checkpoint)}")
            if self.yardstick.is_sound(losses, sizes, epoch * self.n_batches):
                self.good = self._good(epoch + 1, history, self.good)
            self.ended = self.here.after_epoch is not None and bool(self.here.after_epoch(epoch + 1))
            self.here.checkpoint.save(self._state(epoch + 1, history), now=self.ended)
            self.here.listener(_progress(self.stage, epoch + 1, self.config.epochs, history))
        except BaseException:
            self.ranks.says(goes_on=False)
            raise
        self.ranks.says(goes_on=not self.ended)
        return history

    def _begin_yardstick(self, epoch: int, others: tuple[Any, ...]) -> None:
        """See the loss of each of several models before the first step, after which their weights have moved."""
        if self.yardstick.first or self.yardstick.n_turns == 1:
            return
        self.stepper.begin()
        order = generator(self.seed, self.stage, "order", epoch)
        with seeded(self.seed, self.stage, "first losses", *others):
            batch = next(iter(training_batches(self.examples, self.config.batch_size * self.config.accumulate, order)))

            def loss_of(turn: int) -> float:
                self._begin_step(turn)
                return self.stepper.look(batch)

            self.yardstick.begin(loss_of)

    def _begin_step(self, number: int) -> None:
        if isinstance(self.stepper.model, InTurns):
            self.stepper.model.begin_step(number)

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take one pass; return each step's loss and size, and the number of right answers (None: no classes)."""
        self.stepper.begin()
        losses, right = StepValues(), StepValues()
        sizes: list[int] = []
        classify = self.examples.task.exclusive
        order = generator(self.seed, self.stage, "order", epoch)
        step_size = self.config.batch_size * self.config.accumulate

        def see(part: Batch, outputs: Any, n: int) -> None:
            if self.training.watched and (whole := self.ranks.gathered(part, outputs, n)) is not None:
                assert self.watch is not None
                self.watch(epoch, *whole)
            if classify and (scores := answer(outputs)).ndim == 2:
                right.append((scores.argmax(dim=1) == part.targets.reshape(-1))[:n].sum())

        for number, batch in enumerate(training_batches(self.examples, step_size, order)):
            self._begin_step(epoch * self.n_batches + number)
            value = self.stepper.take(batch, self._rate(epoch, number), see, check=not losses)
            if self.here.after_step is not None:
                self.here.after_step()
            self.average.after_step()
            losses.append(value)
            sizes.append(len(batch.index))
        n_right = self.ranks.total(right.whole().sum()) if right else None
        return self.ranks.total(losses.whole()), torch.tensor(sizes), n_right

    def _rate(self, epoch: int, step: int) -> float:
        n_steps = self.n_batches * self.config.epochs
        return self.rate_factor * learning_rate(self.config, epoch * self.n_batches + step, n_steps)

    def _problem(self, losses: Tensor, epoch: int) -> str:
        """Say where a loss or a parameter isn't finite, or nothing; looked at once per epoch."""
        finite = losses.isfinite()
        with torch.no_grad():
            learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            sound = nn.utils.get_total_norm(learnt).isfinite()
        if bool(finite.all() & sound):
            return ""
        step = int(finite.long().flatten().argmin()) if not bool(finite.all()) else len(losses) - 1
        what = (
            f"the loss became {float(losses[step])}" if not bool(finite.all()) else "a parameter became NaN or infinite"
        )
        of_batch = " or for a batch of which the loss is 0 / 0 (class weights of zero)" if losses.isnan().any() else ""
        return (
            f"{self.stage}: {what} in epoch {epoch + 1} of {self.config.epochs}, step {step + 1} of {self.n_batches}, at learning "
            f"rate {self._rate(epoch, step):.3g}: lower the learning_rate, set clip_norm, or look for extreme values in the data"
            f"{of_batch}"
        )

    def _go_back(self, good: dict[str, Any], checkpoint: Checkpoint) -> str:
        """Put the last good state back, keep it for a resume at a lower learning rate, and say so."""
        _keep(good["model"], self.model.state_dict())
        epoch = good["epoch"]
        where = f"the model is back at {'its start' if epoch == 0 else f'the end of epoch {epoch}'}"
        if checkpoint.path is None or self.watch is not None:  # what a watcher saw of the bad epoch can't be taken back
            return where
        self.rate_factor *= LOWER
        # Moments that may hold infinities don't go along.
        checkpoint.save({**self._state(epoch, History()), **good, "optimizer": None, "precision": {}}, now=True)
        return f"{where}, and a resume goes on from there with the learning rate times {self.rate_factor:.3g}"

    def _good(self, epoch: int, history: History, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return a copy of what a step changes, in the memory of the copy ``before`` where that can be."""
        if before is None:
            model = copy.deepcopy(self.model.state_dict())
        else:
            model = before["model"]
            _keep(self.model.state_dict(), model)
        average = copy.deepcopy(self.whole["average"])
        kept = {"average": average, "history": history.to_dict(), "yardstick": self.yardstick.state()}
        return {"epoch": epoch, "model": model, **kept}

    def _state(self, epoch: int, history: History) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "n_ranks": self.ranks.n_ranks,
            "model": self.model.state_dict(),
            "optimizer": self.whole["optimizer"],
            "precision": self.stepper.precision.state(),
            "average": self.whole["average"],
            "rate_factor": self.rate_factor,
            "yardstick": self.yardstick.state(),
            "good": None if self.good["epoch"] == epoch else self.good,
            "ended": self.ended,
            "history": history.to_dict(),
            "watch": self.watch.state_dict() if isinstance(self.watch, Remembers) else {},
        }

    def _resume(self, state: dict[str, Any] | None) -> tuple[int, History]:
        if state is None:
            return self.training.span[0], History()
        state = self.ranks.spread(state, self.stepper.optimizer)
        if state["optimizer"] is not None:
            self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.stepper.precision.load(state["precision"])
        if state["average"]:
            self.average.load(state["average"])
        self.rate_factor = float(state["rate_factor"])
        if "yardstick" in state:  # a version before kept another
            self.yardstick.load(state["yardstick"])
        self.ended = bool(state.get("ended", False))
        if isinstance(self.watch, Remembers):
            self.watch.load_state_dict(state["watch"])
        if state["optimizer"] is None:
            text = f"it diverged before: goes on after epoch {state['epoch']} with the learning rate times {self.rate_factor:.3g}"
            self.here.listener(Event("note", self.stage, text))
        if (n_before := state.get("n_ranks", self.ranks.n_ranks)) != self.ranks.n_ranks:
            text = (
                f"the number of ranks was {n_before} and is {self.ranks.n_ranks}: it goes on after epoch {state['epoch']} with the "
                "same batches and learning rate, and adds up in another order"
            )
            self.here.listener(Event("note", self.stage, text))
        return int(state["epoch"]), History(tuple(state["history"]["loss"]), tuple(state["history"]["accuracy"]))


def _keep(source: dict[str, Any], target: dict[str, Any]) -> None:
    """Copy the tensors of one state dict into another's, in place."""
    with torch.no_grad():
        for name, value in source.items():
            if isinstance(value, Tensor):
                target[name].copy_(value)


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
