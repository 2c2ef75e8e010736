"""Is a ``.safetensors`` file what it claims to be, and which tensors does it hold?

The header is checked here first (length, JSON, names given twice, sizes), so that each mistake gets its own line; then
the ``safetensors`` package reads it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from prunus.core.errors import WeightsError, raise_if_out_of_memory
from prunus.core.files.json_text import check_json
from prunus.core.text import shown

__all__ = ["parse_header", "read_header", "read_safetensors"]

MAX_HEADER_BYTES = 100_000_000
"""The limit of the ``safetensors`` package itself."""

_NAMES_BY_BITS = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ",
    16: "I16 U16 F16 BF16",
    32: "I32 U32 F32",
    64: "I64 U64 F64 C64",
}
BITS = {name: bits for bits, names in _NAMES_BY_BITS.items() for name in names.split()}
"""By the format's name of a type: what one number takes."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file, on the CPU; it is read once.

    Raises:
        WeightsError: the file is cut off, its header is damaged or names a tensor twice.
    """
    content = path.read_bytes()
    header, _ = parse_header(content, path)
    try:
        tensors: dict[str, Tensor] = load(content)
        return {name: tensors[name] for name in header if name != "__metadata__"}
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise_if_out_of_memory(error)
        raise WeightsError(
            f"{path}: this is not a readable .safetensors file: {' '.join(str(error).split())}; save it again"
        ) from error


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a ``.safetensors`` file (an entry for each tensor, and ``__metadata__``), and where the data starts.

    Raises:
        WeightsError: the file is cut off, or its header is damaged, names a tensor twice, or has extents that aren't those of its
            tensors, one after the other.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        _check_length(prefix, size, path)
        return parse_header(prefix + file.read(int.from_bytes(prefix, "little")), path, size)


def parse_header(content: bytes, path: Path, size: int | None = None) -> tuple[dict[str, Any], int]:
    """Return the header at the start of ``content`` and where the data starts, as :func:`read_header` does.

    Args:
        size: of the whole file, where ``content`` is only its start.
    """
    size = len(content) if size is None else size
    length = _check_length(content[:8], size, path)
    text = content[8 : 8 + length]
    try:
        check_json(text, max_bytes=MAX_HEADER_BYTES)
        header = json.loads(text.decode("utf-8"), object_pairs_hook=lambda pairs: _without_duplicates(pairs, path))
    except WeightsError:
        raise
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: this is not a .safetensors file: its header is no JSON ({type(error).__name__})"
        ) from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: this is not a .safetensors file: its header is a {type(header).__name__}")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{path}: the header's __metadata__ must be texts by name, got {shown(metadata)}")
    _check_extents({name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + length, size, path)
    return header, 8 + length


def _check_length(prefix: bytes, size: int, path: Path) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or (length <= MAX_HEADER_BYTES and 8 + length > size):
        raise WeightsError(
            f"{path}: this .safetensors file is cut off: {size} bytes don't even hold its header; get it anew"
        )
    if length > MAX_HEADER_BYTES:
        raise WeightsError(f"{path}: this is not a .safetensors file: it claims a header of {length} bytes")
    return length


def _check_extents(entries: Mapping[str, Any], start: int, size: int, path: Path) -> None:
    """Check that the tensors lie one after the other from ``start`` to the end, each as long as its type and shape say."""
    for name, entry in entries.items():
        if not _is_entry(entry):
            raise WeightsError(
                f"{path}: the header entry {shown(name)} is damaged: {shown(entry)}; save the file again"
            )
    place = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        bits = BITS[entry["dtype"]] * math.prod(entry["shape"])
        if begin != place or 8 * (end - begin) != bits:
            raise WeightsError(
                f"{path}: the header entry {shown(name)} is damaged: expected {-(-bits // 8)} bytes from {place} on for "
                f"{entry['dtype']} {shown(entry['shape'])}, got {begin} to {end}; save the file again"
            )
        place = end
    if start + place > size:
        raise WeightsError(
            f"{path}: this .safetensors file is cut off: expected {start + place} bytes, got {size}; get it anew"
        )
    if start + place < size:
        raise WeightsError(
            f"{path}: this is not a readable .safetensors file: {size - start - place} bytes at its end belong to no tensor; "
            "save it again"
        )


def _is_entry(entry: Any) -> bool:
    """Return whether a header entry has a type, a shape and extents, of whole numbers that a file can hold."""

    def sizes(values: Any) -> bool:
        return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)

    return (
        isinstance(entry, dict)
        and set(entry) == {"dtype", "shape", "data_offsets"}
        and isinstance(entry["dtype"], str)
        and entry["dtype"] in BITS
        and sizes(entry["shape"])
        and sizes(entry["data_offsets"])
        and len(entry["data_offsets"]) == 2
    )


def _without_duplicates(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise WeightsError(
                f"{path}: the header names {shown(key)} twice, so it isn't clear which one holds; save the file again"
            )
        found[key] = value
    return found
