"""How long does a model take by a clock that counts work? As long on every machine, however busy it is.

Time stands still but while a timed model runs, and then each operation of torch takes a moment to be called, and its multiply-adds
and the numbers that it reads and writes take theirs. So the way from a model to a time, a choice and a verdict is the real one,
and what comes out can be asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from prunus.evaluate.timing import bench_runtimes, contest, latency, operation_time

__all__ = ["WorkClock"]

SECONDS_PER_OPERATION, SECONDS_PER_MULTIPLY_ADD, SECONDS_PER_BYTE = 2e-6, 1e-10, 1e-10


class WorkClock(TorchDispatchMode):
    """A clock that goes on by the operations that run within it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or those that it consists of, and let its time pass."""
        kwargs = kwargs or {}
        counted = flop_registry.get(function.overloadpacket)
        if counted is None:
            with self:
                parts = function.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        answer = function(*args, **kwargs)
        multiply_adds = counted(*args, **kwargs, out_val=answer) / 2 if counted else 0
        tensors = [one for one in tree_leaves((args, kwargs, answer)) if isinstance(one, Tensor)]
        n_bytes = 0 if function.is_view else sum(one.numel() * one.element_size() for one in tensors)
        self.now_s += SECONDS_PER_OPERATION + SECONDS_PER_MULTIPLY_ADD * multiply_adds + SECONDS_PER_BYTE * n_bytes
        return answer

    def read(self) -> float:
        """Return the seconds that have passed."""
        return self.now_s

    def within(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose operations take time."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self:
                return run(*args, **kwargs)

        return counted

    def times(self, patch: pytest.MonkeyPatch) -> None:
        """Be the clock by which models and operations are timed from now on, in torch (but for compiled ones) and ONNX Runtime."""
        hands = SimpleNamespace(process_time=self.read, perf_counter=self.read)
        for module in (latency, contest):
            patch.setattr(module, "time", hands)
        for module in (latency, bench_runtimes):
            patch.setattr(module, "call", self.within(module.call))
        in_torch, session = operation_time._in_torch, operation_time.open_session
        patch.setattr(operation_time, "_in_torch", lambda *what: self.within(in_torch(*what)))
        for module in (operation_time, bench_runtimes):
            patch.setattr(module, "open_session", lambda file, **how: _CountedSession(session(file, **how), file, self))


class _CountedSession:
    """A session of ONNX Runtime; a call takes a moment, and each example a multiply-add for each number in the file."""

    def __init__(self, session: Any, file: bytes, clock: WorkClock) -> None:
        self._session, self._n_bytes, self._clock = session, len(file), clock

    def run(self, names: Any, given: Mapping[str, Any]) -> Any:
        n_examples = max(len(value) for value in given.values())
        self._clock.now_s += SECONDS_PER_OPERATION + SECONDS_PER_MULTIPLY_ADD * n_examples * self._n_bytes / 4
        return self._session.run(names, given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
