"""Do these numbers make the tensor that the model takes: type, shape, values?

Binary data become an array without a copy. Every refusal names the field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from prunus.core.text import shown
from prunus.serve.refusal import Refusal
from prunus.serve.wire.datatypes import BY_DATATYPE
from prunus.serve.wire.tensor_specs import TensorSpec

__all__ = ["Array", "check_named_sizes", "check_shape", "check_values", "from_bytes", "from_json"]

Array = np.ndarray[Any, Any]


def check_shape(given: Any, spec: TensorSpec, field: str, most_examples: int) -> tuple[int, ...]:
    """Return the shape that a request says, where the model takes it.

    Raises:
        Refusal: it is no list of sizes, or one that the model doesn't take.
    """
    if type(given) is not list or not all(type(size) is int and 0 <= size < 2**31 for size in given):
        raise Refusal(400, f"{field}: expected a list of whole sizes, got {shown(given)}", field=field)
    shape = tuple(given)
    if shape[1:] != spec.fixed or not shape:
        fits = len(shape) == 1 + len(spec.sizes) and all(
            size in span for size, span in zip(shape[1:], spec.sizes, strict=False)
        )
        if not fits:
            wanted = ", ".join(["n", *map(str, spec.sizes)])
            raise Refusal(400, f"{field}: {spec.name!r} must be of shape [{wanted}], got {shown(given)}", field=field)
    if not 1 <= shape[0] <= most_examples:
        raise Refusal(400, f"{field}: expected 1 to {most_examples} examples in a request, got {shape[0]}", field=field)
    return shape


def check_named_sizes(specs: Sequence[TensorSpec], shapes: Sequence[tuple[int, ...]]) -> None:
    """Check that sizes of one name are equal, and that every tensor has as many examples.

    Raises:
        Refusal: they aren't.
    """
    seen: dict[str, tuple[int, str]] = {}
    for spec, shape in zip(specs, shapes, strict=True):
        for place, (size, name) in enumerate(zip(shape, ("batch", *(s.name for s in spec.sizes)), strict=True)):
            if not name:
                continue
            first, whose = seen.setdefault(name, (size, spec.name))
            if first != size:
                raise Refusal(
                    400,
                    f"{spec.name!r} has the size {size} in dimension {place} where {whose!r} has {first}: they must be equal",
                    field=spec.name,
                )


def from_bytes(content: bytes, offset: int, size: int, spec: TensorSpec, shape: tuple[int, ...], field: str) -> Array:
    """Return a tensor that lies in ``content``, which isn't copied.

    Raises:
        Refusal: there are more or fewer bytes than the shape takes.
    """
    count = math.prod(shape)
    if size != count * spec.dtype.itemsize:
        raise Refusal(
            400,
            f"{field}: {list(shape)} of {spec.datatype} are {count * spec.dtype.itemsize} bytes, got {size}",
            field=field,
        )
    kind = BY_DATATYPE["UINT8"] if spec.datatype == "BOOL" else spec.dtype
    found = np.frombuffer(content, kind, count, offset).reshape(shape)
    if spec.datatype == "BOOL":
        if count and int(found.max()) > 1:
            raise Refusal(400, f"{field}: truth values are the bytes 0 and 1, got {int(found.max())}", field=field)
        return found.view(np.bool_)
    return found


def from_json(given: Any, spec: TensorSpec, shape: tuple[int, ...], field: str) -> Array:
    """Return a tensor of JSON values, nested or flat, row by row.

    Raises:
        Refusal: they are no numbers of the type, or not as many as the shape takes.
    """
    if type(given) is not list:
        raise Refusal(400, f"{field}: expected a list of numbers, got {shown(given)}", field=field)
    try:
        raw = np.array(given)
    except (ValueError, OverflowError):
        raise Refusal(400, f"{field}: expected lists of equal length, got ragged ones", field=field) from None
    if raw.size != math.prod(shape) or (raw.ndim != 1 and raw.shape != shape):
        raise Refusal(
            400, f"{field}: expected {list(shape)} ({math.prod(shape)} values), got {list(raw.shape)}", field=field
        )
    kind, wanted = raw.dtype.kind, spec.dtype.kind
    if wanted == "b" and kind == "i" and raw.size and int(raw.min()) >= 0 and int(raw.max()) <= 1:
        kind = "b"
    allowed = {"b": "b", "f": "fiu", "i": "iu", "u": "iu"}[wanted]
    if kind not in allowed:
        words = {"b": "truth values", "f": "numbers"}.get(wanted, "whole numbers")
        got = {"f": "fractions", "b": "truth values", "U": "texts", "O": "null, other things or too large a number"}
        raise Refusal(400, f"{field}: expected {words} ({spec.datatype}), got {got.get(kind, kind)}", field=field)
    if wanted in "iu" and raw.size:
        bounds, least, most = np.iinfo(spec.dtype), int(raw.min()), int(raw.max())
        if least < bounds.min or most > bounds.max:
            raise Refusal(
                400,
                f"{field}: {spec.datatype} is from {bounds.min} to {bounds.max}, got {least} to {most}",
                field=field,
            )
    with np.errstate(over="ignore"):  # what overflows is infinite, which is refused with its place
        return raw.astype(spec.dtype).reshape(shape)


def check_values(values: Array, spec: TensorSpec, field: str) -> None:
    """Check that all numbers are finite, and that ids are some that the model has.

    Raises:
        Refusal: it names the first that isn't.
    """
    kind = spec.dtype.kind
    if kind == "f":
        good = np.isfinite(values)
        if not good.all():
            bad = np.unravel_index(int(good.argmin()), values.shape)
            got, n_more = float(values[bad]), int(good.size - good.sum()) - 1
            more = f" (and {n_more} more such values)" if n_more else ""
            raise Refusal(
                400,
                f"{field}: expected finite numbers of {spec.datatype}, got {got} at {list(map(int, bad))}{more}",
                field=field,
            )
    elif kind in "iu" and spec.below is not None and values.size:
        least, most = int(values.min()), int(values.max())
        if least < 0 or most >= spec.below:
            raise Refusal(
                400,
                f"{field}: {spec.name!r} takes whole numbers from 0 to {spec.below - 1}, got {least} to {most}",
                field=field,
            )
