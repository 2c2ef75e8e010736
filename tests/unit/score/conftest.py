"""A small stand-in for the examples of ``prunus.data``: what score reads of them, and no more."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
import torch

from prunus.tasks import Classification, Task


class TinyBatch(NamedTuple):
    index: torch.Tensor
    inputs: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class TinyExamples:
    inputs: torch.Tensor
    targets: torch.Tensor
    task: Task = field(default_factory=Classification)
    n_outputs: int = 2
    class_names: tuple[str, ...] = ()

    @property
    def ids(self):
        return tuple(f"id{i}" for i in range(len(self.targets)))

    @property
    def input_shape(self):
        return tuple(self.inputs.shape[1:])

    def __len__(self):
        return len(self.targets)

    def batches(self, batch_size, generator=None):
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for index in order.split(batch_size):
            yield TinyBatch(index, self.inputs[index], self.targets[index])

    def with_targets(self, targets):
        return replace(self, targets=targets)


@pytest.fixture
def examples_of():
    return TinyExamples


@pytest.fixture
def batch_of():
    return TinyBatch
