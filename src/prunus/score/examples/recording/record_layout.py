"""How is what one epoch says of one example laid out in bytes?

A record is a row of 16-bit words, little-endian. The last one is a check over the others: a record that was never written (all
zeros) or only half (the process was killed) isn't taken for one. Numbers that outputs need are half precision; of classes they are
logits minus the largest one of the example, which changes no score and makes what is likely the most exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.errors import DataError, NotFiniteError, ShapeError
from prunus.score.examples.recording.judged import class_scores, judge, judge_classes
from prunus.tasks import Classification, MultiLabel, Regression, Task

__all__ = ["MANY_CLASSES", "TOP", "Kind", "Layout", "Packed", "Words", "checked", "layout_of"]

Kind = Literal["logits", "top", "margin", "loss"]
"""Of classes all logits, or the largest ones; of other tasks loss and margin, or the loss alone."""
Words = npt.NDArray[np.uint16]
MANY_CLASSES = 64
TOP = 16
_LARGEST = 65504.0
"""The largest number in half precision: what is further below the likeliest class has no probability anyway."""
_OF_TOP = ("own", "partition", "el2n", "entropy")


@dataclass(frozen=True)
class Packed:
    """What is taken from the outputs of a batch, still on their device: half-precision and single-precision numbers, and labels."""

    halves: Tensor | None = None
    singles: Tensor | None = None
    targets: Tensor | None = None
    classes: Tensor | None = None
    outputs: Any = None

    def tensors(self) -> dict[str, Tensor]:
        """Return those that there are."""
        named = {"halves": self.halves, "singles": self.singles, "targets": self.targets, "classes": self.classes}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Layout:
    """Which words a record has.

    Args:
        kind: what is kept.
        n_classes: of a task with classes.
        top: how many of the largest logits are kept, where not all are.
        own_loss: the loss is more than the cross-entropy of the logits, so it is kept, too.
    """

    kind: Kind
    n_classes: int = 0
    top: int = 0
    own_loss: bool = False

    @cached_property
    def id_words(self) -> int:
        """How many words a class number takes."""
        return 1 if self.n_classes <= 1 << 16 else 2

    @cached_property
    def n_halves(self) -> int:
        """How many numbers are kept in half precision."""
        return {"logits": self.n_classes, "top": self.top + len(_OF_TOP), "margin": 0, "loss": 0}[self.kind]

    @cached_property
    def n_singles(self) -> int:
        """How many numbers are kept in single precision."""
        return {"logits": int(self.own_loss), "top": int(self.own_loss), "margin": 2, "loss": 1}[self.kind]

    @cached_property
    def n_ids(self) -> int:
        """How many class numbers are kept."""
        return {"logits": 1, "top": 1 + self.top, "margin": 0, "loss": 0}[self.kind]

    @cached_property
    def n_words(self) -> int:
        """The length of a record."""
        return self.n_halves + 2 * self.n_singles + self.id_words * self.n_ids + 1

    @property
    def record_bytes(self) -> int:
        """What one example takes in one epoch."""
        return 2 * self.n_words

    def pack(self, task: Task, outputs: Any, batch: Batch) -> Packed:
        """Return what of a model's answer is kept; nothing is waited for, where it lies on a device.

        Raises:
            ShapeError: the outputs have another shape.
        """
        if self.kind in ("margin", "loss"):
            found = judge(task, outputs, batch)
            numbers = [found[name] for name in ("loss", "aum")[: self.n_singles]]
            return Packed(singles=torch.stack(numbers, dim=1).float())
        logits = class_scores(task, outputs, len(batch.index))
        targets = batch.targets.detach().reshape(-1)
        shifted = logits.float()
        shifted = shifted - shifted.amax(dim=1, keepdim=True)
        loss = task.losses(outputs, batch).detach().float()[:, None] if self.own_loss else None
        if self.kind == "logits":
            return Packed(shifted.half(), loss, targets, outputs=logits)
        own = targets.clamp(0, self.n_classes - 1).long()
        largest, classes = shifted.topk(self.top, dim=1)
        found = judge_classes(shifted, own)
        few = [shifted.gather(1, own[:, None])[:, 0], shifted.logsumexp(dim=1), found["el2n"], found["entropy"]]
        return Packed(torch.cat([largest, torch.stack(few, dim=1)], dim=1).half(), loss, targets, classes, logits)

    def words(self, packed: Packed, index: npt.NDArray[np.int64], epoch: int) -> Words:
        """Return the records of a batch, ``(n, n_words)``; ``packed`` lies on the CPU.

        Raises:
            NotFiniteError: an output is NaN or infinite; the first example is named.
            DataError: a class number that isn't one; the first example is named.
            ShapeError: not as many outputs or targets as places; broadcasting would record one for all.
        """
        for name, tensor in packed.tensors().items():
            if len(tensor) != len(index):
                raise ShapeError(
                    f"epoch {epoch}: expected a place, an output and a target for each example of a batch: got {len(index)} places "
                    f"and {len(tensor)} {'targets' if name == 'targets' else 'outputs'}"
                )
        block = np.empty((len(index), self.n_words), np.uint16)
        at = self.n_halves
        if packed.halves is not None:
            halves = packed.halves.numpy().view(np.uint16)
            if halves.size and int((halves & 0x7FFF).max()) >= 0x7C00:
                halves = _clamped(packed, index, epoch)
            block[:, :at] = halves
        if packed.singles is not None:
            singles = np.ascontiguousarray(packed.singles.numpy())
            if not np.isfinite(singles).all():
                _refuse(~np.isfinite(singles).all(axis=1), index, epoch, "loss")
            block[:, at : at + 2 * self.n_singles] = singles.view(np.uint16)
            at += 2 * self.n_singles
        if packed.targets is not None:
            targets = packed.targets.numpy()
            self._check_targets(targets, index, epoch)
            ids = targets[:, None] if packed.classes is None else np.column_stack([targets, packed.classes.numpy()])
            if self.id_words == 1:
                block[:, at:-1] = ids
            else:
                block[:, at:-1] = np.ascontiguousarray(ids, np.uint32).view(np.uint16)
        block[:, -1] = _check(block)
        return block

    def _check_targets(self, targets: npt.NDArray[Any], index: npt.NDArray[np.int64], epoch: int) -> None:
        if targets.dtype.kind not in "iu":
            raise DataError(f"epoch {epoch}: expected class numbers as targets: got {targets.dtype}")
        if len(targets) and (int(targets.max()) >= self.n_classes or int(targets.min()) < 0):
            row = int(((targets < 0) | (targets >= self.n_classes)).argmax())
            raise DataError(
                f"example {int(index[row])} in epoch {epoch}: expected a class number from 0 to {self.n_classes - 1}, got "
                f"{int(targets[row])}; is the index of the batch the example's own?"
            )

    def read(self, words: Words) -> dict[str, Tensor]:
        """Return what records say, each ``(n, ...)``: what :func:`judge` gives, and ``label`` of classes.

        Of the largest logits there is ``top_probability`` and ``top_class`` instead of the ``probability`` of every class.
        """
        at = self.n_halves + 2 * self.n_singles
        singles = _as(np.float32, words[:, self.n_halves : at])
        if self.kind in ("margin", "loss"):
            found = {"loss": singles[:, 0]}
            return found | {"aum": singles[:, 1], "el2n": -singles[:, 1]} if self.kind == "margin" else found
        halves = _as(np.float16, words[:, : self.n_halves])
        ids = words[:, at:-1] if self.id_words == 1 else np.ascontiguousarray(words[:, at:-1]).view(np.uint32)
        numbers = torch.from_numpy(np.array(ids, np.int64, order="C"))
        label = numbers[:, 0]
        found = judge_classes(halves, label) if self.kind == "logits" else self._read_top(halves, numbers[:, 1:], label)
        return found | {"loss": singles[:, 0] if self.own_loss else found["surprise"], "label": label}

    def _read_top(self, halves: Tensor, classes: Tensor, label: Tensor) -> dict[str, Tensor]:
        largest, few = halves[:, : self.top], halves[:, self.top :]
        own, partition, el2n, entropy = few.T
        chances = (largest - partition[:, None]).exp()
        other = torch.where(classes[:, 0] == label, largest[:, 1], largest[:, 0])
        return {
            "el2n": el2n,
            "aum": own - other,
            "confidence": (own - partition).exp(),
            "entropy": entropy,
            "gap": chances[:, 0] - chances[:, 1],
            "surprise": partition - own,
            "top_probability": chances,
            "top_class": classes,
        }


def layout_of(task: Task, outputs: Any, batch: Batch, *, top: int = TOP) -> Layout:
    """Return how a task's answers are kept: as the first of them tells.

    Raises:
        ShapeError: outputs that the task doesn't have.
    """
    if not task.exclusive:
        return Layout("margin" if isinstance(task, (Regression, MultiLabel)) else "loss")
    n_classes = class_scores(task, outputs, len(batch.index)).shape[1]
    plain = type(task) is Classification and not task.class_weights and not task.label_smoothing
    if n_classes <= MANY_CLASSES:
        return Layout("logits", n_classes, own_loss=not plain)
    return Layout("top", n_classes, top=min(max(top, 2), n_classes), own_loss=not plain)


def _as(kind: Any, words: Words) -> Tensor:
    """Return the numbers that words hold, ``(n, numbers)``, in double precision."""
    if not words.shape[1]:
        return torch.empty(len(words), 0, dtype=torch.float64)
    return torch.from_numpy(np.ascontiguousarray(words).view(kind)).double()


def checked(words: Words) -> npt.NDArray[np.bool_]:
    """Tell which records are whole, ``(n,)``."""
    whole: npt.NDArray[np.bool_] = words[:, -1] == _check(words)
    return whole


def _check(block: Words) -> Words:
    """Return a check of each record's words but the last; never 0 of a record of zeros."""
    found: Words = block[:, :-1].dot(_odd(block.shape[1] - 1))
    found += np.uint16(1)
    return found


@cache
def _odd(n: int) -> Words:
    """Return ``n`` odd numbers: a single word that is another one changes a sum under such weights."""
    return (np.arange(n, dtype=np.uint32) * 40503 | 1).astype(np.uint16)


def _clamped(packed: Packed, index: npt.NDArray[np.int64], epoch: int) -> Words:
    """Return half-precision numbers of which some are beyond its range, if the outputs themselves are numbers."""
    assert packed.halves is not None
    bad = ~packed.outputs.isfinite().all(dim=1).cpu().numpy()
    if bad.any():
        _refuse(bad, index, epoch, "outputs")
    clamped: Words = packed.halves.clamp(-_LARGEST, _LARGEST).numpy().view(np.uint16)
    return clamped


def _refuse(bad: npt.NDArray[np.bool_], index: npt.NDArray[np.int64], epoch: int, what: str) -> None:
    said = "is" if what == "loss" else "are"
    raise NotFiniteError(
        f"the {what} of example {int(index[bad.argmax()])} in epoch {epoch} {said} NaN or infinite (and of {int(bad.sum()) - 1} "
        "more in its batch): nothing of this batch was recorded; lower the learning rate, or look for extreme values in the data"
    )
