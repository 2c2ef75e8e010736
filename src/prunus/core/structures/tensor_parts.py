"""Which numbers of a tensor lie on this process, where several hold one model in parts (FSDP)?

A sharded tensor (``DTensor``) stands for the whole one; its local part shares the memory, so what is done there is done to it. No
import of ``torch.distributed.tensor`` is needed to see one.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["is_sharded", "local", "part_like"]


def is_sharded(tensor: Any) -> bool:
    """Return whether a tensor lies in parts on several processes."""
    return isinstance(tensor, Tensor) and hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """Return the part that lies here: the tensor itself where it is whole."""
    if not is_sharded(tensor):
        return tensor
    part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def part_like(whole: Tensor, sharded: Tensor) -> Tensor:
    """Return the part of ``whole``, which every process has, that belongs to the local part of ``sharded``; nothing is sent."""
    if not is_sharded(sharded):
        return whole.to(sharded.device)
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = sharded.device_mesh, sharded.placements  # type: ignore[attr-defined]
    return local(distribute_tensor(whole.to(sharded.device), mesh, placements, src_data_rank=None))
