"""How is kept on disk what a training says about every example, beside the training itself?

A :class:`Recording` is a folder: ``header.json`` says of what it is, and each epoch is a file with a record per example
(``epoch_files``). Whatever a process stored is there after a kill; a training that goes on from its checkpoint stores the same
places again. Nothing is locked: ranks write different examples, or the same one twice, of which the last stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.plain_files import remove
from prunus.score.examples.recording.epoch_files import EpochFiles, EpochMap, epoch_files, part_of_machine
from prunus.score.examples.recording.example_scores import ExampleScores, scores_of
from prunus.score.examples.recording.header import HEADER, Header, read_header, write_header
from prunus.score.examples.recording.judged import recorded_names
from prunus.score.examples.recording.over_epochs import OverEpochs
from prunus.score.examples.recording.record_layout import TOP, Packed, layout_of
from prunus.tasks import Task, make_task

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Recording"]

_BLOCK = 1 << 15


class Recording:
    """Keep what a model in training says about every example, and score the examples by it.

    Three lines in a loop; ``index`` holds the examples' positions in the data set, whatever their order in the batch::

        recording = prunus.Recording("recording", n_examples=len(data))
        ...
        recording(epoch, index, outputs, targets)
        ...
        scores = recording.scores()

    Of classes the logits are kept in half precision, 2 bytes each and 4 more per example and epoch; of more than 64 the 16 largest,
    the given label's, and what the scores need of the others. Of other tasks it is the loss, and the margin where there is one.

    Args:
        folder: a new folder, or that of a recording, which is gone on with.
        n_examples: how many examples the data set has; None: as the folder's recording says.
        task: a task or its registered name; None: as the folder's recording says, else classification.
        fingerprint: what identifies the data set, if you have it: a recording of another one is refused.
        part: a name for this process's own files, where processes can't map one file (on several machines that share no folder: put
            the files into one folder afterwards). None: by what torchrun says, one part per machine.
        overwrite: throw away the recording that is there.
        top: of more than 64 classes, how many of the largest logits are kept.

    Raises:
        OutputError: the folder holds another recording, or no recording but other files, or can't be written.
        RecipeError: neither ``n_examples`` nor a recording.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        n_examples: int | None = None,
        task: Task | str | None = None,
        fingerprint: str = "",
        part: str | None = None,
        overwrite: bool = False,
        top: int = TOP,
    ) -> None:
        self.folder, self._fingerprint, self._top = Path(folder), fingerprint, top
        self._part = part_of_machine() if part is None else part
        if overwrite:
            _clear(self.folder)
        self._header = read_header(self.folder) or _begun_meanwhile(self.folder)
        if self._header is None:
            if n_examples is None:
                raise RecipeError(f"there is no recording in {self.folder}: give n_examples to begin one")
            if n_examples < 1:
                raise RecipeError(f"n_examples must be at least 1: got {n_examples}")
        self._n_examples = n_examples
        self._task = make_task(task) if isinstance(task, str) else task
        if self._header is not None:
            self._check_known(self._header)
        self._maps: dict[int, EpochMap] = {}
        self._pending: _Pending | None = None

    @property
    def header(self) -> Header:
        """What is recorded.

        Raises:
            DataError: nothing was yet.
        """
        if self._header is None:
            self._header = read_header(self.folder)
        if self._header is None:
            raise DataError(f"{self.folder} holds no recording yet: call it on a batch first")
        return self._header

    @property
    def n_examples(self) -> int:
        """How many examples the data set has."""
        return self.header.n_examples

    @property
    def task(self) -> Task:
        """What was asked of the model."""
        if self._task is None:
            self._task = make_task("classification") if self._header is None else self._header.make_task()
        return self._task

    @property
    def names(self) -> tuple[str, ...]:
        """What is known of each example, as ``recorded_names`` calls it."""
        kind = self.header.layout.kind
        if kind == "loss":
            return ("loss", "loss_deviation")
        return recorded_names(self.task)

    @property
    def record_bytes(self) -> int:
        """What one example takes in one epoch."""
        return self.header.layout.record_bytes

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs of which there is something."""
        return tuple(files.epoch for files in self.epoch_files())

    def __call__(self, epoch: int, index: Any, outputs: Any, targets: Any) -> None:
        """Keep what the model answered on one batch, after its forward pass.

        What lies on a GPU is fetched while the training goes on, and stored with the next batch or by :meth:`flush`.

        Shapes:
            ``index`` ``(batch,)``: positions in the data set. Outputs and targets as the task has them.
        Raises:
            NotFiniteError: an output or a loss is NaN or infinite; the example is named.
            DataError: a position outside the data set, or a label that is no class.
            ShapeError: the outputs have another shape.
            OutputError: the folder holds another recording, or the disk is full.
        """
        places = torch.as_tensor(index).reshape(-1)
        with torch.no_grad():
            batch = Batch(places, None, targets)
            if self._header is None or not self._maps:
                self._begin(outputs, batch)
            packed = self.header.layout.pack(self.task, outputs, batch)
        before, self._pending = self._pending, None
        if before is not None:
            self._store(before)
        taken = _Pending.of(epoch, places, packed)
        if taken.ready is None:
            self._store(taken)
        else:
            self._pending = taken

    def watch(self, epoch: int, batch: Batch, outputs: Any) -> None:
        """Keep what the model answered on one batch: the same for ``prunus.recover.train``."""
        self(epoch, batch.index, outputs, batch.targets)

    def flush(self) -> None:
        """Store what is still on its way from a GPU."""
        before, self._pending = self._pending, None
        if before is not None:
            self._store(before)

    def close(self) -> None:
        """Store everything, and wait until the disk has it."""
        self.flush()
        for epoch in self._maps.values():
            epoch.flush()
        self._maps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def scores(self, *, el2n_epochs: int | None = None, partial: bool = False) -> ExampleScores:
        """Return what each example is worth by what was recorded, with standard errors; of several trainings see ``scores_of``.

        Args:
            el2n_epochs: EL2N looks at the first so many epochs only; None: at all.
            partial: examples that no epoch holds get NaN, instead of stopping it.

        Raises:
            RunError: an example that no epoch holds.
        """
        return scores_of([self], el2n_epochs=el2n_epochs, partial=partial)

    def tensors(self, *, el2n_epochs: int | None = None) -> dict[str, Tensor]:
        """Return the evidence that ``example_criteria`` read, as :meth:`ExampleRecorder.tensors` does.

        Of more than 64 classes there is no ``probability``: it would be ``(n, classes)``; see :meth:`probabilities`.

        Raises:
            RunError: an example that no epoch holds.
        """
        names = [name for name in self.names if name != "probability" or self.header.layout.kind == "logits"]
        found = []
        for start, over in self._blocks(tuple(names), el2n_epochs):
            over.check_all_seen(start)
            found.append(over.tensors())
        return {name: torch.cat([block[name] for block in found]) for name in names}

    def probabilities(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the mean probability of each class over the epochs, ``(stop - start, classes)``, for some examples.

        Of more than 64 classes those that weren't kept share what is left.
        """
        layout = self.header.layout
        if layout.kind not in ("logits", "top"):
            raise DataError(f"a recording of the task {self.header.task} has no probabilities of classes")
        return next(self._blocks(("probability",), None, start, stop))[1].tensors()["probability"].numpy()

    def epoch_files(self) -> list[EpochFiles]:
        """Return the files of each epoch, in order."""
        self.flush()
        return epoch_files(self.folder, self.n_examples, self.header.layout.n_words)

    def decoded(self, words: Any) -> dict[str, Tensor]:
        """Return what records say, each ``(n, ...)``."""
        return self.header.layout.read(words)

    def _begin(self, outputs: Any, batch: Batch) -> None:
        """Write the header, or see that it is of what comes now."""
        if self.task.told_by_model:
            raise RecipeError(
                f"the task {self.task.name} gives the loss of a whole batch, so there is nothing to record of an example"
            )
        layout = layout_of(self.task, outputs, batch, top=self._top)
        n_examples = self.n_examples if self._n_examples is None else self._n_examples
        header = Header.of(n_examples, self.task, layout, self._fingerprint)
        self._header = write_header(header, self.folder) if self._header is None else self._header
        self._header.check_same(header, self.folder)

    def _check_known(self, header: Header) -> None:
        asked = self._n_examples if self._n_examples is not None else header.n_examples
        name = header.task if self._task is None else self._task.name
        same = Header(asked, header.layout, name, header.options, self._fingerprint)
        header.check_same(same, self.folder)

    def _store(self, taken: _Pending) -> None:
        packed, index = taken.arrived()
        n = self.header.n_examples
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= n):
            wrong = index[(index < 0) | (index >= n)]
            raise DataError(f"epoch {taken.epoch}: expected positions from 0 to {n - 1} as index, got {int(wrong[0])}")
        words = self.header.layout.words(packed, index, taken.epoch)
        self._map(taken.epoch).store(index, words)

    def _map(self, epoch: int) -> EpochMap:
        found = self._maps.get(epoch)
        if found is None:
            for done in [one for one in self._maps if one != epoch - 1]:
                del self._maps[done]
            layout = self.header.layout
            found = self._maps[epoch] = EpochMap(self.folder, epoch, self._part, self.n_examples, layout.n_words)
        return found

    def _blocks(
        self, names: tuple[str, ...], el2n_epochs: int | None, first: int = 0, last: int | None = None
    ) -> Iterator[tuple[int, OverEpochs]]:
        files, end = self.epoch_files(), self.n_examples if last is None else last
        size = _BLOCK if last is None else max(end - first, 1)
        for start in range(first, end, size):
            stop = min(start + size, end)
            over = OverEpochs(stop - start, names, el2n_epochs=el2n_epochs)
            for epoch in files:
                words, whole = epoch.read(start, stop)
                found = self.decoded(words[whole])
                if "probability" in names and "top_class" in found:
                    found["probability"] = _spread(found, self.header.layout.n_classes)
                over.add(epoch.epoch, torch.from_numpy(np.flatnonzero(whole)), found)
            yield start, over


