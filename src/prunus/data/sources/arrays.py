"""How is a ``.npz`` file read without ever running code from it?

Inputs are the array ``x``, ``inputs`` or ``data``; targets the array that the recipe names, else ``label``, ``target`` or ``y``;
``id``, ``class_names`` and ``feature_names`` are optional.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import DataError, near
from prunus.core.files.expansion import ROW_BYTES, check_expansion
from prunus.core.recipes.recipe import Data
from prunus.core.text import shown
from prunus.data.sources.exact_floats import exact, narrowed
from prunus.data.sources.source import ArraySource, check_ids, check_inputs
from prunus.data.sources.targets import read_targets

__all__ = [
    "TARGET_NAMES",
    "array_source",
    "array_to_tensor",
    "exact_tensor",
    "find_target",
    "open_npz",
    "raw_inputs",
    "read_npz",
    "read_npz_arrays",
    "read_npz_inputs",
]

_NPY = b"\x93NUMPY"

INPUT_NAMES = ("x", "X", "inputs", "data")
TARGET_NAMES = ("label", "target", "y")
"""Where the target is looked for when the recipe doesn't say; ``labels`` and ``targets`` are found, too."""

_SPELLINGS = {"label": "labels", "target": "targets"}


def read_npz(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of a ``.npz`` file.

    Raises:
        DataError: the file is damaged, or an array holds Python objects.
    """
    arrays = {}
    try:
        with path.open("rb") as file:
            if file.read(len(_NPY)) == _NPY:
                raise DataError(f"{path}: expected an .npz with several arrays, got one alone; save with numpy.savez")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                check_expansion(path, sum(member.file_size for member in members), path.stat().st_size, DataError)
                if len({member.filename for member in members}) != len(members):
                    raise DataError(f"{path}: this .npz file has two arrays of one name; save it again")
                for member in members:
                    name = member.filename.removesuffix(".npy")
                    with archive.open(member) as content:
                        arrays[name] = _read_array(content, name, member.file_size, path)
    except DataError:
        raise
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError) as error:
        raise DataError(
            f"{path}: this is not a readable .npz file ({type(error).__name__}); it may be damaged or cut off, save it again"
        ) from error
    return arrays


def _read_array(content: IO[bytes], name: str, held_bytes: int, path: Path) -> np.ndarray[Any, Any]:
    """Return one array; its shape is compared with the bytes that are there for it before any are read."""
    version = np.lib.format.read_magic(content)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read(content)
    if dtype.hasobject:
        raise DataError(
            f"{path}: the array {shown(name)} holds Python objects, which could run code when read; save it as numbers or text "
            "(array.astype(...))"
        )
    declared = math.prod(shape) * dtype.itemsize
    if any(size < 0 for size in shape) or declared > held_bytes:
        raise DataError(
            f"{path}: this is not a readable .npz file: the array {shown(name)} declares {shown(shape)} of {dtype}, "
            f"and {held_bytes} bytes are there for it: it is damaged "
            "or cut off, save it again"
        )
    array = (
        np.frombuffer(bytearray(content.read(declared)), dtype, count=math.prod(shape))
        if declared
        else np.empty(0, dtype)
    )
    return array.reshape(shape, order="F" if in_columns else "C")


def find_target(names: list[str], wanted: str | None, where: str, kind: str) -> str:
    """Return the name of the target among ``names``.

    Raises:
        DataError: it isn't there; the message suggests a near name.
    """
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{where}: there is no target {kind} {wanted!r} (data.target); {near(wanted, names)}")
        return wanted
    for name in TARGET_NAMES:
        for spelling in (name, _SPELLINGS.get(name, name)):
            if spelling in names:
                return spelling
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise DataError(f"{where}: no target {kind}: expected label, target or y, got {shown}; name it with data.target")


def array_to_tensor(array: np.ndarray[Any, Any], where: str, *, ids: bool = False) -> Tensor:
    """Return numbers as a tensor: uint8 stays, everything else becomes float32, or float64 where that would lose something.

    One number per example becomes one feature. With ``ids``, whole numbers become int64.
    """
    if ids:
        return torch.from_numpy(_numbers(array, where).astype(np.int64))
    tensor = torch.from_numpy(narrowed(_numbers(array, where), where))
    return tensor[:, None] if tensor.dim() == 1 else tensor


def exact_tensor(array: np.ndarray[Any, Any], where: str) -> Tensor:
    """Return a file's inputs to predict on, float32 or float64, unrounded; one number per example becomes one feature."""
    values = raw_inputs(array, where)
    return values[:, None] if values.dim() == 1 else values


def raw_inputs(value: Any, where: str = "inputs") -> Tensor:
    """Return inputs that somebody hands over to predict on, float32 or float64, with nothing rounded."""
    numbers = exact(_numbers(to_array(value), where), where)
    return torch.from_numpy(numbers.astype(np.float32) if numbers.dtype == np.uint8 else numbers)


def _numbers(array: np.ndarray[Any, Any], where: str) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected numbers, got {array.dtype}; convert it")
    if array.ndim == 0:
        raise DataError(f"{where}: expected one row per example, got a single number")
    return array


def to_array(value: Any) -> np.ndarray[Any, Any]:
    """Return a tensor, a list or anything array-like as a NumPy array on the CPU; a list of texts becomes a text array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())
    array = np.asarray(value)
    is_text = array.dtype == object and all(isinstance(item, str) for item in array.flat)
    return array.astype(np.str_) if is_text else array


def array_source(
    values: Tensor,
    raw_targets: np.ndarray[Any, Any],
    config: Data,
    *,
    column: str = "target",
    ids: tuple[str, ...] | None = None,
    class_names: tuple[str, ...] = (),
    feature_names: tuple[str, ...] = (),
    beside: Mapping[str, np.ndarray[Any, Any]] | None = None,
    notes: tuple[str, ...] = (),
) -> ArraySource:
    """Return a checked in-memory source.

    Raises:
        DataError: empty, lengths differ, NaN, or targets that can't be used.
    """
    name = config.source
    if len(values) != len(raw_targets):
        raise DataError(
            f"{name}: expected one target per input, got {len(values)} inputs and {len(raw_targets)} targets ({column!r})"
        )
    if values.numel() == 0:
        raise DataError(
            f"{name}: expected at least one example and one feature, got inputs of shape {tuple(values.shape)}"
        )
    ids = tuple(map(str, range(len(values)))) if ids is None else check_ids(ids, name)
    if len(ids) != len(values):
        raise DataError(f"{name}: expected one id per input, got {len(ids)} ids and {len(values)} inputs")
    if feature_names and len(feature_names) != values[0].numel():
        raise DataError(
            f"{name}: expected one name per feature, got {len(feature_names)} feature_names for inputs of shape "
            f"{tuple(values.shape[1:])}"
        )
    check_inputs(values, ids, name, feature_names)
    targets = read_targets(raw_targets, task=config.task, name=name, column=column, class_names=class_names)
    return ArraySource(
        name,
        ids,
        values,
        targets.values,
        targets.task,
        targets.class_names,
        feature_names=feature_names,
        beside=beside or {},
        label_kind="U" if class_names else raw_targets.dtype.kind,
        notes=notes,
    )


def open_npz(path: Path, config: Data) -> ArraySource:
    """Return the data set in a ``.npz`` file."""
    arrays = read_npz(path)
    values = array_to_tensor(*_inputs(arrays, path))
    column = find_target(list(arrays), config.target, str(path), "array")
    feature_names = _texts(arrays, "feature_names", path)
    return array_source(
        values,
        arrays[column],
        config,
        column=column,
        ids=_texts(arrays, "id", path) or None,
        class_names=_texts(arrays, "class_names", path),
        feature_names=feature_names,
        beside=_beside(arrays, config, len(values), path),
    )


def _beside(
    arrays: Mapping[str, np.ndarray[Any, Any]], config: Data, n_rows: int, path: Path
) -> dict[str, np.ndarray[Any, Any]]:
    """Return what other arrays say of each example: the time as numbers, else texts."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for key, name in config.beside.items():
        if name not in arrays:
            raise DataError(f"{path}: there is no array {name!r} (data.{key}); {near(name, arrays)}")
        array = arrays[name]
        kinds = "iufM" if key == "split.time" else "Uiub"
        if array.shape != (n_rows,) or array.dtype.kind not in kinds:
            wanted = "numbers or dates" if key == "split.time" else "whole numbers or texts"
            raise DataError(
                f"{path}: the array {name!r} (data.{key}): expected {n_rows} {wanted}, got {array.dtype} of shape {array.shape}"
            )
        if array.dtype.kind == "M":
            array = np.where(np.isnat(array), np.nan, array.astype("datetime64[us]").astype(np.float64))
        found[key] = array.astype(np.float64 if key == "split.time" else np.str_)
    return found


def read_npz_inputs(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """Return the ids and the raw inputs of a ``.npz`` file; the targets, if any, are not looked at."""
    arrays = read_npz(path)
    values = exact_tensor(*_inputs(arrays, path))
    ids = _texts(arrays, "id", path) or tuple(map(str, range(len(values))))
    if len(ids) != len(values):
        raise DataError(f"{path}: expected one id per input, got {len(ids)} ids and {len(values)} inputs")
    return check_ids(ids, str(path)), values


def read_npz_arrays(path: Path, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the ids and the arrays of these names, unrounded."""
    arrays = read_npz(path)
    if missing := [name for name in names if name not in arrays]:
        raise DataError(
            f"{path}: expected the arrays {', '.join(names)}, got {', '.join(arrays) or 'none'}: {missing[0]!r} is missing"
        )
    found = {name: raw_inputs(arrays[name], f"{path}: the array {name!r}") for name in names}
    lengths = {name: len(value) for name, value in found.items()}
    ids = _texts(arrays, "id", path) or tuple(map(str, range(lengths[names[0]])))
    if set(lengths.values()) != {len(ids)} or not ids:
        raise DataError(
            f"{path}: expected as many examples in every array, at least one: got {lengths}, {len(ids)} ids"
        )
    return check_ids(ids, str(path)), found


def _inputs(arrays: Mapping[str, np.ndarray[Any, Any]], path: Path) -> tuple[np.ndarray[Any, Any], str]:
    found = [name for name in INPUT_NAMES if name in arrays]
    if not found:
        raise DataError(
            f"{path}: no input array: expected one called x, inputs or data, got {', '.join(arrays) or 'no array'}"
        )
    array, where = arrays[found[0]], f"{path}: the array {found[0]!r}"
    if array.ndim:
        check_expansion(where, array.nbytes + ROW_BYTES * len(array), path.stat().st_size, DataError)
    return array, where


def _texts(arrays: Mapping[str, np.ndarray[Any, Any]], name: str, path: Path) -> tuple[str, ...]:
    if name not in arrays:
        return ()
    array = arrays[name]
    if array.ndim != 1 or array.dtype.kind not in "Uiu":
        raise DataError(f"{path}: the array {name!r} must be a list of texts, got {array.dtype} of shape {array.shape}")
    return tuple(map(str, array.tolist()))
