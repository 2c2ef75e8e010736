"""Workers that are this process: what they do is the same, and nothing has to be started for it."""

from contextlib import contextmanager

from prunus.pipeline.jobs import parts
from prunus.scale.dispatch import shards_and_trials
from prunus.scale.dispatch.local_workers import Here

__all__ = ["workers_here"]


@contextmanager
def workers_here(monkeypatch):
    """Have what is sent to workers done here, one after the other; yield the list of it."""
    sent = []

    @contextmanager
    def here(function, *, backend, workers=None, retries, files=None, listener):
        opened = Here(function, retries)
        real = opened.map
        opened.map = lambda tasks: (sent.extend(tasks), real(tasks))[1]
        yield opened
        if isinstance(function, parts._Ahead) and function._opened is not None:  # a process that ends leaves it open
            function._opened.__exit__(None, None, None)

    with monkeypatch.context() as patched:
        patched.setattr(parts, "open_workers", here)
        patched.setattr(shards_and_trials, "open_workers", here)
        yield sent
