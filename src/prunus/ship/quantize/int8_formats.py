"""For which runtimes can a model be made int8? Each is one file here, and one line in ``INT8_RUNTIMES``."""

from __future__ import annotations

from typing import Any

from prunus.core.errors import ModelError
from prunus.ship.quantize.int8_runtime import Int8Runtime
from prunus.ship.quantize.onnx_int8 import OnnxInt8
from prunus.ship.quantize.openvino_int8 import OpenVinoInt8

__all__ = ["INT8_RUNTIMES", "int8_runtime"]

INT8_RUNTIMES: dict[str, Int8Runtime[Any]] = {each.name: each for each in (OnnxInt8(), OpenVinoInt8())}
"""By the format of their files."""


def int8_runtime(name: str) -> Int8Runtime[Any]:
    """Return the runtime of a format.

    Raises:
        ModelError: the format has no int8; it names those that have.
    """
    if name not in INT8_RUNTIMES:
        raise ModelError(f"int8 files are written in {', '.join(INT8_RUNTIMES)}: got {name!r}")
    return INT8_RUNTIMES[name]
