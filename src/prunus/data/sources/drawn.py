"""What is a data set that is read when its examples are needed, whatever their structure?

Nothing is kept of it but what it says of itself: its length, and labels and names of classes where it has a list of them. Inputs
come as the model takes them, unscaled; targets as the data set gives them, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from prunus.core.calls import described, tensors
from prunus.core.errors import DataError
from prunus.data.sources.apart import Apart, Takes, layout
from prunus.data.sources.reading import (
    ArrayReader,
    Reader,
    SetReader,
    class_names_of,
    first_of_stream,
    is_stream,
    reader_of,
)
from prunus.data.sources.source import row_chunks

__all__ = ["DrawnSource", "check_class_numbers", "check_drawn", "known_labels", "open_drawn"]

_CHECKED, _SAMPLED = 8, 64


class DrawnSource:
    """Examples by their numbers, read through ``reader`` and taken apart by ``apart``.

    ``labels`` are ``(n,)`` class numbers where the data set has them in a list, else None: they are known once an example is read.
    """

    feature_names: tuple[str, ...] = ()

    def __init__(
        self, reader: Reader, apart: Apart, *, name: str, task: str = "", class_names: Sequence[str] = ()
    ) -> None:
        self.reader, self.apart, self.name, self.task = reader, apart, name, task
        self.class_names = tuple(class_names)
        self.ids = tuple(map(str, range(len(reader))))
        self.labels: Tensor | None = None
        self.label_kind = "U"
        self._layout: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> Tensor:
        """The class number of every example.

        Raises:
            DataError: they aren't known without reading every example.
        """
        if self.labels is None:
            raise DataError(
                f"{self.name}: expected the labels in a list, which the data set doesn't have (an attribute targets, a column "
                "label, arrays): they are known only once an example is read"
            )
        return self.labels

    @property
    def fixed(self) -> bool:
        """Whether an example is the same whenever it is read."""
        return self.reader.fixed

    @cached_property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an input, where inputs are one tensor; () otherwise."""
        inputs = self.inputs(torch.arange(1))
        return tuple(inputs.shape[1:]) if isinstance(inputs, Tensor) else ()

    @cached_property
    def example_bytes(self) -> int:
        """How many bytes the inputs of the first example take."""
        return sum(value.numel() * value.element_size() for _, value in tensors(self.inputs(torch.arange(1))))

    def inputs(self, rows: Tensor) -> Any:
        """Return the inputs of some rows."""
        return self.at(rows)[0]

    def at(self, rows: Tensor) -> tuple[Any, Any]:
        """Return the inputs and targets of some rows."""
        return next(self.batches(iter([rows])))

    def batches(self, pieces: Iterator[Tensor], seed: int = 0) -> Iterator[tuple[Any, Any]]:
        """Yield the inputs and targets of each piece; ``seed`` is that of what the data set draws.

        Raises:
            DataError: a batch has another structure than the first one, or can't be read.
        """
        for number, batch in enumerate(self.reader.read(pieces, seed)):
            found = layout(batch)
            if self._layout is None:
                self._layout = found, described(batch)
            if found != self._layout[0]:
                raise DataError(
                    f"{self.name}: expected every batch to be of the structure of the first, {self._layout[1]}: got "
                    f"{described(batch)} in batch {number}"
                )
            yield self.apart(batch)

    def sampled(self) -> tuple[bytes, ...]:
        """Return digests of some examples, spread evenly over all: equal ones have equal inputs."""
        rows = torch.linspace(0, len(self) - 1, min(_SAMPLED, len(self))).round().long()
        return self.digests(rows)

    def digests(self, rows: Tensor) -> tuple[bytes, ...]:
        """Return digests of the inputs of some examples."""
        return tuple(_digest(inputs) for inputs, _ in self.batches(row_chunks(rows, 1)))

    def fingerprint(self) -> str:
        """Return the SHA-256, in hexadecimal, over how many examples there are, a sample of them, and labels that are known."""
        total = hashlib.sha256(repr(("drawn", len(self), self.class_names, self.task)).encode())
        for digest in self.sampled():
            total.update(digest)
        if self.labels is not None:
            total.update(self.labels.numpy().tobytes())
        return total.hexdigest()


