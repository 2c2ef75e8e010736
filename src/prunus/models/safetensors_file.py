"""Is a ``.safetensors`` file what it claims to be, and which tensors does it hold?

The header is checked here first (length, JSON, names given twice, sizes), so that each mistake gets its own line; then
the ``safetensors`` package reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from prunus.core.errors import WeightsError

__all__ = ["read_header", "read_safetensors"]

MAX_HEADER_BYTES = 100_000_000
"""The limit of the ``safetensors`` package itself."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file, on the CPU.

    Raises:
        WeightsError: the file is cut off, its header is damaged or names a tensor twice.
    """
    read_header(path)
    try:
        tensors: dict[str, Tensor] = load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: this is not a readable .safetensors file: {' '.join(str(error).split())}; save it again"
        ) from error
    return tensors


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a ``.safetensors`` file (an entry for each tensor, and ``__metadata__``), and where the data starts.

    Raises:
        WeightsError: the file is cut off, its header is damaged or names a tensor twice.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or (length <= MAX_HEADER_BYTES and 8 + length > size):
            raise WeightsError(
                f"{path}: this .safetensors file is cut off: {size} bytes don't even hold its header; get it anew"
            )
        if length > MAX_HEADER_BYTES:
            raise WeightsError(f"{path}: this is not a .safetensors file: it claims a header of {length} bytes")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=lambda pairs: _without_duplicates(pairs, path))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(
            f"{path}: this is not a .safetensors file: its header is no JSON ({type(error).__name__})"
        ) from error
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: this is not a .safetensors file: its header is a {type(header).__name__}")
    ends = [0]
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if (
            not isinstance(offsets, list)
            or len(offsets) != 2
            or not all(isinstance(o, int) and o >= 0 for o in offsets)
        ):
            raise WeightsError(f"{path}: the header entry {name!r} is damaged: {str(entry)[:80]}; save the file again")
        ends.append(offsets[1])
    if 8 + length + max(ends) > size:
        raise WeightsError(
            f"{path}: this .safetensors file is cut off: expected {8 + length + max(ends)} bytes, got {size}; get it anew"
        )
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise WeightsError(
                f"{path}: the header names {key!r} twice, so it isn't clear which one holds; save the file again"
            )
        found[key] = value
    return found
