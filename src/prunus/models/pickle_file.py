"""How is a ``.pt`` file read without running what is pickled inside, and without believing what it declares?

Its pickle is followed as data (``pickle_data``): what comes out is a description of tensors. Every description is compared with the
bytes that the archive holds for it before anything is allocated; then the bytes are read, once, and tensors made of them.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from prunus.core.code.imports import one_line
from prunus.core.errors import WeightsError, raise_if_out_of_memory
from prunus.core.files.expansion import check_expansion
from prunus.core.text import plain, shown
from prunus.models.pickle_data import Opaque, StorageEntry, TensorEntry, read_pickle

__all__ = ["picked", "read_checkpoint", "read_parts"]

NESTS = ("state_dict", "model_state_dict", "model")
_MAX_PICKLE_BYTES = 64 << 20
_MAX_RECORDS = 200_000
_DEEPEST = 6
_TRAINERS = ("optim", "lr_sched", "sched", "rng", "scaler", "callbacks", "loops")
"""What keys begin with that hold a trainer's state."""
_TIMES = 4
"""Views of one storage may overlap, but not by the thousand."""
_LOCAL_HEADER = 30
_DTYPES = {
    "Byte": "uint8", "Char": "int8", "Bool": "bool", "Half": "float16", "BFloat16": "bfloat16", "Short": "int16", "Int": "int32",
    "Float": "float32", "Double": "float64", "Long": "int64", "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}  # fmt: skip
_STORAGES = {f"torch {name}Storage": getattr(torch, dtype) for name, dtype in _DTYPES.items()}
_STORAGES["torch.storage UntypedStorage"] = torch.uint8


@dataclass(frozen=True)
class _Record:
    """Where the bytes of one storage lie in the file."""

    start: int
    size_bytes: int


def read_parts(path: Path, *, key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a ``.pt`` file that somebody else wrote, and what else is in it; see :func:`picked`.

    Raises:
        WeightsError: as :func:`read_checkpoint`, but that what is no tensor is left out.
    """
    return _read(path, lambda content: picked(content, path, TensorEntry, key=key))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.pt`` file: a state dict, or one under ``state_dict``, ``model_state_dict`` or ``model``.

    Names of the very same values (tied weights) share one tensor; other views of one storage come apart.

    Raises:
        WeightsError: the file is damaged, would run code, declares more elements than it holds, or holds no state dict.
    """
    return _read(path, lambda content: (_state_dict(content, path), []))[0]


def picked(content: Any, path: Path, kind: type, *, key: str | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return what of a checkpoint is of ``kind``, by name, and in words what isn't.

    Args:
        key: where it lies; default: under the first of the usual names that there is, or right at the top. Mappings inside are
            followed, with dots between the names.

    Raises:
        WeightsError: there is nothing under ``key``, or no mapping.
    """
    left: list[str] = []
    if isinstance(content, dict):
        usual = next((nest for nest in NESTS if isinstance(content.get(nest), dict)), None)
        chosen = usual if key is None else key
        if chosen is not None:
            if not isinstance(content.get(chosen), dict):
                there = ", ".join(shown(name, 40) for name in list(content)[:8])
                raise WeightsError(f"{path}: expected a state dict under {shown(chosen)}, got none; there are {there}")
            left = [_left(name, value, kind) for name, value in content.items() if name != chosen]
            content = content[chosen]
        else:
            apart = {name for name in content if str(name).startswith(_TRAINERS)}
            left = [_left(name, content[name], kind) for name in content if name in apart]
            content = {name: value for name, value in content.items() if name not in apart}
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a state dict (names and tensors), got {_kind(content)}")
    found: dict[str, Any] = {}
    pending = list(reversed([(str(name), value, 0) for name, value in content.items()]))
    while pending:
        name, value, depth = pending.pop()
        if isinstance(value, dict) and value and depth < _DEEPEST:
            pending += reversed([(f"{name}.{inner}", one, depth + 1) for inner, one in value.items()])
        elif isinstance(value, kind) and name not in found:
            found[name] = value
        else:
            left.append(_left(name, value, kind))
    return found, left


def _left(name: object, value: Any, kind: type) -> str:
    words = (
        f"{len(value)} entries" if isinstance(value, dict) else "tensor" if isinstance(value, kind) else _kind(value)
    )
    return f"{plain(str(name))[:80]} ({plain(words)[:60]})"


def _read(
    path: Path, pick: Callable[[Any], tuple[dict[str, TensorEntry], list[str]]]
) -> tuple[dict[str, Tensor], list[str]]:
    try:
        with path.open("rb") as file:
            program, records = _open(file, path)
            content, storages = read_pickle(program, path)
            _check_storages(storages, records, path)
            entries, left = pick(content)
            _check_views(entries, path)
            return _tensors(file, entries, records, path), left
    except OSError as error:
        raise WeightsError(f"{path}: this .pt file can't be read: {one_line(error)}") from error


def _open(file: BinaryIO, path: Path) -> tuple[bytes, dict[str, _Record]]:
    """Return the pickle, and where the bytes of every storage lie."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if len(set(names)) != len(names) or len(pickles) != 1 or len(entries) > _MAX_RECORDS:
                raise WeightsError(
                    f"{path}: refused, the archive is malformed: expected one data.pkl and each name once"
                )
            if (
                any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
                or sum(e.file_size for e in entries) > size
            ):
                raise WeightsError(
                    f"{path}: refused, its records are compressed or overlap, as torch.save never writes them; save it again"
                )
            if pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise WeightsError(f"{path}: refused, its data.pkl claims {pickles[0].file_size} bytes")
            program = archive.read(pickles[0])
            folder = pickles[0].filename.removesuffix("data.pkl")
            if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
                raise WeightsError(
                    f"{path}: it was written on a machine of another byte order; save it as .safetensors"
                )
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise_if_out_of_memory(error)
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(
            f"{path}: this is not a .pt file as PyTorch has written them since 1.6, or it is cut off; save it again with "
            "torch.save(model.state_dict(), ...), best as .safetensors"
        ) from error
    prefix = f"{folder}data/"
    held = [entry for entry in entries if entry.filename.startswith(prefix)]
    return program, {entry.filename.removeprefix(prefix): _record(file, entry, path) for entry in held}


def _record(file: BinaryIO, entry: zipfile.ZipInfo, path: Path) -> _Record:
    """Return where the bytes of a stored record are: behind its own header, which repeats the name and adds a padding."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    start = entry.header_offset + _LOCAL_HEADER + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    if len(header) < _LOCAL_HEADER or start + entry.file_size > path.stat().st_size:
        raise WeightsError(f"{path}: this .pt file is damaged: the record {shown(entry.filename)} reaches past its end")
    return _Record(start, entry.file_size)


def _check_storages(storages: list[StorageEntry], records: Mapping[str, _Record], path: Path) -> None:
    """Compare every storage's declared size with the bytes that the archive holds for it."""
    for storage in storages:
        record = records.get(storage.key)
        if record is None:
            raise WeightsError(
                f"{path}: this .pt file is damaged: the data of storage {shown(storage.key)} is not in it"
            )
        if storage.kind not in _STORAGES:
            raise WeightsError(f"{path}: refused, unknown storage type {shown(storage.kind)}")
        needed = storage.n_elements * _STORAGES[storage.kind].itemsize
        if not 0 <= needed <= record.size_bytes:
            raise WeightsError(
                f"{path}: refused, storage {shown(storage.key)} declares {_number(storage.n_elements)} elements ({_number(needed)} "
                f"bytes) and holds {record.size_bytes} bytes; the file is damaged or hostile"
            )


def _number(value: int) -> str:
    return str(value) if abs(value) < 2**200 else "too many"


def _state_dict(content: Any, path: Path) -> dict[str, TensorEntry]:
    """Return the mapping of names to tensors that a checkpoint holds."""
    if isinstance(content, dict):
        for nest in NESTS:
            if isinstance(content.get(nest), dict):
                content = content[nest]
                break
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a state dict (names and tensors), got {_kind(content)}")
    for name, value in content.items():
        if isinstance(value, Opaque) and value.what in (
            "torch.sparse_coo",
            "_rebuild_qtensor",
            "_rebuild_nested_tensor",
        ):
            raise WeightsError(f"{path}: {shown(name)} must be a plain dense tensor, got {value.what}")
        if not isinstance(name, str) or not isinstance(value, TensorEntry):
            raise WeightsError(
                f"{path}: expected a state dict (names and tensors), got {_kind(value)} under {shown(name)}; "
                f"a nested one is looked for under {', '.join(NESTS)}"
            )
    return content


def _kind(value: Any) -> str:
    return {TensorEntry: "Tensor", Opaque: getattr(value, "what", "")}.get(type(value), type(value).__name__)


def _dtype(entry: TensorEntry, path: Path) -> torch.dtype:
    dtype = _STORAGES[entry.storage.kind] if entry.dtype is None else getattr(torch, entry.dtype, None)
    if not isinstance(dtype, torch.dtype) or dtype.itemsize == 0:
        raise WeightsError(f"{path}: refused, unknown number type {shown(entry.dtype)}")
    return dtype


def _check_views(entries: Mapping[str, TensorEntry], path: Path) -> None:
    """Compare every tensor with its storage, and all of them with the file: views that repeat elements grow without end."""
    declared = 0
    for name, entry in entries.items():
        held = entry.storage.n_elements * _STORAGES[entry.storage.kind].itemsize
        if (entry.reach or entry.offset) * _dtype(entry, path).itemsize > held:
            raise WeightsError(
                f"{path}: refused, a tensor declares more elements than its storage holds ({shown(name)}); "
                "the file is damaged or hostile"
            )
    for entry in set(entries.values()):
        declared += entry.n_elements * _dtype(entry, path).itemsize
    check_expansion(path, declared, path.stat().st_size, WeightsError, times=_TIMES)


def _tensors(
    file: BinaryIO, entries: Mapping[str, TensorEntry], records: Mapping[str, _Record], path: Path
) -> dict[str, Tensor]:
    """Read what the entries describe; a storage is read once."""
    views = set(entries.values())
    users = Counter(entry.storage.key for entry in views)
    storages: dict[str, Tensor] = {}
    made: dict[TensorEntry, Tensor] = {}
    for entry in sorted(views, key=lambda view: records[view.storage.key].start):
        key = entry.storage.key
        if key not in storages:
            storages[key] = _bytes(file, records[key], path)
        try:
            values = torch.empty(0, dtype=_dtype(entry, path))
            values.set_(storages[key].untyped_storage(), entry.offset, entry.shape, entry.stride)
            for mark in entry.marks:
                values = values.conj() if mark == "conj" else -values
            alone = users[key] == 1 and values.is_contiguous() and not entry.marks
            made[entry] = values if alone else values.resolve_conj().clone(memory_format=torch.contiguous_format)
        except (RuntimeError, OverflowError) as error:
            raise_if_out_of_memory(error)
            raise WeightsError(f"{path}: this .pt file can't be read: {one_line(error)}") from error
    return {name: made[entry] for name, entry in entries.items()}


def _bytes(file: BinaryIO, record: _Record, path: Path) -> Tensor:
    values = torch.empty(record.size_bytes, dtype=torch.uint8)
    file.seek(record.start)
    if file.readinto(values.numpy()) != math.prod(values.shape):  # type: ignore[attr-defined]
        raise WeightsError(f"{path}: this .pt file is cut off; get it anew")
    return values
