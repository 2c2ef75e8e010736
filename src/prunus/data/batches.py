"""How are a user's data, whatever they are, gone through as examples that a model takes?

A ``DataLoader``, a map-style or an iterable ``Dataset``, a Hugging Face set, arrays, mappings and tuples of arrays, a list of
examples, or any stream of batches: a few of their examples are drawn and kept as they come. What the model takes is known from one
example of its inputs; what comes beside them are the targets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from prunus.core.batch import Batch
from prunus.core.calls import arguments, described, map_tensors, n_examples, select_rows, tensors
from prunus.core.errors import DataError, raise_if_out_of_memory
from prunus.core.runtime import generator
from prunus.data.sources.apart import is_text
from prunus.data.sources.reading import as_tensors, as_torch, followed, is_array, is_of_arrays
from prunus.data.sources.source import row_chunks

__all__ = ["Batches", "collect", "moved"]

_LOADER = "the DataLoader"
_CHUNK = 64
"""Examples of a map-style set that are put together in one batch."""


class Batches:
    """Examples in the batches in which they came, kept as they are; positions count through all of them.

    Not ``Examples``, though both yield batches: those have rows of a source that can be read again, so they can be split, repaired
    and drawn anew in each epoch. Here nobody may be able to come back: a stream was read once, and batches may be padded to sizes
    of their own, so that they make no rows of one tensor. What both have in common is ``Batched``, which is all that is asked of
    either.

    Args:
        parts: ``(inputs, targets)`` of one batch each; targets may be None. Sizes may differ from batch to batch (padding).
    """

    def __init__(self, parts: Sequence[tuple[Any, Any]]) -> None:
        self._parts = list(parts)
        self._sizes = [n_examples(arguments(inputs)) for inputs, _ in parts]

    def __len__(self) -> int:
        return sum(self._sizes)

    def __repr__(self) -> str:
        return f"Batches(n={len(self)}, inputs={described(self._parts[0][0])}, targets={described(self._parts[0][1])})"

    @property
    def labelled(self) -> bool:
        """Whether there are targets."""
        return bool(self._parts) and self._parts[0][1] is not None

    def divided(self, n: int, *, seed: int) -> tuple[Batches, Batches]:
        """Return ``n`` examples drawn at random, the same share of every batch as near as can be, and the rest."""
        total, draw = len(self), generator(seed, "data", "divided")
        first: list[tuple[Any, Any]] = []
        second: list[tuple[Any, Any]] = []
        taken = passed = 0
        for (inputs, targets), size in zip(self._parts, self._sizes, strict=True):
            passed += size
            here = round(n * passed / total) - taken
            taken += here
            order = torch.randperm(size, generator=draw)
            for rows, part in ((order[:here], first), (order[here:], second)):
                if len(rows):
                    part.append((select_rows(inputs, rows.sort().values), select_rows(targets, rows.sort().values)))
        return Batches(first), Batches(second)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield every example once, at most ``batch_size`` at a time; ``generator`` shuffles inside and among the batches."""
        order = range(len(self._parts))
        if generator is not None:
            order = torch.randperm(len(self._parts), generator=generator).tolist()  # type: ignore[assignment]
        starts = np.concatenate([[0], np.cumsum(self._sizes)])
        for number in order:
            (inputs, targets), size = self._parts[number], self._sizes[number]
            places = torch.arange(size) if generator is None else torch.randperm(size, generator=generator)
            whole = generator is None and size <= batch_size
            for rows in row_chunks(places, batch_size):
                part = (inputs, targets) if whole else (select_rows(inputs, rows), select_rows(targets, rows))
                yield Batch(rows + int(starts[number]), *part)


def collect(data: Any, like: Any, *, n: int = 512, seed: int = 0, device: torch.device | str = "cpu") -> Batches:
    """Return ``n`` examples of ``data`` (fewer where there are fewer): drawn at random where it can be indexed, else the first.

    Args:
        data: what holds the examples, with or without targets.
        like: inputs as the model takes them: a tensor, a tuple of positional arguments, or a mapping of keywords.

    Raises:
        DataError: nothing came, or what comes holds no such inputs.
    """
    parts: list[tuple[Any, Any]] = []
    left = n
    for batch in _drawn(data, like, n, seed):
        inputs, targets = _taken_apart(batch, like)
        size = n_examples(arguments(inputs))
        if size > left:
            rows = torch.arange(left)
            inputs, targets = select_rows(inputs, rows), select_rows(targets, rows)
        if parts and (targets is None) != (parts[0][1] is None):
            raise DataError(f"expected targets in every batch or in none: got {described(batch)} in batch {len(parts)}")
        _check_numbers(inputs, n - left)
        parts.append((moved(inputs, device), moved(targets, device)))
        left -= min(size, left)
        if left == 0:
            break
    if not parts:
        raise DataError(f"the data yield no example: got an empty {type(data).__name__}")
    return Batches(parts)


def _check_numbers(inputs: Any, first: int) -> None:
    """Refuse inputs that are not a number; infinities are left, since masks are made of them.

    Raises:
        DataError: it names the first example that has one.
    """
    for where, value in tensors(inputs):
        if value.is_floating_point() and bool((bad := value.isnan()).any()):
            row = int(bad.reshape(len(bad), -1).any(dim=1).int().argmax()) if value.dim() else 0
            raise DataError(
                f"expected numbers in {where or 'the inputs'}: got NaN in example {first + row} of those that are drawn; leave "
                "such examples out, or fill them"
            )


