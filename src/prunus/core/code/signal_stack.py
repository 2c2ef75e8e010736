"""How does a library keep its hands off the stack that this thread handles signals on?

OpenVINO's plugin for processors gives the thread that loads it another alternate stack (``sigaltstack(2)``) and takes it away
again with the plugin. Where two of them end in another order than they began, the thread is left with a stack that is gone: the
next signal that Python handles (a child that ends, Ctrl-C) kills the process without a word.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SignalStack", "kept_signal_stack", "signal_stack"]


class SignalStack(ctypes.Structure):
    """``stack_t`` of Linux: where it begins, whether it is in use or off, its bytes."""

    _fields_ = (("begin", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """Return the stack that this thread handles signals on.

    Raises:
        OSError: the system doesn't say.
    """
    found = SignalStack()
    _sigaltstack(None, ctypes.byref(found))
    return found


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Let code load plugins that replace this thread's stack for signals, and put it back at the end; Linux only has it."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        _sigaltstack(ctypes.byref(before), None)


def _sigaltstack(new: object, old: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sigaltstack(new, old) != 0:
        raise OSError(ctypes.get_errno(), "sigaltstack")
