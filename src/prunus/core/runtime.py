"""On what, and with which randomness, does a run compute?

Every random choice draws from a seed derived from the run's seed and the *name* of the choice, never from
whatever was drawn before it. So a stage that is run again after a kill draws what it drew the first time.
"""

from __future__ import annotations

import hashlib
import os
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata

import numpy as np
import torch

from prunus.core.errors import RecipeError, raise_if_out_of_memory

__all__ = ["derive_seed", "device_of", "generator", "pick_device", "seeded", "single_run_settings", "versions"]


def derive_seed(seed: int, *names: object) -> int:
    """Return a seed in [0, 2**63) for the choice that ``names`` describe.

    >>> derive_seed(0, "train", 1) == derive_seed(0, "train", 1)
    True
    >>> derive_seed(0, "train", 1) == derive_seed(0, "train", 2)
    False
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Return a fresh CPU generator for the choice that ``names`` describe."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


@contextmanager
def seeded(seed: int, *names: object) -> Iterator[None]:
    """Seed Python, NumPy and torch for a block (initialisation, dropout), and restore their states after it."""
    value = derive_seed(seed, *names)
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is what user code draws from
    with torch.random.fork_rng():
        random.seed(value)
        np.random.seed(value % 2**32)  # noqa: NPY002
        torch.manual_seed(value)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def pick_device(name: str) -> torch.device:
    """Return the device that ``name`` means; ``auto`` takes CUDA when there is one.

    Raises:
        RecipeError: the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise_if_out_of_memory(error)
        raise RecipeError(f"runtime.device must be a device of this machine: got {name!r}; use cpu or auto") from error
    return device


def device_of(model: torch.nn.Module) -> torch.device:
    """Return where the model's first parameter (or buffer) lies; a model without any is on the CPU."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def single_run_settings(threads: int | None) -> Iterator[None]:
    """Set the number of threads and deterministic kernels for a block, and restore both after it."""
    threads_before = torch.get_num_threads()
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def versions() -> dict[str, str]:
    """Return what a record needs to say on which software and machine its numbers were made."""
    packages = ("prunus", "torch", "numpy", "safetensors", "pyarrow", "torchmetrics")
    found = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    found["cores"] = str(len(os.sched_getaffinity(0)))
    return found | {package: _version(package) for package in packages}


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
