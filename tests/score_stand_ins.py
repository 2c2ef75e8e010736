"""Small stand-ins for the groups of ``prunus.graph``: what score reads of them, and no more."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Member:
    tensor: str
    dim: int
    index: torch.Tensor
    is_parameter: bool = True


@dataclass(frozen=True)
class Group:
    name: str
    size: int
    members: tuple
    containers: tuple = ()
    entries: tuple = ()


def one_each(n):
    return torch.arange(n)[:, None]
