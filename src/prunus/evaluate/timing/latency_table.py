"""How long will an operation take at sizes that nobody measured? From those that were, on this machine, in this runtime.

Times are measured at the full size and at powers of two below it, when they are first asked for, and are interpolated in between.
They are kept in a file of the user's cache folder for the same machine, device, number of threads, runtime, what stood in for it,
and versions; so are the shares that whole models were measured to take.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
from collections.abc import Callable
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import torch

from prunus.core.files.plain_files import write_json
from prunus.core.files.sealed import short_digest
from prunus.evaluate.timing.operation_time import time_operation
from prunus.graph.costs.timed_operations import Operation

__all__ = ["LatencyTable", "machine_facts"]

_CPU = torch.device("cpu")
_IN_TORCH = ("torch", "torch_compiled")
_PACKAGES = {"mnn": "MNN", "litert": "ai-edge-litert"}
_PROBE = ((14, 14), (3, 3), (1, 1), (1, 1), (1, 1), False, None)
_PADDED = 0.92
"""In blocks of 8, 24 channels take 0.75 of what 32 do, and 40 take 0.83 of what 48 do; in blocks of 16 they take as long."""
_TRAILING = {"linear": 2, "product": 3, "attention": 5, "move": 0}
"""How many sizes come after those that are multiplied to one; of a convolution all but the first."""


class LatencyTable:
    """Milliseconds per operation in one runtime.

    Args:
        runtime: a name of a runtime; where single operations aren't timed in it, those of ``onnxruntime`` stand for them.
        folder: where times are kept; None: the user's cache folder.
        measure: takes ``torch`` or ``onnxruntime``, the kind, the sizes and what is fixed, and returns milliseconds; None: time it.
        device: on which torch computes.
    """

    def __init__(
        self,
        runtime: str,
        folder: Path | None = None,
        measure: Callable[..., float] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self._stands_in = "torch" if runtime in _IN_TORCH or find_spec("onnxruntime") is None else "onnxruntime"
        self.runtime, self._measure = runtime, measure or partial(time_operation, device=str(device))
        self.about = machine_facts(runtime, torch.device(device))
        if self._stands_in != runtime:
            self.about |= {"timed_in": self._stands_in, "timed_in_version": metadata.version(self._stands_in)}
        self.path = (folder or cache_folder()) / f"latency-{runtime}-{short_digest(self.about)}.json"
        self.milliseconds: dict[str, float] = _known(self.path)
        self.shares: dict[str, float] = _known(self.path, "shares")
        self._n_kept = len(self.milliseconds) + len(self.shares)

    def price(self, operation: Operation, full: tuple[int, ...]) -> Callable[[tuple[int, ...]], float]:
        """Return the milliseconds of an operation as a function of the sizes of its axes, whose full sizes are ``full``."""
        top = _joined(operation.kind, full)

        def milliseconds(sizes: tuple[int, ...]) -> float:
            at = _joined(operation.kind, sizes)
            return self._between(operation, at, top) if min(at) > 0 else 0.0

        return milliseconds

    def block(self) -> int:
        """Return the multiple in which convolutions count channels here, 8 or 16: a width between two costs what the larger does.

        Kernels for vectors of 16 floats pad to 16; on a GPU it is 8.
        """
        if "device" in self.about:
            return 8
        one = Operation("convolution", (), _PROBE)
        shares = [self._at(one, (4, 64, n)) / self._at(one, (4, 64, n + 8)) for n in (24, 40)]
        return 16 if sum(shares) / len(shares) > _PADDED else 8

    def save(self) -> None:
        """Keep what was measured, beside what other processes have kept meanwhile."""
        if len(self.milliseconds) + len(self.shares) > self._n_kept:
            self.milliseconds = {**_known(self.path), **self.milliseconds}
            self.shares = {**_known(self.path, "shares"), **self.shares}
            self._n_kept = len(self.milliseconds) + len(self.shares)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"about": self.about, "milliseconds": self.milliseconds, "shares": self.shares})

    def _between(self, operation: Operation, at: tuple[int, ...], top: tuple[int, ...]) -> float:
        """Interpolate linearly in each size: exact where time is a product of sizes and a constant."""
        ends = [_ends(size, most) for size, most in zip(at, top, strict=True)]
        return sum(
            prod(share for _, share in corner) * self._at(operation, tuple(size for size, _ in corner))
            for corner in itertools.product(*ends)
        )

    def _at(self, operation: Operation, sizes: tuple[int, ...]) -> float:
        key = f"{operation.kind} {'x'.join(map(str, sizes))}" + (f" {operation.fixed}" if operation.fixed else "")
        if key not in self.milliseconds:
            self.milliseconds[key] = self._measure(self._stands_in, operation.kind, sizes, operation.fixed)
        return self.milliseconds[key]


def _joined(kind: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Multiply the leading sizes: examples and positions are rows all the same."""
    leading = len(sizes) - _TRAILING[kind] if kind in _TRAILING else 1
    return (prod(sizes[:leading]), *sizes[leading:])


def _ends(size: int, most: int) -> tuple[tuple[int, float], ...]:
    """Return the measured sizes around ``size``, each with its weight."""
    low = 1 << (size.bit_length() - 1)
    high = min(2 * low, most)
    if size in (low, high) or size > most:
        return ((size, 1.0),)
    share = (size - low) / (high - low)
    return ((low, 1 - share), (high, share))


def cache_folder() -> Path:
    """Return the user's cache folder for prunus."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "prunus"


def machine_facts(runtime: str, device: torch.device = _CPU) -> dict[str, Any]:
    """Return what a measured time depends on, apart from the operation."""
    package = "torch" if runtime in _IN_TORCH else _PACKAGES.get(runtime, runtime)
    accelerator = {"device": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return accelerator | {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "runtime": runtime,
        "version": metadata.version(package),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _known(path: Path, what: str = "milliseconds") -> dict[str, float]:
    """Return the numbers in a file; one that is missing or damaged holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[what]
        return {str(key): float(value) for key, value in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