def moved(tree: Any, device: torch.device | str) -> Any:
    """Return a structure with its tensors on a device."""
    return map_tensors(lambda value: value.to(device), tree)


def _drawn(data: Any, like: Any, n: int, seed: int) -> Iterator[Any]:
    """Yield batches of examples, as they are."""
    if isinstance(data, DataLoader):
        yield from followed(data, _LOADER)
    elif isinstance(data, IterableDataset):
        yield from followed(DataLoader(data, batch_size=min(n, _CHUNK)), _LOADER)
    elif is_array(data) or isinstance(data, Mapping) or (isinstance(data, tuple) and is_of_arrays(data)):
        whole = as_tensors(data)
        size = n_examples(whole)
        for rows in row_chunks(_rows(size, n, seed), _CHUNK):
            yield select_rows(whole, rows)
    elif isinstance(data, str):
        raise DataError(
            f"expected examples, as arrays, a Dataset or a DataLoader: got the text {data!r}; ModelOptimizer and recipes read files"
        )
    elif isinstance(data, tuple) and any(map(is_array, data)) and any(map(_is_names, data)):
        raise DataError(
            "expected numbers in every part of the data: got a list of texts; encode labels as class numbers"
        )
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        yield from _of_a_set(data, n, seed)
    elif isinstance(data, Iterable):
        yield from (as_tensors(batch) for batch in data)
    else:
        raise DataError(
            f"expected a DataLoader, a Dataset, arrays, a list of examples or a stream of batches: got {described(data)}"
        )


def _is_names(part: Any) -> bool:
    return isinstance(part, list) and bool(part) and isinstance(part[0], str)


def _of_a_set(data: Any, n: int, seed: int) -> Iterator[Any]:
    """Yield batches of a map-style set: rows at random, put together as a ``DataLoader`` does."""
    data = as_torch(data)
    if len(data) == 0:
        return
    for rows in row_chunks(_rows(len(data), n, seed), _CHUNK):
        examples = [as_tensors(data[row]) for row in rows.tolist()]
        try:
            yield default_collate(examples)
        except (RuntimeError, TypeError, ValueError, KeyError) as failure:
            raise_if_out_of_memory(failure)
            raise DataError(
                f"examples {rows[0]} and those after it can't be put into one batch ({str(failure).splitlines()[0]}): give a "
                "DataLoader with a collate_fn that pads them"
            ) from failure


def _rows(size: int, n: int, seed: int) -> Tensor:
    """Return which rows are drawn, in their order."""
    return torch.randperm(size, generator=generator(seed, "data", "calibration"))[:n].sort().values


def _taken_apart(batch: Any, like: Any) -> tuple[Any, Any]:
    """Return the inputs and the targets (or None) of a batch.

    Raises:
        DataError: nothing in it is like what the model takes.
    """
    if isinstance(like, Mapping):
        if isinstance(batch, Mapping):
            missing = [key for key in like if key not in batch]
            if not missing:
                rest = {key: value for key, value in batch.items() if key not in like and not is_text(value)}
                targets = next(iter(rest.values())) if len(rest) == 1 else rest or None
                return {key: batch[key] for key in like}, targets
        elif isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[0], Mapping):
            inputs, none = _taken_apart(batch[0], like)
            return inputs, batch[1] if none is None else {"targets": batch[1], **none}
    elif isinstance(batch, Mapping):
        fitting = [key for key, value in batch.items() if _fits(value, like)]
        if len(fitting) == 1:
            rest = {key: value for key, value in batch.items() if key != fitting[0] and not is_text(value)}
            return batch[fitting[0]], (next(iter(rest.values())) if len(rest) == 1 else rest or None)
    elif isinstance(like, tuple):
        n = len(like)
        if isinstance(batch, (tuple, list)):
            if len(batch) == n and all(map(_fits, batch, like)):
                return tuple(batch), None
            if len(batch) == n + 1 and all(map(_fits, batch, like)):
                return tuple(batch[:n]), batch[n]
            if len(batch) == 2 and isinstance(batch[0], (tuple, list)) and len(batch[0]) == n:
                return tuple(batch[0]), batch[1]
    elif _fits(batch, like):
        return batch, None
    elif isinstance(batch, (tuple, list)) and batch and _fits(batch[0], like):
        rest_of = batch[1:]
        return batch[0], None if not rest_of else rest_of[0] if len(rest_of) == 1 else tuple(rest_of)
    raise DataError(
        f"expected batches that hold what the model takes, {described(like)}, alone or with targets after it: got "
        f"{described(batch)}"
    )


def _fits(value: Any, like: Any) -> bool:
    """Tell whether a value may stand where ``like`` does: as many dimensions, and numbers of the same sort."""
    if isinstance(like, list):
        return isinstance(value, (list, tuple)) and bool(value) and bool(like) and all(_fits(v, like[0]) for v in value)
    if not isinstance(like, Tensor):
        return not isinstance(value, Tensor) or math.prod(value.shape) == 1
    if not isinstance(value, Tensor):
        return False
    return value.dim() == like.dim() and value.is_floating_point() == like.is_floating_point()
