"""What does a worker of a Ray cluster do with a shard?

This function is the whole of what runs there: it loads what is called once in each process, and keeps it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from prunus.core.code.extras import require
from prunus.scale.dispatch.attempt import Kind, loaded
from prunus.scale.dispatch.same_code import difference, versions
from prunus.scale.dispatch.same_files import Expected, odd_file

__all__ = ["Order", "serve"]


@dataclass(frozen=True)
class Order:
    """What all shards of a work have in common; ``function`` holds the packed function, or a reference to it.

    Modules are looked for in ``sys_path``, and files in ``folder``, as in the process that gave the order. A node that came to the
    cluster since the work began is asked, too, which ``versions`` it has and whether it sees the ``files``.
    """

    key: str
    function: tuple[Any, ...]
    sys_path: tuple[str, ...]
    folder: str
    threads: int
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Expected = field(default_factory=Expected)


def odd_code(ours: Mapping[str, str]) -> str:
    """Return what is installed otherwise here than ``ours``, in words; nothing where all is the same."""
    odd = difference(versions(), ours) if ours else ""
    return f"has {odd}" if odd else ""


_SECONDS_TO_FETCH = 60.0

_LOADED: dict[str, Callable[[Any], tuple[Kind, Any]]] = {}


def serve(order: Order, shard: Any) -> tuple[Kind, Any, str]:
    """Return what came of a shard, and on which node."""
    ray = require("ray", extra="ray")
    node = str(ray.get_runtime_context().get_node_id())
    attempt = _LOADED.get(order.key)
    if attempt is None:
        (function,) = order.function
        sys.path.extend(path for path in order.sys_path if path not in sys.path and Path(path).exists())
        if Path(order.folder).is_dir():
            os.chdir(order.folder)
        if odd := odd_code(order.versions) or odd_file(order.files):
            return "refused", odd, node
        torch.set_num_threads(order.threads)
        try:
            attempt = loaded(function if isinstance(function, bytes) else ray.get(function, timeout=_SECONDS_TO_FETCH))
        except ray.exceptions.GetTimeoutError:
            return (
                "again",
                f"the function didn't arrive within {_SECONDS_TO_FETCH:g} s; is the object store full?",
                node,
            )
        _LOADED.clear()
        _LOADED[order.key] = attempt
    kind, answer = attempt(shard)
    return kind, answer, node