def _digest(tree: Any) -> bytes:
    total = hashlib.sha256()
    for where, value in tensors(tree):
        total.update(f"{where} {value.dtype} {tuple(value.shape)};".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.digest()


def check_drawn(inputs: Any, rows: Tensor, name: str) -> None:
    """Refuse inputs that are not a number; infinities are left, since masks are made of them.

    Raises:
        DataError: it names the example.
    """
    for where, value in tensors(inputs):
        if value.is_floating_point() and bool((bad := value.isnan()).any()):
            by_row = value.dim() > 0 and len(value) == len(rows)
            at = int(bad.reshape(len(bad), -1).any(dim=1).int().argmax()) if by_row else 0
            raise DataError(
                f"{name}: expected numbers in {where or 'the inputs'}: got NaN in example {int(rows[at])}"
                f"{'' if by_row else ' or one of its batch'}; leave such examples out, or fill them"
            )


def check_class_numbers(targets: Any, n_classes: int, rows: Tensor, name: str) -> None:
    """Refuse a class number that isn't one of so many.

    Raises:
        DataError: it names the example.
    """
    if not isinstance(targets, Tensor) or targets.is_floating_point() or len(targets) != len(rows) or n_classes == 0:
        return  # the task says what it takes
    wrong = ((targets < 0) | (targets >= n_classes)).reshape(len(rows), -1).any(dim=1)
    if bool(wrong.any()):
        at = int(wrong.int().argmax())
        raise DataError(
            f"{name}: example {int(rows[at])}: label out of range: expected a class number 0..{n_classes - 1}, got "
            f"{targets[at].flatten()[0].item()}"
        )


def open_drawn(data: Any, takes: Takes, name: str, *, labelled: bool = True, of_stream: int = 0) -> DrawnSource:
    """Return the source of whatever holds examples; ``takes`` says which part of one is the model's.

    Args:
        labelled: without it targets are left out.
        of_stream: of a stream so many examples are taken; 0: none are.

    Raises:
        DataError: nothing comes, or what comes holds no such inputs, or a stream.
    """
    reader = first_of_stream(data, of_stream, name) if of_stream and is_stream(data) else reader_of(data, name)
    first = next(iter(reader.read(iter([torch.arange(min(2, len(reader)))]), 0)))
    apart = Apart.of(first, takes, name, labelled=labelled)
    if not any(True for _ in tensors(apart(first)[0])):
        raise DataError(f"{name}: expected tensors in the model's inputs: got {described(apart(first)[0])}")
    return DrawnSource(reader, apart, name=name, class_names=class_names_of(data))


def known_labels(source: DrawnSource) -> Tensor | None:
    """Return the class number of every example where that costs no reading of them all, and it is what reading gives."""
    if source.apart.kind == "alone" or not source.apart.labelled:
        return None
    if isinstance(source.reader, ArrayReader):
        found = source.apart(source.reader.tree)[1]
    else:
        assert isinstance(source.reader, SetReader)
        found = _listed(source.reader.dataset, source.apart)
    labels = _as_numbers(found)
    if labels is None or len(labels) != len(source):
        return None
    if source.reader.fixed:
        return labels
    rows = torch.linspace(0, len(source) - 1, min(_CHECKED, len(source))).round().long()
    read = [_as_numbers(targets) for _, targets in source.batches(row_chunks(rows, 1))]
    agree = all(
        one is not None and torch.equal(one, labels[row : row + 1])
        for one, row in zip(read, rows.tolist(), strict=True)
    )
    return labels if agree else None


def _listed(dataset: Any, apart: Apart) -> Any:
    """Return a data set's own list of labels: ``targets``, as torchvision has it, or the column of a Hugging Face set."""
    if isinstance(dataset, Subset):
        inner = _as_numbers(_listed(dataset.dataset, apart))
        return None if inner is None else inner[torch.as_tensor(dataset.indices)]
    if apart.kind == "keys":
        if len(apart.targets) != 1 or apart.targets[0] not in (getattr(dataset, "column_names", None) or ()):
            return None
        return dataset[apart.targets[0]]
    return getattr(dataset, "targets", None)


def _as_numbers(found: Any) -> Tensor | None:
    """Return whole numbers, one per example, as such; None where they are something else."""
    if found is None or isinstance(found, dict):
        return None
    try:
        values = found if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found))
    except (TypeError, ValueError):
        return None
    if values.dim() == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dim() != 1 or values.is_floating_point() or values.dtype == torch.bool:
        return None
    return values.long().cpu()
