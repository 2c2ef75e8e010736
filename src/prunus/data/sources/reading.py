"""How are examples read from whatever holds them, at the moment when they are needed?

Arrays are indexed; a map-style data set is asked for its examples, which its ``collate_fn`` puts together, in the user's own worker
processes where a ``DataLoader`` says so. Each batch is drawn under a seed: where nothing is shuffled it is always the same one, so
that two models see the same augmentations; a training draws them anew in each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from prunus.core.calls import described, map_tensors, n_examples, select_rows, tensors
from prunus.core.code.imports import one_line
from prunus.core.errors import DataError, raise_if_out_of_memory
from prunus.core.runtime import generator, seeded

__all__ = [
    "ArrayReader",
    "Reader",
    "SetReader",
    "as_tensors",
    "as_torch",
    "class_names_of",
    "first_of_stream",
    "followed",
    "is_array",
    "is_of_arrays",
    "is_stream",
    "reader_of",
]


class Reader(Protocol):
    """Examples by their numbers."""

    @property
    def fixed(self) -> bool:
        """Whether an example is the same whenever it is read."""
        ...

    def __len__(self) -> int: ...

    def read(self, pieces: Iterator[Tensor], seed: int) -> Iterator[Any]:
        """Yield one batch for each of the pieces, which are numbers of examples."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Arrays in a structure, whose first dimension counts examples."""

    tree: Any
    fixed: bool = True

    def __len__(self) -> int:
        return n_examples(self.tree)

    def read(self, pieces: Iterator[Tensor], seed: int) -> Iterator[Any]:
        """Yield the examples of each piece."""
        yield from (select_rows(self.tree, rows) for rows in pieces)


@dataclass(frozen=True, eq=False)
class SetReader:
    """A map-style data set, and how its examples become a batch; ``workers`` are what a ``DataLoader`` says of processes.

    ``origin`` is what the user handed over, where that isn't what is read.
    """

    dataset: Any
    name: str
    collate: Callable[[list[Any]], Any] | None = None
    workers: Mapping[str, Any] = field(default_factory=dict)
    origin: Any = None
    fixed: bool = False

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, pieces: Iterator[Tensor], seed: int) -> Iterator[Any]:
        """Yield the batch that the data set gives for each piece.

        Raises:
            DataError: reading or collating fails; it says where.
        """
        if self.workers.get("num_workers", 0):
            yield from self._by_workers(pieces, seed)
            return
        for number, rows in enumerate(pieces):
            with seeded(seed, "data", "batch", number):
                batch = self._together(self._examples(rows.tolist()), rows)
            yield in_single(batch)

    def _examples(self, rows: list[int]) -> list[Any]:
        several = getattr(self.dataset, "__getitems__", None)
        try:
            if callable(several):
                return list(several(rows))
        except Exception as failure:
            raise_if_out_of_memory(failure)
            raise self._failed(f"{rows[0]} and those after it", failure) from failure
        found = []
        for row in rows:
            try:
                found.append(self.dataset[row])
            except Exception as failure:
                raise_if_out_of_memory(failure)
                raise self._failed(str(row), failure) from failure
        return found

    def _together(self, examples: list[Any], rows: Tensor) -> Any:
        try:
            return _collated(examples) if self.collate is None else as_tensors(self.collate(examples))
        except DataError:
            raise
        except Exception as failure:
            raise_if_out_of_memory(failure)
            hint = (
                "give a DataLoader with a collate_fn that pads or converts them"
                if self.collate is None
                else "correct the collate_fn"
            )
            raise DataError(
                f"{self.name}: example {rows[0]} and those after it can't be put into one batch ({one_line(failure)}): {hint}"
            ) from failure

    def _failed(self, what: str, failure: Exception) -> DataError:
        return DataError(f"{self.name}: reading example {what} failed: {one_line(failure)}; correct the data set")

    def _by_workers(self, pieces: Iterator[Tensor], seed: int) -> Iterator[Any]:
        loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_sampler=_Lists(pieces),
            collate_fn=_collated if self.collate is None else self.collate,
            generator=generator(seed, "data", "workers"),
            **self.workers,
        )
        yield from map(in_single, followed(loader, f"{self.name}: a worker of the DataLoader"))


def followed(loader: Iterable[Any], what: str) -> Iterator[Any]:
    """Yield what a loader yields, as tensors.

    Raises:
        DataError: it fails; it says ``what`` did, on which batch, and the reason's last line: a worker's begins with its traceback.
    """
    number, stream = 0, iter(loader)
    while True:
        try:
            batch = next(stream)
        except StopIteration:
            return
        except Exception as failure:
            raise_if_out_of_memory(failure)
            kind, last = type(failure).__name__, (str(failure).strip().splitlines() or ["no message"])[-1]
            said = last if last.startswith(kind) else f"{kind}: {last}"
            raise DataError(f"{what} failed on batch {number}: {said}") from failure
        yield as_tensors(batch)
        number += 1


class _Lists:
    """Pieces as the lists of numbers that a ``DataLoader`` asks a data set for."""

    def __init__(self, pieces: Iterator[Tensor]) -> None:
        self.pieces = pieces

    def __iter__(self) -> Iterator[list[int]]:
        return (rows.tolist() for rows in self.pieces)