@dataclass
class _Pending:
    """A batch on its way to the disk; ``ready`` is the event after which its copies from a GPU are there."""

    epoch: int
    index: Tensor
    packed: Packed
    ready: Any = None

    @classmethod
    def of(cls, epoch: int, index: Tensor, packed: Packed) -> _Pending:
        """Start to fetch what lies on a device."""
        tensors = {**packed.tensors(), "index": index}
        if all(tensor.device.type == "cpu" for tensor in tensors.values()):
            return cls(epoch, index, packed)
        here = {name: _fetched(tensor) for name, tensor in tensors.items()}
        device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        ready = None if device is None else torch.cuda.current_stream(device).record_event()
        index = here.pop("index")
        return cls(epoch, index, Packed(**here, outputs=packed.outputs), ready)

    def arrived(self) -> tuple[Packed, npt.NDArray[np.int64]]:
        """Return what was fetched, once it is here."""
        if self.ready is not None:
            self.ready.synchronize()
        return self.packed, self.index.numpy().astype(np.int64, copy=False)


def _fetched(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, which for a GPU's tensor is only on its way."""
    if not tensor.is_cuda:
        return tensor.cpu()
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return here.copy_(tensor, non_blocking=True)


def _spread(found: dict[str, Tensor], n_classes: int) -> Tensor:
    """Return the probability of every class, given that of the likeliest: the others have the rest in equal parts."""
    top, classes = found["top_probability"], found["top_class"]
    rest = (1 - top.sum(dim=1, keepdim=True)).clamp(min=0) / max(n_classes - top.shape[1], 1)
    return rest.expand(-1, n_classes).scatter(1, classes, top)


def _begun_meanwhile(folder: Path) -> Header | None:
    """Return what another rank wrote since the header was looked for; None where the folder is free.

    Raises:
        OutputError: it holds something else.
    """
    if not folder.is_dir() or all(child.name.startswith(".") for child in folder.iterdir()):
        return None
    header = read_header(folder)  # it is there before any other file of a recording
    if header is None:
        raise OutputError(f"{folder} holds files that are no recording: choose an empty or new folder")
    return header


def _clear(folder: Path) -> None:
    """Remove the recording that a folder holds, and nothing else."""
    if (folder / HEADER).exists():
        remove(folder / HEADER)
        for path in [*folder.glob("epoch-*.records"), *folder.glob(".epoch-*.part")]:
            remove(path)
