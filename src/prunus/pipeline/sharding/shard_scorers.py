"""What scores the rows of a shard: a bundle, a model that a function of the user's builds, or a function of the columns?

Rows of plain numbers go to the model as they lie in the file, column after column: nothing is copied into rows first. Everything
else (categories, dates, missing values) is encoded as for ``prunus predict``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from prunus.core.code.imports import call, current_folder_importable, one_line, resolve
from prunus.core.errors import DataError, ModelError, PrunusError, RecipeError, near, raise_if_out_of_memory
from prunus.core.predictions import check_outputs_finite
from prunus.data.columns.fitted import Columns, NumberColumn
from prunus.data.sources.source import row_chunks
from prunus.data.sources.table_rows import read_rows
from prunus.pipeline.sharding.array_rows import array_blocks, array_column
from prunus.pipeline.shipping import bundle_folder
from prunus.score.examples.recording.answer_scores import answer_scores, known_scores
from prunus.ship import Bundle, load_bundle
from prunus.tasks import Regression

__all__ = ["OpenBundle", "OpenFunction"]

_BLOCK_ROWS = 2048
"""Rows that go through a model at once: their inputs and what a small model makes of them stay in a core's cache."""


@dataclass(frozen=True)
class OpenBundle:
    """Opens a bundle as what scores shards, in whatever process.

    Args:
        target: the label's column; None: scores that need no label.
        names: which scores; None: all that there are.
        size: which one of several sizes ``path`` has.
    """

    path: Path
    target: str | None = None
    names: tuple[str, ...] | None = None
    trust_code: bool = False
    size: float | None = None

    def bundle(self) -> Bundle:
        """Return the bundle.

        Raises:
            BundleError: it can't be loaded.
        """
        folder = self.path if self.size is not None else bundle_folder(self.path)
        return load_bundle(folder, trust_code=self.trust_code, size=self.size)

    def __call__(self) -> _ModelScorer:
        """Return what scores.

        Raises:
            BundleError: the bundle can't be loaded.
            ModelError: it doesn't take rows of a table, or has another task than classes or values.
            RecipeError: a score that there isn't.
        """
        bundle = self.bundle()
        task, takes = bundle.reader(), bundle.manifest.takes
        if not (task.exclusive or isinstance(task, Regression)):
            raise ModelError(f"{self.path}: shards are scored by models of classes or values: got one of {task.name}")
        if len(takes) != 1 or not takes[0].shape:
            raise ModelError(
                f"{self.path}: the rows of a shard are one row, or one array, of numbers each: this model takes others"
            )
        columns = bundle.columns
        if columns is None and bundle.feature_names:
            columns = Columns.of_features(bundle.feature_names, ())[0]
        order: tuple[int, ...] = ()
        if bundle.columns is None and columns is not None:
            order = tuple(columns.feature_names.index(name) for name in bundle.feature_names)
        return _ModelScorer(
            _Predicts(bundle),
            target=self.target,
            names=self.names,
            exclusive=task.exclusive,
            class_names=bundle.class_names,
            fitted=columns,
            order=order,
            shape=tuple(takes[0].shape),
        )


@dataclass(frozen=True)
class OpenFunction:
    """Calls ``module:function``, which returns a model in torch, or a function of a batch of columns, as what scores shards.

    Args:
        columns: those that it reads; default: all but the label's and ``leave_out``.
    """

    reference: str
    target: str | None = None
    names: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()

    def __call__(self) -> _ModelScorer | _FormulaScorer:
        """Return what scores.

        Raises:
            ModelError: there is no such function, it fails, or what it returns is neither.
        """
        function = resolve(self.reference, error=ModelError)
        made = call(function, {}, what=self.reference, key="its arguments", error=ModelError)
        if isinstance(made, nn.Module):
            return _ModelScorer(
                _Answers(made.eval(), self.reference),
                target=self.target,
                names=self.names,
                columns=self.columns,
                leave_out=self.leave_out,
            )
        if not callable(made):
            raise ModelError(
                f"{self.reference} must return a torch module, or a function of a batch of columns: got {type(made).__name__}"
            )
        if self.target is not None or self.names is not None:
            raise RecipeError(
                f"{self.reference} returns a function of columns, which says itself what it reads and gives: leave out the label's "
                "column and the scores"
            )
        return _FormulaScorer(made, self.reference, self.columns)


