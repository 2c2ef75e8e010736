"""How do tensors become bytes: the same bytes for the same weights, and few for zeros?

A tied tensor is stored once. A tensor with enough zeros is stored as one bit per element and the elements that aren't zero, both
compressed, when that is smaller; ``ship.sparse`` documents the format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from prunus.core.errors import BundleError, WeightsError
from prunus.core.text import shown
from prunus.models.safetensors_file import parse_header
from prunus.ship.manifest import TensorEntry
from prunus.ship.sparse import pack_sparse, unpack_sparse

__all__ = ["DTYPES", "check_header", "check_storable", "pack", "stored_size_bytes", "unpack"]

DTYPES = {
    name: getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
}
# safetensors' own names, for the check against the header before anything is allocated.
_HEADER = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
# Nothing real shrinks more; what claims to is refused before anything is allocated, unless it is small anyway.
_MOST_TIMES, _SMALL_BYTES = 1000, 2**28


def pack(
    model: nn.Module, more: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, TensorEntry]]:
    """Return the tensors to store, and how each tensor of the state dict (and of ``more``) is found in them.

    Raises:
        BundleError: a parameter is NaN or infinite, a buffer is NaN, or a type can't be stored.
    """
    state = {**model.state_dict(keep_vars=True), **(more or {})}
    stored: dict[str, Tensor] = {}
    entries: dict[str, TensorEntry] = {}
    first_name: dict[int, str] = {}
    for name in sorted(state):
        tensor = state[name]
        check_storable(name, tensor)
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape)
        original = first_name.setdefault(id(tensor), name)
        if original != name:
            entries[name] = TensorEntry(dtype=dtype, shape=shape, stored="alias", same_as=original)
            continue
        plain = tensor.detach().cpu().contiguous()
        packed = pack_sparse(plain) if plain.is_floating_point() else None
        if packed is None:
            stored[name] = plain.clone()  # safetensors refuses tensors that share memory
            entries[name] = TensorEntry(dtype=dtype, shape=shape)
        else:
            stored[name], parts = packed
            entries[name] = TensorEntry(dtype=dtype, shape=shape, stored="bitmask", parts=parts)
    return stored, entries


def unpack(content: bytes, entries: Mapping[str, TensorEntry], path: Path) -> dict[str, Tensor]:
    """Return the state dict that ``entries`` describe; names, types and sizes are checked before a tensor is made.

    Args:
        content: of a safetensors file.
        path: where it was read, for messages.

    Raises:
        BundleError: it isn't safetensors, isn't what the entries say, or holds a weight that is no number.
    """
    try:
        header, start = parse_header(content, path)
    except WeightsError as error:
        raise BundleError(f"{path}: expected a safetensors file: {error}; fetch or make the bundle anew") from error
    check_header(path, len(content), header, entries)
    state = {
        name: _read(content, header[name], start, entry, name, path)
        for name, entry in entries.items()
        if entry.stored != "alias"
    }
    return {name: state[entry.same_as or name] for name, entry in entries.items()}


def stored_size_bytes(model: nn.Module) -> int:
    """Return the bytes that the model's weights take in a bundle, header included: dense and pruned are counted alike."""
    return len(save(pack(model)[0]))


def check_storable(name: str, tensor: Any) -> None:
    """Raise a :class:`BundleError` unless a bundle can hold ``tensor``, and is to: broken numbers aren't shipped."""
    if not isinstance(tensor, Tensor) or str(tensor.dtype).removeprefix("torch.") not in DTYPES:
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise BundleError(f"the model's {name!r} can't be stored: expected a tensor of {', '.join(DTYPES)}, got {got}")
    if not tensor.is_floating_point():
        return
    bad = ~tensor.isfinite() if isinstance(tensor, nn.Parameter) else tensor.isnan()
    if bool(bad.any()):
        raise BundleError(
            f"the model's {name!r} has {int(bad.sum())} values that are NaN or infinite: it is broken and isn't shipped; "
            "train it anew with a lower learning_rate"
        )


def check_header(path: Path, size_bytes: int, header: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> None:
    """Compare the header of a file of ``size_bytes`` with what the manifest says of its tensors.

    Raises:
        BundleError: a name, a type or a shape differs, or compressed tensors claim more than such a file can hold.
    """
    whole = sum(math.prod(e.shape) * 8 for e in entries.values() if e.stored == "bitmask")
    allowed = max(_SMALL_BYTES, _MOST_TIMES * size_bytes)
    if whole > allowed:
        raise BundleError(
            f"{path}: its compressed tensors claim {whole} bytes, and at most {_MOST_TIMES} times the file are unpacked "
            f"(here {allowed}): this is no model; fetch or make the bundle anew"
        )
    needed = {name for name, entry in entries.items() if entry.stored != "alias"}
    if odd := sorted(set(header) - {"__metadata__"} ^ needed):
        raise BundleError(f"{path} and the manifest must list the same tensors: got a difference at {shown(odd[:3])}")
    for name in sorted(needed):
        entry, shape, dtype = entries[name], tuple(header[name]["shape"]), header[name]["dtype"]
        plain = entry.stored == "plain"
        wanted = (_HEADER.get(entry.dtype), entry.shape) if plain else ("U8", (sum(entry.parts),))
        if entry.dtype not in DTYPES or (dtype, shape) != wanted:
            what = entry.dtype if plain else "uint8"
            raise BundleError(f"{path}: {name!r} must be {what} {list(wanted[1])}, got {dtype} {list(shape)}")


def _read(content: bytes, found: Mapping[str, Any], start: int, entry: TensorEntry, name: str, path: Path) -> Tensor:
    first, last = found["data_offsets"]
    # A copy: it begins where its type may begin, and the file's bytes needn't stay.
    raw = torch.frombuffer(bytearray(content[start + first : start + last]) or bytearray(1), dtype=torch.uint8)
    raw = raw[: last - first]
    try:
        if entry.stored == "bitmask":
            tensor = unpack_sparse(raw, entry.parts, entry.shape, DTYPES[entry.dtype])
        else:
            if entry.dtype == "bool" and bool((raw > 1).any()):
                raise BundleError("a truth value must be 0 or 1")
            tensor = raw.view(DTYPES[entry.dtype]).reshape(entry.shape)
        check_storable(name, tensor)
    except BundleError as error:
        raise BundleError(f"{path}: {name!r}: {error}") from error
    return tensor
