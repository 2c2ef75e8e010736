"""How is a ``.pt`` file read without running what is pickled inside?

Only ``torch.load(weights_only=True)`` reads it. Before that, the pickle is walked as a list of instructions, none of which is
carried out, to check that no storage is declared larger than the bytes that the file holds for it.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.errors import WeightsError

__all__ = ["declared_storages", "read_checkpoint"]

NESTS = ("state_dict", "model_state_dict", "model")
_PUTS = ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE")
_GETS = ("BINGET", "LONG_BINGET", "GET")
_INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG")
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE")
_MAX_PICKLE_BYTES = 256 << 20
_BYTES = {
    1: ("Byte", "Char", "Bool"),
    2: ("Half", "BFloat16", "Short"),
    4: ("Float", "Int"),
    8: ("Double", "Long", "ComplexFloat"),
    16: ("ComplexDouble",),
}
_ELEMENT_BYTES = {f"torch {name}Storage": size for size, names in _BYTES.items() for name in names}
_ELEMENT_BYTES["torch.storage UntypedStorage"] = 1


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.pt`` file: a state dict, or one under ``state_dict``, ``model_state_dict`` or ``model``.

    Raises:
        WeightsError: the file is damaged, would run code, declares more elements than it holds, or holds no state dict.
    """
    _check_declared_sizes(path)
    try:
        # Mapped into memory, a storage can't reach past the end of the file whatever it declares.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused, it holds more than tensors{_culprit(str(error))} and reading that could run code; "
            "save model.state_dict() instead, best as .safetensors"
        ) from error
    except Exception as error:  # a hostile or damaged file can make the reader fail in any way
        text = " ".join(str(error).split())
        if "not resizable" in text or "out of bounds" in text:
            raise WeightsError(
                f"{path}: refused, a tensor declares more elements than its storage holds; the file is damaged or hostile"
            ) from error
        raise WeightsError(f"{path}: this .pt file can't be read: {type(error).__name__}: {text[:200]}") from error
    return {name: value.detach().clone() for name, value in _state_dict(content, path).items()}


def _culprit(text: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", text)
    return f" ({found.group(1)})" if found else ""


def _state_dict(content: Any, path: Path) -> Mapping[str, Tensor]:
    """Return the mapping of names to tensors that a checkpoint holds."""
    if isinstance(content, Mapping):
        for nest in NESTS:
            if isinstance(content.get(nest), Mapping):
                content = content[nest]
                break
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: expected a state dict (names and tensors), got {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: expected a state dict (names and tensors), got {type(value).__name__} under {name!r}; "
                f"a nested one is looked for under {', '.join(NESTS)}"
            )
        if value.layout != torch.strided or value.is_quantized:
            raise WeightsError(f"{path}: {name!r} must be a plain dense tensor, got {value.layout} {value.dtype}")
    return content


def _check_declared_sizes(path: Path) -> None:
    """Compare every storage's declared size with the bytes that the archive holds for it."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            pickles = [entry for entry in entries if entry.filename.rpartition("/")[2] == "data.pkl"]
            if len(set(names)) != len(names) or len(pickles) != 1:
                raise WeightsError(
                    f"{path}: refused, the archive is malformed: expected one data.pkl and each name once"
                )
            if pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise WeightsError(f"{path}: refused, its data.pkl claims {pickles[0].file_size} bytes")
            program = archive.read(pickles[0])
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: this is not a .pt file as PyTorch has written them since 1.6, or it is cut off; save it again with "
            "torch.save(model.state_dict(), ...), best as .safetensors"
        ) from error
    folder = pickles[0].filename.removesuffix("data.pkl")
    held = {entry.filename: entry.file_size for entry in entries}
    for key, kind, n_elements in declared_storages(program, path):
        size = held.get(f"{folder}data/{key}")
        if size is None:
            raise WeightsError(f"{path}: this .pt file is damaged: the data of storage {key!r} is not in it")
        needed = n_elements * _element_size(kind, path)
        if n_elements < 0 or needed > size:
            raise WeightsError(
                f"{path}: refused, storage {key!r} declares {n_elements} elements ({needed} bytes) and holds {size} bytes; "
                "the file is damaged or hostile"
            )


def declared_storages(program: bytes, path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield (key, storage type, elements) of each storage that a pickle refers to, without carrying anything out.

    Raises:
        WeightsError: a reference doesn't have the form that ``torch.save`` writes, so its size can't be told.
    """
    memo: dict[int, Any] = {}
    window: list[tuple[str, Any]] = []  # the operations since the last mark, memo writes left out
    try:
        for operation, argument, _ in pickletools.genops(program):
            name = operation.name
            if name in _PUTS:
                # What is stored is on top of the stack: known if it was pushed as a plain value just now.
                memo[len(memo) if argument is None else int(argument)] = window[-1] if window else ("", None)
                continue
            if name in _GETS:
                window.append(memo.get(int(argument or 0), ("", None)))
            elif name == "MARK":
                window = []
            elif name == "BINPERSID":
                yield _storage(window, path)
                window = [("", None)]
            else:
                window.append((name, argument))
    except WeightsError:
        raise
    except (ValueError, EOFError, IndexError, KeyError) as error:
        raise WeightsError(f"{path}: this .pt file is damaged: its pickle can't be followed") from error


def _storage(window: list[tuple[str, Any]], path: Path) -> tuple[str, str, int]:
    kinds = [name for name, _ in window]
    values = [value for _, value in window]
    plain = (
        len(window) == 6
        and kinds[0] in _TEXTS
        and values[0] == "storage"
        and kinds[1] == "GLOBAL"
        and kinds[2] in _TEXTS
        and kinds[3] in _TEXTS
        and kinds[4] in _INTEGERS
        and kinds[5] == "TUPLE"
    )
    if not plain:
        raise WeightsError(f"{path}: refused, a storage is referred to in a form that torch.save never writes")
    return str(values[2]), str(values[1]), int(values[4])


def _element_size(kind: str, path: Path) -> int:
    """Return the bytes per element of a storage type as pickled, ``torch FloatStorage``."""
    if kind not in _ELEMENT_BYTES:
        raise WeightsError(f"{path}: refused, unknown storage type {kind!r}")
    return _ELEMENT_BYTES[kind]
