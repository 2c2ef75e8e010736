"""How does a model run without torch's own words on the terminal, where prunus says itself what went wrong?

The tracer logs a page for an operation that refuses its inputs, and a model that ``torch.fx`` made prints its generated code
before it raises. Whether that is an error, and which, is said by whoever runs the model.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

from torch import fx, nn

__all__ = ["quiet"]

_TRACERS = ("torch._subclasses", "torch.fx")


@contextlib.contextmanager
def quiet(model: nn.Module) -> Iterator[None]:
    """Keep the tracer's log, and what a model of ``torch.fx`` prints when it fails, to itself for a block."""
    loggers = [log for name, log in logging.Logger.manager.loggerDict.items() if name.startswith(_TRACERS)]
    silenced = [log for log in loggers if isinstance(log, logging.Logger) and not log.disabled]
    prints = any(isinstance(part, fx.GraphModule) for part in model.modules())
    try:
        for log in silenced:
            log.disabled = True
        # Only then: a progress bar draws on the same stream.
        with contextlib.redirect_stderr(io.StringIO()) if prints else contextlib.nullcontext():
            yield
    finally:
        for log in silenced:
            log.disabled = False
