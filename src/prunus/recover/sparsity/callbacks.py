"""How does pruning go along with Hugging Face's ``Trainer`` and with Lightning?

Both callbacks are thin: they tell :class:`GradualPruning` how far the training is. Neither library is imported, so neither is
needed; events that don't matter here are answered by doing nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from torch import nn

from prunus.core.errors import RunError
from prunus.recover.sparsity.gradual import GradualPruning, check_options

__all__ = ["PrunusCallback", "PrunusLightningCallback"]

_log = logging.getLogger("prunus")


class _Callback:
    """Hold the options of :class:`GradualPruning` until there is a model, and its masks from then on."""

    def __init__(self, **options: Any) -> None:
        check_options(**options)  # a wrong setting is told here, not hours later
        self.options = options
        self.pruning: GradualPruning | None = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return _do_nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _begin(self, model: nn.Module, progress: float) -> None:
        self.pruning = GradualPruning(model, **self.options)
        self.pruning.at(progress)

    def _step(self, progress: float) -> None:
        assert self.pruning is not None
        self.pruning.at(progress)

    def _end(self) -> None:
        assert self.pruning is not None
        self.pruning.masks.enforce()
        if not self.pruning.is_done:
            _log.warning(
                "the training ended after %d of %d rounds of pruning: %.1f %% of the weights stay; train longer, or lower until",
                self.pruning.n_done,
                len(self.pruning.fractions),
                100 * self.pruning.keep_fraction,
            )


class PrunusCallback(_Callback):
    """A callback for ``transformers.Trainer``: prunes on a schedule and holds the zeros after every optimizer step.

    Takes the options of :class:`GradualPruning`; without any it holds the zeros that the model came with::

        Trainer(model, arguments, train_dataset=data, callbacks=[PrunusCallback(keep_fraction=0.2)]).train()

    Raises:
        RecipeError: settings that contradict each other or are out of range.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **others: Any) -> None:
        """Start, or go on from a checkpoint of the trainer's."""
        self._begin(model, state.global_step / max(state.max_steps, 1))

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Cut what is due and hold the zeros; comes after the optimizer's step, before anything is saved."""
        self._step(state.global_step / max(state.max_steps, 1))

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Hold the zeros, also of a best model that was loaded at the end."""
        self._end()


class PrunusLightningCallback(_Callback):
    """The same for ``lightning.Trainer``: ``Trainer(max_epochs=5, callbacks=[PrunusLightningCallback(granularity="2:4")])``.

    Raises:
        RecipeError: settings that contradict each other or are out of range.
        RunError: (when training starts) the trainer doesn't know how many steps it will take.
    """

    state_key = "PrunusLightningCallback"

    def setup(self, trainer: Any, module: nn.Module, stage: str) -> None:
        """Do nothing."""

    def teardown(self, trainer: Any, module: nn.Module, stage: str) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the zeros are in the weights."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    def on_train_start(self, trainer: Any, module: nn.Module) -> None:
        """Start, or go on from a checkpoint."""
        self._begin(module, self._progress(trainer))

    def on_train_batch_end(self, trainer: Any, module: nn.Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Cut what is due and hold the zeros."""
        self._step(self._progress(trainer))

    def on_train_end(self, trainer: Any, module: nn.Module) -> None:
        """Hold the zeros."""
        self._end()

    def _progress(self, trainer: Any) -> float:
        total = float(trainer.estimated_stepping_batches)
        if not math.isfinite(total):
            raise RunError(
                f"a schedule needs the number of training steps: got {total}; give the trainer max_steps or max_epochs"
            )
        return float(trainer.global_step / max(total, 1))


def _do_nothing(*_: Any, **__: Any) -> None:
    """Answer an event that doesn't matter here."""
