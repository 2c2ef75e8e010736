"""How does a recording go along with Hugging Face's ``Trainer`` and with Lightning?

Neither shows the model's outputs to its callbacks, so they are taken where they come from: a hook on the model, which is there
from the first step of the training to its last. Neither library is imported; events that don't matter here are answered by doing
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from prunus.core.calls import map_tensors
from prunus.core.errors import DataError, RecipeError
from prunus.score.examples.recording.recording import Recording

__all__ = ["RecordingCallback", "RecordingLightningCallback"]


class _Callback:
    """Hold a recording, and the hooks while a training lasts."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._hooks: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return _do_nothing
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _end(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self.recording.close()


class RecordingCallback(_Callback):
    """A callback for ``transformers.Trainer``: records every batch that is trained on.

    The data set has a column ``index``, the examples' positions, and the trainer must not take it away; the model doesn't see it::

        data = data.add_column("index", range(len(data)))
        arguments = TrainingArguments(..., remove_unused_columns=False)
        Trainer(model, arguments, train_dataset=data, callbacks=[RecordingCallback(recording)]).train()

    Args:
        recording: where to.
        targets: the target of every example, ``(n_examples, ...)``; None: what the batch has under ``label``.
        index: the column's name.
        label: the name of the targets in the batch, where the model gets them.

    Raises:
        RecipeError: (when training starts) the trainer takes the column away, or shares a batch among GPUs in one process.
        DataError: (in training) a batch without positions or targets.
    """

    def __init__(
        self, recording: Recording, *, targets: Tensor | None = None, index: str = "index", label: str = "labels"
    ) -> None:
        super().__init__(recording)
        self.targets, self.index, self.label = targets, index, label
        self._epoch = 0
        self._places: Tensor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **others: Any) -> None:
        """Begin to listen to the model."""
        if getattr(args, "remove_unused_columns", False):
            raise RecipeError(
                f"the trainer would take the column {self.index!r} away: give TrainingArguments(remove_unused_columns=False)"
            )
        if getattr(args, "n_gpu", 1) > 1:
            raise RecipeError(
                f"one process would share its batches among {args.n_gpu} GPUs, so that nobody knows which example is where: start "
                "one process for each, with torchrun"
            )
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True),
        ]

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Remember the epoch; one that is gone on with after its middle is still that one."""
        self._epoch = int((state.epoch or 0) + 1e-6)

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Have everything on disk that a checkpoint counts on."""
        self.recording.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Listen no longer."""
        self._end()

    def _before(self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self._places = named.get(self.index)
        return positional, {name: value for name, value in named.items() if name != self.index}

    def _after(self, module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], outputs: Any) -> None:
        if not module.training:
            return
        if self._places is None:
            raise DataError(
                f"a batch came without {self.index!r}: give the training set a column of positions under this name"
            )
        targets = named.get(self.label) if self.targets is None else _rows(self.targets, self._places)
        if targets is None:
            raise DataError(
                f"a batch came without {self.label!r}: give targets=, those of all examples, to the callback"
            )
        self.recording(self._epoch, self._places, outputs, targets)


class RecordingLightningCallback(_Callback):
    """The same for ``lightning.Trainer``: records every batch that is trained on.

    Outputs are the ``logits`` that ``training_step`` returns beside its ``loss``, else what the module (or the part of it called
    ``module``) answered in it. A batch is a mapping with ``index`` and ``labels``, or (inputs, targets, index)::

        Trainer(max_epochs=5, callbacks=[RecordingLightningCallback(recording, module="net")]).fit(model, loader)

    Args:
        recording: where to.
        module: the name of the part whose answers are recorded; "": the Lightning module itself.
        index: a function of a batch that returns the positions; None: as above.
        targets: likewise.

    Raises:
        RecipeError: (when training starts) there is no such part.
        DataError: (in training) no outputs were seen, or the batch has no positions or targets.
    """

    state_key = "RecordingLightningCallback"

    def __init__(
        self,
        recording: Recording,
        *,
        module: str = "",
        index: Callable[[Any], Any] | None = None,
        targets: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(recording)
        self.module, self.index, self.targets = module, index or _index_in, targets or _targets_in
        self._seen: Any = None

    def setup(self, trainer: Any, module: nn.Module, stage: str) -> None:
        """Do nothing."""

    def teardown(self, trainer: Any, module: nn.Module, stage: str) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: what was recorded is on disk."""
        self.recording.flush()
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    def on_train_start(self, trainer: Any, module: nn.Module) -> None:
        """Begin to listen to the model."""
        named = dict(module.named_modules())
        if self.module not in named:
            known = ", ".join(name for name in named if name and "." not in name)
            raise RecipeError(f"the module has no part {self.module!r}: expected one of {known}")
        self._hooks = [named[self.module].register_forward_hook(self._after)]

    def on_train_batch_end(self, trainer: Any, module: nn.Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record what was answered."""
        said = outputs.get("logits") if isinstance(outputs, Mapping) else None
        seen, self._seen = (self._seen if said is None else said), None
        if seen is None:
            raise DataError(
                'no outputs were seen in training_step: return {"loss": loss, "logits": logits} from it, or name the part that '
                'gives them, RecordingLightningCallback(recording, module="...")'
            )
        self.recording(trainer.current_epoch, self.index(batch), seen, self.targets(batch))

    def on_train_end(self, trainer: Any, module: nn.Module) -> None:
        """Listen no longer."""
        self._end()

    def _after(self, module: nn.Module, positional: tuple[Any, ...], outputs: Any) -> None:
        if module.training:
            self._seen = map_tensors(lambda value: value.detach(), outputs)


def _rows(targets: Tensor, places: Tensor) -> Tensor:
    return targets[places.to(targets.device)].to(places.device)


def _index_in(batch: Any) -> Any:
    if isinstance(batch, Mapping) and "index" in batch:
        return batch["index"]
    if isinstance(batch, (tuple, list)) and len(batch) == 3:
        return batch[2]
    raise DataError(
        "expected the positions of a batch's examples under 'index', or third: give index=, a function of the batch that gives them"
    )


def _targets_in(batch: Any) -> Any:
    for name in ("labels", "label", "targets", "target"):
        if isinstance(batch, Mapping) and name in batch:
            return batch[name]
    if isinstance(batch, (tuple, list)) and len(batch) == 3:
        return batch[1]
    raise DataError(
        "expected the targets of a batch under 'labels', or second: give targets=, a function of the batch that returns them"
    )


def _do_nothing(*_: Any, **__: Any) -> None:
    """Answer an event that doesn't matter here."""