def reader_of(data: Any, name: str = "data") -> Reader:
    """Return how the examples of whatever the user handed over are read.

    Raises:
        DataError: it is a stream, or nothing that holds examples, or it is empty.
    """
    if is_stream(data):
        kind = type(data.dataset if isinstance(data, DataLoader) else data).__name__
        raise DataError(f"{name}: random access needed: got a stream ({kind}), which only calibration can take")
    if isinstance(data, DataLoader):
        return _of_loader(data, name)
    if isinstance(data, TensorDataset):
        data = data.tensors if len(data.tensors) > 1 else data.tensors[0]
    if is_array(data) or (isinstance(data, (tuple, Mapping)) and is_of_arrays(data)):
        return _not_empty(ArrayReader(in_single(as_tensors(data))), data, name)
    if isinstance(data, IterableDataset) or (isinstance(data, Iterator) and not hasattr(data, "__getitem__")):
        raise DataError(
            f"{name}: random access needed: got a stream ({type(data).__name__}), which only calibration can take"
        )
    if isinstance(data, (str, bytes, Mapping)) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise DataError(
            f"{name}: expected a map-style Dataset, a DataLoader, arrays, or a mapping of parts (train, test, ...): got "
            f"{described(data)}"
        )
    return _not_empty(SetReader(as_torch(data), name, origin=data), data, name)


def _of_loader(loader: DataLoader[Any], name: str) -> Reader:
    if loader.batch_sampler is None:
        raise DataError(
            f"{name}: expected a DataLoader that makes batches: got one with batch_size=None, whose examples can't be told apart"
        )
    workers: dict[str, Any] = {}
    if loader.num_workers:
        names = ("num_workers", "timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor")
        workers = {key: getattr(loader, key) for key in names}
        workers["pin_memory"] = loader.pin_memory and torch.cuda.is_available()
    own = None if loader.collate_fn is default_collate else loader.collate_fn
    return _not_empty(SetReader(as_torch(loader.dataset), name, own, workers, loader.dataset), loader.dataset, name)


def _not_empty(reader: Reader, data: Any, name: str) -> Reader:
    try:
        n = len(reader)
    except DataError:
        raise
    except Exception as error:  # a length that the user's own code can't tell
        raise_if_out_of_memory(error)
        raise DataError(f"{name}: {type(data).__name__}: its length can't be told: {one_line(error)}") from error
    if n == 0:
        raise DataError(f"{name}: the data yield no example: got an empty {type(data).__name__}")
    return reader


def as_torch(data: Any) -> Any:
    """Return a set of Hugging Face's so that it gives tensors, unless it has a format or a transform of its own."""
    if not callable(getattr(data, "with_format", None)) or not hasattr(data, "column_names"):
        return data
    own = getattr(data, "format", None)
    plain = not isinstance(own, Mapping) or own.get("type") in (None, "python")
    return data.with_format("torch") if plain else data


def class_names_of(data: Any) -> tuple[str, ...]:
    """Return the names of classes that a data set has: its ``classes``, or those of the label among its ``features``."""
    if isinstance(data, DataLoader):
        return class_names_of(data.dataset)
    if isinstance(data, Subset):
        return class_names_of(data.dataset)
    names = getattr(data, "classes", None)
    if isinstance(names, (list, tuple)):
        return tuple(map(str, names))
    features = getattr(data, "features", None)
    if isinstance(features, Mapping):
        for column in ("label", "labels"):
            names = getattr(features.get(column), "names", None)
            if isinstance(names, (list, tuple)):
                return tuple(map(str, names))
    return ()


def is_array(value: Any) -> bool:
    """Tell whether a value holds an example in each of its rows."""
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0


def is_of_arrays(data: tuple[Any, ...] | Mapping[str, Any]) -> bool:
    """Tell whether a tuple or mapping holds whole columns, not examples."""
    values = list(data.values()) if isinstance(data, Mapping) else list(data)
    return bool(values) and all(
        is_array(v) or (isinstance(v, (tuple, Mapping)) and is_of_arrays(v)) or _is_column(v) for v in values
    )


def _is_column(value: Any) -> bool:
    """Tell whether a list holds numbers: labels, mostly."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, (int, float)) for one in value)


def as_tensors(tree: Any) -> Any:
    """Return a structure with arrays and lists of numbers as tensors; double precision becomes single, as models have it."""
    if isinstance(tree, np.ndarray):
        if tree.dtype.kind not in "biuf":
            raise DataError(f"expected arrays of numbers: got dtype {tree.dtype}; encode labels as class numbers")
        tree = torch.from_numpy(np.ascontiguousarray(tree))
        return tree.float() if tree.dtype == torch.float64 else tree
    if _is_column(tree):
        return torch.tensor(tree)
    if isinstance(tree, Mapping):
        return {key: as_tensors(value) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [as_tensors(value) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def in_single(tree: Any) -> Any:
    """Return a structure with its double precision as single: a Python float becomes double in a batch."""
    if all(value.dtype != torch.float64 for _, value in tensors(tree)):
        return tree
    return map_tensors(lambda value: value.float() if value.dtype == torch.float64 else value, tree)


def _collated(examples: Sequence[Any]) -> Any:
    return default_collate([as_tensors(example) for example in examples])


def first_of_stream(data: Any, n: int, name: str) -> Reader:
    """Return the first ``n`` examples of an ``IterableDataset``, or of a ``DataLoader`` over one, kept as they come.

    Raises:
        DataError: nothing comes, or reading fails.
    """
    stream = data.dataset if isinstance(data, DataLoader) else data
    try:
        kept = list(islice(iter(stream), n))
    except Exception as failure:
        raise_if_out_of_memory(failure)
        raise DataError(f"{name}: reading the stream {type(stream).__name__} failed: {one_line(failure)}") from failure
    collate = data.collate_fn if isinstance(data, DataLoader) and data.collate_fn is not default_collate else None
    return _not_empty(SetReader(kept, name, collate, origin=stream, fixed=True), stream, name)


def is_stream(data: Any) -> bool:
    """Tell whether examples come one after the other only."""
    return isinstance(data.dataset if isinstance(data, DataLoader) else data, IterableDataset)
