"""What does training see: scaled inputs and (possibly repaired) targets, in batches, on a device?

A subset shares the scaled inputs of the set that it was taken from; positions count inside the set at hand. In memory a
batch is one indexing of one tensor; of a data set that is read when needed it is what that set gives, of any structure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prunus.core.batch import Batch
from prunus.core.calls import call, described, map_tensors
from prunus.core.errors import DataError
from prunus.data.large.read_ahead import read_ahead
from prunus.data.large.row_names import ChosenNames, Names
from prunus.data.large.scratch import scratch_array, scratch_take
from prunus.data.scaler import Scaler
from prunus.data.sources.drawn import DrawnSource, check_class_numbers, check_drawn
from prunus.data.sources.source import MEMORY_BUDGET_BYTES, Source, row_chunks
from prunus.tasks import Classification, Regression, Task

__all__ = ["Examples"]

_AT_ONCE = 1 << 16


def is_fixed(source: Source) -> bool:
    """Tell whether a source gives an example the same inputs in each epoch."""
    return bool(getattr(source, "fixed", True))


class _ScaledInputs:
    """The scaled inputs of some rows: kept on the device if they fit into memory, else made when asked for."""

    def __init__(self, source: Source, rows: Tensor, scaler: Scaler, device: torch.device, budget_bytes: int) -> None:
        self.source, self.rows, self.scaler, self.device, self.budget_bytes = source, rows, scaler, device, budget_bytes
        self._kept: Tensor | None = None

    def at(self, positions: Tensor, seed: int) -> Tensor:
        """Return the inputs at some positions of ``rows``; of a source that draws, what is drawn hangs on ``seed``."""
        size = 4 * len(self.rows) * int(np.prod(self.source.input_shape))
        if not is_fixed(self.source):
            drawn: Tensor = self.scaler(self.source.inputs(self.rows[positions], seed)).to(self.device)  # type: ignore[call-arg]
            return drawn
        if size > self.budget_bytes:
            return self.made(self.rows[positions])
        if self._kept is None:
            parts = [self.made(part) for part in row_chunks(self.rows)]
            self._kept = torch.cat(parts) if parts else torch.empty(0, *self.source.input_shape, device=self.device)
        return self._kept.index_select(0, positions.to(self.device))

    def made(self, rows: Tensor) -> Tensor:
        """Return the scaled inputs of some rows of the source."""
        return self.scaler(self.source.inputs(rows)).to(self.device)

    def to(self, device: torch.device) -> _ScaledInputs:
        moved = _ScaledInputs(self.source, self.rows, self.scaler, device, self.budget_bytes)
        moved._kept = None if self._kept is None else self._kept.to(device)
        return moved


class Examples:
    """A set of examples, ready to learn from; it never changes, its methods return new ones.

    A regression's targets are scaled by ``target_scaler``; ``in_units`` says them as the data set does.

    Shapes:
        ``rows`` ``(n,)`` are row numbers in ``source``; ``targets`` ``(n,)`` start as the source's and may be repaired; None where
        they are known only once an example is read.
    """

    def __init__(
        self,
        source: Source,
        rows: Tensor,
        *,
        targets: Tensor | None = None,
        task: Task | None = None,
        teacher: nn.Module | None = None,
        scaler: Scaler | None = None,
        target_scaler: Scaler | None = None,
        device: torch.device | str = "cpu",
        budget_bytes: int = MEMORY_BUDGET_BYTES,
    ) -> None:
        self.source = source
        self.rows = rows
        self.device = torch.device(device)
        self.scaler = scaler or Scaler.identity()
        self.target_scaler = target_scaler or Scaler.identity()
        self.task = task or self._own_task()
        self._teacher = teacher
        if targets is None and not (isinstance(source, DrawnSource) and source.labels is None):
            own = scratch_take(source.targets, rows)
            targets = self.target_scaler(own) if source.task == "regression" else own
        self._targets = None if targets is None else self._checked_targets(targets)
        self._inputs = None
        if not isinstance(source, DrawnSource):
            kept_bytes = 0 if getattr(source, "on_disk", "") else budget_bytes
            self._inputs = _ScaledInputs(source, rows, self.scaler, self.device, kept_bytes)
        self._positions: Tensor | None = None  # of each example among the scaled inputs; None: as they come

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Examples({self.source.name!r}, n={len(self)}, {self.task.name}, input_shape={self.input_shape})"

    @cached_property
    def ids(self) -> Sequence[str]:
        """The sample ids, in order."""
        every = self.source.ids
        if isinstance(every, Names):
            return ChosenNames(every, self.rows)
        return tuple(every[row] for row in self.rows.tolist())

    @property
    def targets(self) -> Tensor:
        """The class number or (scaled) value of each example.

        Raises:
            DataError: they aren't known without reading every example.
        """
        return self.source.targets[self.rows] if self._targets is None else self._targets

    @property
    def on_disk(self) -> bool:
        """Whether inputs are mapped from files, and none are kept."""
        return bool(getattr(self.source, "on_disk", ""))

    @property
    def known_targets(self) -> Tensor | None:
        """The targets, where they are known without reading every example."""
        return self._targets

    @property
    def fixed(self) -> bool:
        """Whether an example is the same in each epoch: then what was found out about it may be kept."""
        return is_fixed(self.source)

    @cached_property
    def identity(self) -> str:
        """What tells a data set that is read when needed from others of its length; "" where labels and inputs are held."""
        return self.source.fingerprint() if isinstance(self.source, DrawnSource) else ""

    def _own_task(self) -> Task:
        """Return what the targets ask for; a regression undoes their scaling."""
        if self.source.task == "regression":
            one = self.target_scaler
            return Regression(float(one.mean.reshape(())), float(one.deviation.reshape(())))
        return Classification(tuple(self.source.class_names))

    @cached_property
    def example_bytes(self) -> int:
        """How many bytes the inputs of the first example take."""
        if isinstance(self.source, DrawnSource):
            return self.source.example_bytes
        first = self.inputs_at(torch.arange(min(1, len(self))))
        return int(first.numel() * first.element_size())

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class number; () for regression."""
        return tuple(self.task.class_names)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per input feature; () where features have none."""
        return self.source.feature_names

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.source.input_shape)

    @property
    def n_outputs(self) -> int:
        """How many outputs a model needs: the number of classes, or 1."""
        return len(self.class_names) or 1

    def in_units(self, values: Tensor) -> Tensor:
        """Return targets or outputs as the data set says them: a regression's undo the scaling, classes stay."""
        return self.target_scaler.undo(values)

    def inputs_at(self, positions: Tensor, seed: int = 0) -> Any:
        """Return the scaled inputs at some positions, on the device; an augmentation is drawn under ``seed``."""
        if isinstance(self.source, DrawnSource):
            return self._ready(self.source.inputs(self.rows[positions.cpu()]))
        assert self._inputs is not None
        places = positions.cpu()
        return self._inputs.at(places if self._positions is None else self._positions[places], seed)

    def _ready(self, inputs: Any) -> Any:
        """Return inputs of a data set that is read when needed, scaled where that is asked for, on the device."""
        if self.scaler.scales:
            if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
                raise DataError(
                    f"{self.source.name}: only one input of fractional numbers is scaled: got {described(inputs)}; leave "
                    "standardize, scale, mean and std out"
                )
            inputs = self.scaler(inputs)
        return self._moved(inputs)

    def _moved(self, tree: Any) -> Any:
        return map_tensors(lambda value: value.to(self.device, non_blocking=True), tree)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield every example once, in order, or in the order that ``generator`` shuffles; the last batch may be smaller."""
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        n_examples = len(self)
        order = self._numbers(n_examples)
        if generator is None:
            torch.arange(n_examples, out=order)
        else:
            torch.randperm(n_examples, generator=generator, out=order)
        seed = 0 if generator is None or self.fixed else int(torch.randint(2**62, (), generator=generator))
        if isinstance(self.source, DrawnSource):
            yield from self._drawn(self.source, order, batch_size, seed)
            return
        if self.on_disk:
            yield from self._from_disk(order, batch_size)
            return
        for index in row_chunks(order, batch_size):
            yield Batch(index, self.inputs_at(index, seed), self.targets[index.to(self.device)])

    def _from_disk(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        assert self._inputs is not None
        made, targets = self._inputs, self.targets
        row_bytes = 4 * int(np.prod(self.input_shape))

        def read(index: Tensor) -> Tensor:
            return made.made(self.rows[index])

        cold = 2 * row_bytes * len(self.source.ids) > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        for index, inputs in read_ahead(order, read, batch_size=batch_size, row_bytes=row_bytes, cold=cold):
            yield Batch(index, inputs, targets[index.to(self.device)])

    def _numbers(self, n: int) -> Tensor:
        """Return room for a number for every example: in a file, where their inputs lie in one."""
        return torch.from_numpy(scratch_array((n,), np.int64)) if self.on_disk else torch.empty(n, dtype=torch.int64)

    def _drawn(self, source: DrawnSource, order: Tensor, batch_size: int, seed: int) -> Iterator[Batch]:
        read = source.batches((self.rows[index] for index in row_chunks(order, batch_size)), seed)
        for index, (inputs, targets) in zip(row_chunks(order, batch_size), read, strict=True):
            check_drawn(inputs, self.rows[index], source.name)
            if self.task.exclusive and self._teacher is None:
                check_class_numbers(targets, len(self.class_names), self.rows[index], source.name)
            ready = self._ready(inputs)
            if self._teacher is not None:
                with torch.no_grad():
                    targets = call(self._teacher, ready)
            elif self._targets is not None:
                targets = self._targets[index.to(self.device)]
            yield Batch(index, ready, self._moved(targets))

    def select(self, keep: npt.NDArray[np.bool_] | Tensor | Sequence[bool]) -> Examples:
        """Return the examples where ``keep`` is true.

        Raises:
            DataError: ``keep`` is not one truth value per example.
        """
        mask = torch.as_tensor(keep).cpu()
        if mask.dtype != torch.bool or tuple(mask.shape) != (len(self),):
            raise DataError(
                f"keep must hold one truth value per example, ({len(self)},): got {mask.dtype} of shape {tuple(mask.shape)}"
            )
        return self.take(torch.nonzero(mask).flatten())

    def take(self, positions: Tensor) -> Examples:
        """Return the examples at some positions, in that order; one may come several times."""
        chosen, places = self._copy(), positions.cpu()
        chosen.rows = scratch_take(self.rows, places)
        chosen._positions = places if self._positions is None else scratch_take(self._positions, places)
        chosen._targets = None if self._targets is None else scratch_take(self._targets, places.to(self.device))
        return chosen

    def with_targets(self, targets: npt.NDArray[Any] | Tensor) -> Examples:
        """Return the same examples with other targets.

        Raises:
            DataError: not one target per example, or a class number that doesn't exist.
        """
        changed = self._copy()
        changed._targets = self._checked_targets(torch.as_tensor(targets))
        return changed

    def to(self, device: torch.device | str) -> Examples:
        """Return the same examples on another device."""
        moved = self._copy()
        moved.device = torch.device(device)
        moved._targets = None if self._targets is None else self._targets.to(moved.device)
        moved._inputs = None if self._inputs is None else self._inputs.to(moved.device)
        return moved

    def _copy(self) -> Examples:
        copy = object.__new__(Examples)
        copy.__dict__.update({key: value for key, value in self.__dict__.items() if key not in ("ids", "identity")})
        return copy

    def _checked_targets(self, targets: Tensor) -> Tensor:
        if tuple(targets.shape) != (len(self.rows),):
            raise DataError(f"expected one target per example, ({len(self.rows)},): got shape {tuple(targets.shape)}")
        if self.source.task == "regression":
            values = targets.to(torch.float32)
            if not values.isfinite().all():
                raise DataError("expected finite targets, got NaN or infinity")
            return values.to(self.device)
        numbers = targets.to(torch.int64)
        pieces = zip(row_chunks(targets, _AT_ONCE), row_chunks(numbers, _AT_ONCE), strict=True)
        if any(
            not torch.equal(whole.to(given.dtype), given) or bool(((whole < 0) | (whole >= self.n_outputs)).any())
            for given, whole in pieces
        ):
            raise DataError(f"expected class numbers 0..{self.n_outputs - 1}, got {targets.min()}..{targets.max()}")
        return numbers.to(self.device)