class _FormulaScorer:
    """A function of the user's: a batch of columns to columns of scores."""

    def __init__(self, function: Callable[..., Any], name: str, columns: tuple[str, ...] | None) -> None:
        self._function, self._name, self.columns = function, name, columns

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        with current_folder_importable():
            try:
                made = self._function(batch)
            except PrunusError:
                raise
            except Exception as error:
                raise_if_out_of_memory(error)
                raise DataError(f"{self._name} failed: {one_line(error)[:200]}") from error
        if not isinstance(made, Mapping) or not all(isinstance(name, str) for name in made):
            raise ModelError(f"{self._name} must give scores by their names, a mapping: got {type(made).__name__}")
        return {name: column if isinstance(column, pa.Array) else np.asarray(column) for name, column in made.items()}


class _Predicts:
    """A bundle's model, in the units of the data."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def __call__(self, rows: Tensor) -> Tensor:
        return self._bundle.predict(rows, batch_size=len(rows))


class _Answers:
    """A model of the user's."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self._model, self._name = model, name
        self._kind = next((value.dtype for value in model.parameters() if value.is_floating_point()), torch.float32)

    def __call__(self, rows: Tensor) -> Tensor:
        with torch.inference_mode():
            try:
                outputs = self._model(rows if rows.dtype == torch.int64 else rows.to(self._kind))
            except PrunusError:
                raise
            except Exception as error:
                raise_if_out_of_memory(error)
                raise ModelError(
                    f"the model of {self._name} fails on inputs {tuple(rows.shape)}: {one_line(error)[:200]}"
                ) from error
        if not isinstance(outputs, Tensor):
            raise ModelError(f"the model of {self._name} must give one tensor: got {type(outputs).__name__}")
        return outputs


