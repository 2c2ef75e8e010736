"""A training for recordings to watch, and a process that is killed while it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from prunus.score import Recording

N, CLASSES, EPOCHS, BATCH = 60, 10, 5, 8


def made_logits(*, n=N, classes=CLASSES, epochs=EPOCHS, seed=0):
    """Logits of each epoch that come nearer to the labels, and the labels."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    logits = torch.randn(epochs, n, classes, generator=draw) * 3
    logits += torch.nn.functional.one_hot(labels, classes) * torch.arange(epochs)[:, None, None]
    return logits, labels


def record(recording, logits, targets, *, epochs=None, rows=None, batch=BATCH, stop_after=None):
    """Call a recording as a loop does; ``stop_after`` so many batches the process is killed."""
    n_batches = 0
    for epoch in range(len(logits)) if epochs is None else epochs:
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(epoch))
        order = order if rows is None else order[torch.isin(order, rows)]
        for index in order.split(batch):
            recording(epoch, index, logits[epoch][index], targets[index])
            n_batches += 1
            if n_batches == stop_after:
                os.kill(os.getpid(), signal.SIGKILL)
    return recording


def in_a_process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process that runs ``code`` with these names at hand, and ``folder``."""
    start = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; import torch\n"
    names = f"from recording_stand_ins import *; from prunus.score import Recording; folder = Path({str(folder)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + names + code],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


__all__ = ["BATCH", "CLASSES", "EPOCHS", "N", "Recording", "in_a_process", "made_logits", "record"]
