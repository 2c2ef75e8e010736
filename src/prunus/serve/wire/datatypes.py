"""Which type of the Open Inference Protocol is which type of numbers?"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["BY_DATATYPE", "datatype_of", "torch_datatype"]

BY_DATATYPE: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Little-endian, as the protocol's binary data are."""

_TORCH = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
}


def torch_datatype(name: str) -> str | None:
    """Return the protocol's name of a type of torch; None where it has none.

    >>> torch_datatype("float32"), torch_datatype("bfloat16")
    ('FP32', None)
    """
    return _TORCH.get(name)


def datatype_of(values: np.dtype[Any]) -> str:
    """Return the protocol's name of an array's type."""
    return next(name for name, kind in BY_DATATYPE.items() if kind == values)