class _ModelScorer:
    """A model, and the formulas that read its answers."""

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        target: str | None,
        names: tuple[str, ...] | None,
        exclusive: bool | None = None,
        class_names: Sequence[str] = (),
        fitted: Columns | None = None,
        order: tuple[int, ...] = (),
        shape: tuple[int, ...] | None = None,
        columns: tuple[str, ...] | None = None,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        self._model, self._target, self._names, self._exclusive = model, target, names, exclusive
        self._class_names, self._fitted, self._order, self._shape = tuple(class_names), fitted, order, shape
        self._left_out = {*leave_out, *([] if target is None else [target])}
        own = fitted.names if fitted is not None else columns
        self.columns = None if own is None else tuple(dict.fromkeys((*own, *([] if target is None else [target]))))
        self._own = own
        self._by_column = True
        if exclusive is not None:
            _check_names(names, exclusive=exclusive, labelled=target is not None)

    def __call__(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        """Return the scores of a batch's rows."""
        own = self._own or tuple(name for name in batch.schema.names if name not in self._left_out)
        arrays = None if self._fitted is not None else array_column(batch.schema, own)
        if arrays is not None:
            own = (arrays,)
        elif self._shape is not None and self._fitted is None and (len(own),) != self._shape:
            raise DataError(
                f"the model takes rows of shape {self._shape}: got {len(own)} columns of numbers besides the label"
            )
        outputs = self._outputs(batch.select(list(own)), own, arrays)
        exclusive = self._exclusive
        if exclusive is None:
            exclusive = outputs.ndim == 2 and outputs.shape[1] > 1
        n_classes = outputs.shape[1] if outputs.ndim == 2 else 1
        targets = None
        if self._target is not None:
            column = batch.column(self._target)
            targets = _classes(column, self._class_names, n_classes) if exclusive else _values(column)
        found = answer_scores(outputs, targets, exclusive=exclusive, names=self._names)
        return {name: self._column(name, value, exclusive) for name, value in found.items()}

    def _column(self, name: str, value: Tensor, exclusive: bool) -> Any:
        if name != "prediction" or not exclusive:
            return value.float().numpy()
        numbers = value.to(torch.int32).numpy()
        return pa.DictionaryArray.from_arrays(numbers, list(self._class_names)) if self._class_names else numbers

    def _outputs(self, batch: pa.RecordBatch, names: Sequence[str], arrays: str | None) -> Tensor:
        """Return the answers to a batch's rows, ``(rows, outputs)``, the answers of one output beside each other in memory."""
        outputs: Tensor | None = None
        start = 0
        shape = self._shape
        blocks = self._blocks(batch, names) if arrays is None else array_blocks(batch, arrays, shape, _BLOCK_ROWS)
        for rows in blocks:
            answer = self._answers(rows)
            flat = answer.reshape(len(answer), -1)
            if outputs is None:
                outputs = torch.empty(flat.shape[1], batch.num_rows, dtype=flat.dtype)
            outputs[:, start : start + len(flat)] = flat.T
            start += len(flat)
        assert outputs is not None
        if not bool(
            outputs.sum().isfinite()
        ):  # a sum of finite numbers may overflow, and says only that it is worth to look
            check_outputs_finite(outputs.T)
        return outputs.T

    def _answers(self, rows: Tensor) -> Tensor:
        """Return the model's answer; rows that lie column after column are laid out anew for a model that can't take them."""
        if self._by_column:
            try:
                return self._model(rows)
            except ModelError:
                if rows.is_contiguous():
                    raise
                self._by_column = False
        return self._model(rows.contiguous())

    def _blocks(self, batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[Tensor]:
        """Yield ``(rows, features)`` of so many rows at once as the processor's cache holds."""
        plain = self._fitted is None or all(
            isinstance(column, NumberColumn) and column.kind == "number" and not column.quantiles and not column.missing
            for column in self._fitted.columns
        )
        if plain and all(pa.types.is_floating(column.type) and not column.null_count for column in batch.columns):
            yield from self._as_they_lie(batch, names)
        else:
            yield from row_chunks(self._encoded(batch, names, 0), _BLOCK_ROWS)

    def _as_they_lie(self, batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[Tensor]:
        """Yield blocks of numbers, column after column; from the first on that holds more than finite ones, encoded."""
        columns = [column.to_numpy() for column in batch.columns]
        order = self._order or range(len(columns))
        kind = np.result_type(np.float32, *columns)
        for start in range(0, batch.num_rows, _BLOCK_ROWS):
            block = np.empty((len(columns), min(_BLOCK_ROWS, batch.num_rows - start)), kind)
            for place, which in enumerate(order):
                block[place] = columns[which][start : start + _BLOCK_ROWS]
            # A sum of finite numbers may overflow, and says only that it is worth to look.
            if not np.isfinite(block.sum()):
                yield from row_chunks(self._encoded(batch.slice(start), names, start), _BLOCK_ROWS)
                return
            yield torch.from_numpy(block).T

    def _encoded(self, batch: pa.RecordBatch, names: Sequence[str], first: int) -> Tensor:
        """Return rows of whatever kind as the model takes them, ``(rows, features)``; so many went ``first``."""
        if self._fitted is None:
            return torch.from_numpy(np.stack([_numbers(batch.column(name), name, first) for name in names], axis=1))
        found = read_rows(pa.Table.from_batches([batch]), self._fitted, Path("row"), order=self._order or None)
        if found.bad:
            bad = found.bad[0]
            where = f"row {first + bad.row} of these, column {bad.column!r}"
            raise DataError(f"{where}: expected {bad.expected}, got {bad.got}")
        return found.values


def _numbers(column: pa.Array, name: str, first: int = 0) -> np.ndarray[Any, Any]:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(
            f"column {name!r} holds {kind}: expected numbers; leave it out, or score with a bundle that knows it"
        )
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"column {name!r}: expected a finite number, got {values[bad[0]]} in row {first + bad[0]} of these"
        )
    found: np.ndarray[Any, Any] = values if pa.types.is_float64(kind) else values.astype(np.float32)
    return found


def _values(column: pa.Array) -> Tensor:
    return torch.from_numpy(_numbers(column, "the label"))


def _classes(column: pa.Array, class_names: Sequence[str], n_classes: int) -> Tensor:
    """Return class numbers for labels, which are the classes' names, or their numbers where they have none."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise DataError(f"the label of row {row} of these is missing")
    numbered = tuple(class_names) in ((), tuple(map(str, range(len(class_names)))))
    if numbered and pa.types.is_integer(column.type):
        numbers = column.cast(pa.int64()).to_numpy()
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= n_classes:
            raise DataError(f"labels are class numbers 0 to {n_classes - 1}: got {low if low < 0 else high}")
        return torch.from_numpy(numbers.copy())
    words = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    place = {name: number for number, name in enumerate(class_names or map(str, range(n_classes)))}
    names = [str(word) for word in words.dictionary.to_pylist()]
    used = np.unique(words.indices.to_numpy())
    unknown = next((names[number] for number in used.tolist() if names[number] not in place), None)
    if unknown is not None:
        raise DataError(f"unknown label {unknown!r}: {near(unknown, place)}")
    table = np.array([place.get(name, -1) for name in names], np.int64)
    return torch.from_numpy(table[words.indices.to_numpy()])


def _check_names(names: tuple[str, ...] | None, *, exclusive: bool, labelled: bool) -> None:
    known = known_scores(exclusive=exclusive, labelled=labelled)
    for name in names or ():
        if name not in known:
            hint = near(name, known)
            if not labelled:
                hint = f"it needs labels: say which column holds them; without, there are {', '.join(known)}"
            raise RecipeError(f"no score {name!r}: {hint}")
