"""How does another process of this machine begin in milliseconds, where one that imports what the work needs takes seconds?

Python's fork server imports it once, does nothing else, and forks: so no process has a thread, a GPU or data of another's, and all
share the memory of what was imported. Where the system isn't Linux, or a fork would miss what changed since, they are spawned.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

__all__ = ["begun", "import_ahead"]

_READ_ONCE = ("OMP_", "GOMP_", "MKL_", "OPENBLAS_", "BLIS_", "DNNL_", "ONEDNN_", "ARROW_", "MALLOC_", "LD_")
"""Variables that libraries look at when they are loaded, as for the number of threads: what is set later reaches no fork."""
_LATE = ("sklearn.datasets", "torchvision", "timm", "transformers")
"""What prunus imports where it is needed, and what takes long."""

_server_began_in: list[object] = []


def import_ahead(names: Sequence[str]) -> None:
    """Have the fork server begin, and import modules beside what this process does; one that has begun goes on as it is."""
    if sys.platform != "linux" or _server_began_in:
        return
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"  # it would look for modules in the folder of now first
    try:
        forkserver.set_forkserver_preload(list(names))
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
    _server_began_in.append(_circumstances())


def begun(task: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Return a process that does a task, a function of a module, in the environment, folder and path of now."""
    import_ahead(_loaded())
    if _server_began_in == [_circumstances()]:
        try:
            return _started("forkserver", task, arguments)
        except (EOFError, OSError):  # the server ended while it was asked
            pass
    return _started("spawn", task, arguments)


def _started(how: str, task: Callable[..., object], arguments: tuple[Any, ...]) -> BaseProcess:
    context: Any = multiprocessing.get_context(how)
    process: BaseProcess = context.Process(target=_do, args=(dict(os.environ), task, arguments), daemon=True)
    process.start()
    return process


def _do(environment: dict[str, str], task: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import gc

    import numpy as np

    gc.freeze()  # a collection would write to the memory that all share
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    np.random.seed()  # noqa: NPY002 - what draws without a seed draws otherwise in each process
    task(*arguments)


def _loaded() -> list[str]:
    """Return which modules this process has imported that others will need, too."""
    own = [name for name in sys.modules if name.startswith("prunus.") and not name.startswith("prunus.cli")]
    return own + [name for name in _LATE if name in sys.modules]


def _circumstances() -> object:
    """Return what a new process has of this one from its beginning on."""
    if sys.platform != "linux":
        return None
    import resource

    limits = [getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")]
    early = sorted(pair for pair in os.environ.items() if pair[0].startswith(_READ_ONCE))
    nice, cores = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    return early, nice, cores, [resource.getrlimit(limit) for limit in limits]
