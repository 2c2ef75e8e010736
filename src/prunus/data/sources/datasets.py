"""How does a user's own torch ``Dataset`` of (input, target) pairs become the source of a recipe?

Every example is read once to learn its target and shape, since the model is built for them; inputs are read again whenever they are
needed. What has to have whole numbers or files does so by another way (``data.sources.drawn``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from prunus.core.code.imports import call, current_folder_importable, one_line, resolve
from prunus.core.errors import DataError, raise_if_out_of_memory
from prunus.core.recipes.recipe import Data
from prunus.core.runtime import seeded
from prunus.data.sources.arrays import array_source, array_to_tensor, to_array
from prunus.data.sources.exact_floats import exact
from prunus.data.sources.source import Source, Task, check_inputs
from prunus.data.sources.targets import read_targets

__all__ = ["DatasetSource", "open_dataset", "read_dataset"]


class DatasetSource:
    """A data set whose labels are known, and whose inputs are read from the user's ``Dataset`` whenever they are asked for."""

    feature_names: tuple[str, ...] = ()
    fixed = False
    """An augmentation gives another input each time."""

    def __init__(
        self,
        dataset: Any,
        *,
        name: str,
        targets: Tensor,
        task: Task,
        class_names: tuple[str, ...],
        input_shape: Any,
        dtype: torch.dtype = torch.float32,
        label_kind: str = "U",
    ) -> None:
        self.name, self.targets, self.task, self.class_names = name, targets, task, class_names
        self.ids = tuple(map(str, range(len(targets))))
        self.input_shape = tuple(input_shape)
        self._dataset, self._dtype, self.label_kind = dataset, dtype, label_kind

    def inputs(self, rows: Tensor, seed: int = 0) -> Tensor:
        """Return the raw inputs of some rows, float64 if float32 doesn't hold every value; what is drawn hangs on ``seed``."""
        first = int(rows[0]) if len(rows) else 0
        with current_folder_importable(), seeded(seed, "data", "from row", first):
            read = [_example(self._dataset, row, self.name)[0].to(self._dtype) for row in rows.tolist()]
            read = [value.reshape(self.input_shape) for value in read]
        return torch.stack(read) if read else torch.empty(0, *self.input_shape)


def open_dataset(config: Data, given: Any = None) -> Source:
    """Return the data set that the user's ``module:function`` gives, or has ``given``.

    Whatever it draws at random without a seed of its own is drawn from ``data.split.seed``.

    Raises:
        DataError: no such function, it fails, what it returns is not a map-style ``Dataset`` of (input, target) pairs,
            or inputs differ in shape.
    """
    given = handed_by(config) if given is None else given
    with seeded(config.split.seed, "data"):
        return read_dataset(given, config)


def handed_by(config: Data) -> Any:
    """Return what the user's ``module:function`` returns."""
    with seeded(config.split.seed, "data"):
        function = resolve(config.source, error=DataError)
        return call(function, config.args, what=config.source, key="data.args", error=DataError)


def read_dataset(dataset: Any, config: Data, *, ids: bool = False) -> Source:
    """Return the source that a map-style ``Dataset`` of (input, target) pairs makes; ``config.source`` names it.

    Args:
        ids: the inputs stay whole numbers.

    Raises:
        DataError: it is none, reading an example fails, or inputs differ in shape.
    """
    _check_map_style(dataset, config.source)
    names = _class_names(dataset)
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2 and dataset.tensors[1].dim() == 1:
        values, targets = dataset.tensors
        return array_source(
            array_to_tensor(to_array(values), config.source, ids=ids), to_array(targets), config, class_names=names
        )
    with current_folder_importable():
        return _read_all(dataset, config, names, ids)


def _check_map_style(dataset: Any, name: str) -> None:
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset | DataLoader):
        raise DataError(
            f"{name}: expected a map-style torch Dataset, got {kind}; return one with __len__ and __getitem__"
        )
    if isinstance(dataset, str | bytes | dict) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(f"{name}: expected a map-style torch Dataset, got {kind}; return one from the function")


def _read_all(dataset: Any, config: Data, class_names: tuple[str, ...], ids: bool) -> Source:
    name = config.source
    try:
        n_examples = len(dataset)
    except Exception as error:
        raise_if_out_of_memory(error)
        raise DataError(f"{name}: its length can't be told: {one_line(error)}") from error
    if n_examples == 0:
        raise DataError(f"{name}: expected at least one example, got an empty set")
    labels: list[Any] = []
    shape: tuple[int, ...] | None = None
    dtype = torch.float32
    for row in range(n_examples):
        value, label = _example(dataset, row, name)
        shape = tuple(value.shape) if shape is None else shape
        if tuple(value.shape) != shape:
            raise DataError(
                f"{name}: all inputs must have one shape: sample '{row}' has {tuple(value.shape)}, sample '0' has {shape}; "
                "resize or pad them in the data set"
            )
        check_inputs(value[None], (str(row),), name)
        dtype = torch.promote_types(dtype, value.dtype)
        labels.append(label)
    raw = _labels(labels, name)
    targets = read_targets(raw, task=config.task, name=name, class_names=class_names)
    assert shape is not None
    return DatasetSource(
        dataset,
        name=name,
        targets=targets.values,
        task=targets.task,
        class_names=targets.class_names,
        input_shape=shape or (1,),
        dtype=torch.int64 if ids else dtype,
        label_kind="U" if class_names else raw.dtype.kind,
    )


def _example(dataset: Any, row: int, name: str) -> tuple[Tensor, Any]:
    """Return one example as (input, target), the input as uint8, float32 or, where that would round, float64."""
    try:
        pair = dataset[row]
    except Exception as error:
        raise_if_out_of_memory(error)
        raise DataError(f"{name}: reading sample '{row}' failed: {one_line(error)}; correct the data set") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
        raise DataError(f"{name}: sample '{row}' must be an (input, target) pair, got {type(pair).__name__}{size}")
    value, label = pair
    try:
        array = to_array(value)
    except Exception as error:
        raise_if_out_of_memory(error)
        raise DataError(
            f"{name}: the input of sample '{row}' is no array: {one_line(error)}; return a tensor"
        ) from error
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: the input of sample '{row}' must be a tensor of numbers, got {type(value).__name__}; convert it"
        )
    return torch.from_numpy(np.array(exact(array, f"{name}: sample '{row}'"), copy=True)), label


def _labels(labels: list[Any], name: str) -> np.ndarray[Any, Any]:
    plain: list[bool | int | float | str] = []
    for row, label in enumerate(labels):
        value = label
        if isinstance(label, Tensor | np.ndarray | np.generic) and int(np.prod(label.shape)) == 1:
            value = label.item()
        if not isinstance(value, bool | int | float | str):
            shape = f" of shape {tuple(label.shape)}" if hasattr(label, "shape") else ""
            raise DataError(
                f"{name}: the target of sample '{row}' must be one number or text, got {type(label).__name__}{shape}"
            )
        if plain and isinstance(value, str) != isinstance(plain[0], str):
            raise DataError(
                f"{name}: sample '{row}' has the target {value!r}, sample '0' has {plain[0]!r}: use one kind"
            )
        plain.append(value)
    return np.asarray(plain)


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Return what torchvision's data sets call ``classes``, where there is such a list."""
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()
