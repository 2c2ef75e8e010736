"""How does a training that was killed go on as if it never stopped?

After an epoch everything that the next one depends on is written in one step; all randomness is drawn per epoch from named
seeds, so nothing else has to be kept. A checkpoint of another training is ignored, never adapted.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunus.core.errors import raise_if_out_of_memory
from prunus.core.files.plain_files import atomic_path
from prunus.core.files.sealed import seal, unseal
from prunus.core.recipes.recipe import Train
from prunus.core.tensors import save_state

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["Checkpoint", "fingerprint"]

FORMAT = 1


def fingerprint(model: nn.Module, examples: Examples, config: Train, *, seed: int, stage: str) -> str:
    """Return a hash of what a training starts from: settings, seed, labels, and the model's names, shapes and values."""
    digest = hashlib.sha256()
    header = [
        FORMAT,
        torch.__version__,
        type(config).__name__,
        config.model_dump(mode="json"),
        seed,
        stage,
        len(examples),
    ]
    digest.update(json.dumps(header, sort_keys=True).encode())
    digest.update(examples.identity.encode())
    labels = {} if examples.known_targets is None else {"/targets": examples.known_targets}
    for name, tensor in {**model.state_dict(), **labels}.items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad};".encode())
            # Through uint8: NumPy has no bfloat16.
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Checkpoint:
    """Where one training keeps its state; ``path`` None keeps nothing.

    Saving is skipped while the last one is younger than ``every_s`` seconds: any epoch is as good a place to go on from.
    """

    def __init__(self, path: Path | None, identity: str, *, every_s: float) -> None:
        self.path = path
        self.identity = identity
        self.every_s = every_s
        self._saved_at = -float("inf")

    def save(self, state: Mapping[str, Any], *, now: bool = False) -> None:
        """Write ``state`` in one step, if it is time to (``now``: whatever the time).

        Raises:
            OutputError: the disk is full or the folder can't be written.
        """
        if self.path is None or not (now or time.monotonic() - self._saved_at >= self.every_s):
            return
        with atomic_path(self.path) as temporary:
            save_state({**state, "identity": self.identity}, temporary)
            seal(temporary)
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state to go on from; None when there is none, or it is damaged or of another training."""
        if self.path is None:
            return None
        try:
            content = unseal(self.path)
            if content is None:
                return None
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise_if_out_of_memory(error)
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            return None
        return state
