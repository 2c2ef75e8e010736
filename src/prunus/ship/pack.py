"""How do tensors become bytes: the same bytes for the same weights, and few for zeros?

A tied tensor is stored once. A tensor with enough zeros is stored as one bit per element plus the elements that aren't zero,
when that is smaller; ``ship.manifest.TensorEntry`` documents the format.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from prunus.core.errors import BundleError
from prunus.ship.manifest import TensorEntry

__all__ = ["check_storable", "pack", "pack_mask", "stored_size_bytes", "unpack", "unpack_mask"]

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_DTYPES = {
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
# What a second entry in the header costs, about.
_ENTRY_BYTES = 100


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
        parts = pack_mask(plain) if plain.is_floating_point() else None
        if parts is None or {f"{name}.mask", f"{name}.values"} & set(state):
            stored[name] = plain.clone()  # safetensors refuses tensors that share memory
            entries[name] = TensorEntry(dtype=dtype, shape=shape)
        else:
            stored[f"{name}.mask"], stored[f"{name}.values"] = parts
            entries[name] = TensorEntry(dtype=dtype, shape=shape, stored="bitmask")
    return stored, entries


def unpack(path: Path, entries: Mapping[str, TensorEntry]) -> dict[str, Tensor]:
    """Return the state dict that ``entries`` describe; names, types and sizes are checked before a tensor is made.

    Raises:
        BundleError: the file isn't safetensors, or isn't what the entries say.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            _check_header(path, file, entries)
            state = {name: _read(file, name, entry, path) for name, entry in entries.items() if entry.stored != "alias"}
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: expected a safetensors file, got {error}; fetch or make the bundle anew") from error
    return {name: state[entry.same_as or name] for name, entry in entries.items()}


def pack_mask(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return (mask, values) of a contiguous tensor, or None where that isn't smaller.

    >>> mask, values = pack_mask(torch.eye(64))
    >>> mask.shape, values.shape
    (torch.Size([512]), torch.Size([64]))
    """
    flat = tensor.flatten()
    kept = flat.view(_BITS[flat.element_size()]) != 0  # by bit pattern: -0.0 isn't +0.0
    n_bytes = (flat.numel() + 7) // 8 + int(kept.sum()) * flat.element_size() + _ENTRY_BYTES
    if n_bytes >= flat.numel() * flat.element_size():
        return None
    return torch.from_numpy(np.packbits(kept.numpy())), flat[kept]


def unpack_mask(mask: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the tensor that :func:`pack_mask` took apart.

    Raises:
        BundleError: the mask has another size or another number of bits than there are values.
    """
    n = math.prod(shape)
    if mask.shape != ((n + 7) // 8,):
        raise BundleError(f"a mask for the shape {shape} has {(n + 7) // 8} bytes: got {tuple(mask.shape)}")
    kept = torch.from_numpy(np.unpackbits(mask.numpy(), count=n).astype(bool))
    if values.shape != (int(kept.sum()),):
        raise BundleError(f"a mask with {int(kept.sum())} bits needs as many values: got {tuple(values.shape)}")
    flat = torch.zeros(n, dtype=values.dtype)
    flat[kept] = values
    return flat.view(shape)


def stored_size_bytes(model: nn.Module) -> int:
    """Return the bytes that the model's weights take in a bundle, header included: dense and pruned are counted alike."""
    return len(save(pack(model)[0]))


def check_storable(name: str, tensor: Any) -> None:
    """Raise a :class:`BundleError` unless a bundle can hold ``tensor``, and is to: broken numbers aren't shipped."""
    if not isinstance(tensor, Tensor) or str(tensor.dtype).removeprefix("torch.") not in _DTYPES:
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise BundleError(f"the model's {name!r} can't be stored: expected a tensor of {', '.join(_DTYPES)}, got {got}")
    if not tensor.is_floating_point():
        return
    bad = ~tensor.isfinite() if isinstance(tensor, nn.Parameter) else tensor.isnan()
    if bool(bad.any()):
        raise BundleError(
            f"the model's {name!r} has {int(bad.sum())} values that are NaN or infinite: it is broken and isn't shipped; "
            "train it anew with a lower learning_rate"
        )


def _check_header(path: Path, file: Any, entries: Mapping[str, TensorEntry]) -> None:
    needed: dict[str, str] = {}
    for name, entry in entries.items():
        if entry.stored == "bitmask":
            needed |= {f"{name}.mask": name, f"{name}.values": name}
        elif entry.stored == "plain":
            needed[name] = name
    if odd := sorted(set(file.keys()) ^ set(needed)):
        raise BundleError(f"{path} and the manifest must list the same tensors: got a difference at {odd[:3]}")
    for key, name in needed.items():
        entry, part = entries[name], file.get_slice(key)
        shape, dtype = tuple(part.get_shape()), part.get_dtype()
        wanted = "U8" if key.endswith(".mask") and entry.stored == "bitmask" else _HEADER.get(entry.dtype)
        if dtype != wanted or (entry.stored == "plain" and shape != entry.shape):
            raise BundleError(f"{path}: {key!r} must be {entry.dtype} {list(entry.shape)}, got {dtype} {list(shape)}")
        if key.endswith(".mask") and entry.stored == "bitmask" and shape != ((math.prod(entry.shape) + 7) // 8,):
            raise BundleError(f"{path}: {key!r} is no mask for the shape {list(entry.shape)}: got {list(shape)} bytes")


def _read(file: Any, name: str, entry: TensorEntry, path: Path) -> Tensor:
    if entry.stored == "bitmask":
        try:
            return unpack_mask(file.get_tensor(f"{name}.mask"), file.get_tensor(f"{name}.values"), entry.shape)
        except BundleError as error:
            raise BundleError(f"{path}: {name!r}: {error}") from error
    tensor: Tensor = file.get_tensor(name)
    return tensor.clone()  # not a view of the file, which may be replaced
