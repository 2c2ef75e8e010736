"""Data sets that are read when needed, and count how often."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

N = 120


class Made(Dataset[Any]):
    """Images that are made when they are asked for: the class is the channel that is bright. ``flips`` draws a reflection."""

    def __init__(self, n: int = N, *, flips: bool = False, **attributes: Any) -> None:
        self.n, self.flips, self.n_read = n, flips, 0
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        self.n_read += 1
        image = 0.5 * torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(row))
        image[row % 3] += 1
        return (image.flip(2) if self.flips and torch.rand(()) < 0.5 else image), row % 3


class Rows(Dataset[Any]):
    """A set of mappings by row, as Hugging Face has them."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in self.columns.items()}


class Stream(IterableDataset[Any]):
    """The same images, one after the other, without an end."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        source, row = Made(10**6), 0
        while True:
            yield source[row]
            row += 1


class Two(nn.Module):
    """A model of ids and numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.ids, self.numbers = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(4, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.ids(self.embed(ids).mean(1)) + self.numbers(x)))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )


def two_inputs(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 20, (n, 5), generator=draw)
    return ids, torch.randn(n, 4, generator=draw), ids[:, 0] % 3
