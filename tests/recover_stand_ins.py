from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunus.tasks import Classification, Regression


class Batch(NamedTuple):
    index: Tensor
    inputs: Tensor
    targets: Tensor


class TensorExamples:
    """The part of data.Examples that training uses, over two tensors."""

    fixed, identity = True, ""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets
        self.task = Regression() if targets.is_floating_point() else Classification()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def known_targets(self) -> Tensor:
        return self.targets

    def batches(self, batch_size, generator=None):
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for rows in order.split(batch_size):
            yield Batch(rows, self.inputs[rows], self.targets[rows])


def make_batch(inputs: Tensor, targets: Tensor) -> Batch:
    return Batch(torch.arange(len(targets)), inputs, targets)


def make_examples(n: int = 60, features: int = 4, classes: int = 3, seed: int = 0) -> TensorExamples:
    """Return examples that a linear model can learn; classes 0 means regression."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, features, generator=draw)
    scores = inputs @ torch.randn(features, max(classes, 1), generator=draw)
    return TensorExamples(inputs, scores.argmax(dim=1) if classes else scores[:, 0])


def make_model(features: int = 4, outputs: int = 3, seed: int = 0) -> nn.Sequential:
    """Return a network with everything that makes resuming hard: batch norm, dropout, a tied weight."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(features, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(8, 8),
            nn.ReLU(),
            nn.Linear(8, 8),
            nn.Linear(8, outputs),
        )
    model[6].weight = model[4].weight
    return model
