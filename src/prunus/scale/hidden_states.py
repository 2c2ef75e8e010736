"""Where do the hidden states of all calibration batches wait for the next block: in memory, or on the disk?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from safetensors.torch import load_file
from torch import Tensor

from prunus.core.files.plain_files import explain_os_error
from prunus.core.tensors import save_tensors

__all__ = ["Activations", "activations"]


class Activations(Protocol):
    """One hidden state per batch, by the batch's number."""

    def __getitem__(self, number: int) -> Tensor: ...

    def __setitem__(self, number: int, hidden: Tensor) -> None: ...


class _OnDisk:
    """One file for each batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, number: int) -> Tensor:
        hidden: Tensor = load_file(self.folder / f"{number}.safetensors")["hidden"]
        return hidden

    def __setitem__(self, number: int, hidden: Tensor) -> None:
        path = self.folder / f"{number}.safetensors"
        try:
            save_tensors({"hidden": hidden.contiguous()}, path)
        except OSError as error:
            raise explain_os_error(error, path) from error


@contextmanager
def activations(offload: Path | None) -> Iterator[Activations]:
    """Yield a store in memory, or one in a folder of its own inside ``offload`` that goes after the block."""
    if offload is None:
        held: dict[int, Tensor] = {}
        yield held
        return
    offload.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=offload, prefix="activations-") as folder:
        yield _OnDisk(Path(folder))
