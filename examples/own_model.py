"""Your own network and your own data set: two functions, no registration, no base class.

The network has a residual addition, a concatenation and a flatten. prunus is told nothing about them.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset


class Block(nn.Module):
    """Two convolutions around a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.second_norm(self.second(y)))


class Net(nn.Module):
    """A stem, two views of the image (fine and coarse), their concatenation, and a head."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1)
        self.fine = Block(width)
        self.coarse = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)
        )
        self.mix = nn.Conv2d(3 * width, width, 1)
        self.head = nn.Linear(width * 4 * 4, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.cat([self.fine(x), self.coarse(x)], dim=1)
        x = nn.functional.max_pool2d(torch.relu(self.mix(x)), 2)
        return self.head(x.flatten(1))


def build(n_outputs: int, width: int = 16) -> nn.Module:
    """Return the network; prunus fills in ``n_outputs`` because the name stands in the signature."""
    return Net(width, n_outputs)


def digits() -> Dataset[tuple[Tensor, Tensor]]:
    """Return a map-style data set of (image, label) pairs."""
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels))
