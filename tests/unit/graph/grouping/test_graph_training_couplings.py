from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from prunus.apply import shrink
from prunus.graph import analyze, certify
from prunus.graph.grouping import training_couplings as module_under_test

WIDTH = 12


class Net(nn.Module):
    """A hidden layer whose statistics training keeps, in one of several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 2)
        for name, value in self.held().items():
            self.register_buffer(name, value)

    def held(self) -> dict[str, torch.Tensor]:
        return {"kept": torch.zeros(WIDTH)}

    def forward(self, x):
        h = torch.relu(self.a(x))
        if self.training:
            self.keep(h.detach())
        return self.b(h)


class Lerp(Net):
    def keep(self, h):
        self.kept.lerp_(h.mean(0), 0.1)


class Average(Net):
    def keep(self, h):
        self.kept = 0.9 * self.kept + 0.1 * h.mean(0)


class Replaced(Net):
    def keep(self, h):
        self.kept = h.mean(0)


class Copied(Net):
    def keep(self, h):
        self.kept.copy_(h.amax(0))


class Counted(Net):
    def held(self):
        return {"kept": torch.zeros(WIDTH, dtype=torch.int64)}

    def keep(self, h):
        self.kept += (h > 0).sum(0)


class Covariance(Net):
    def held(self):
        return {"kept": torch.zeros(WIDTH, WIDTH)}

    def keep(self, h):
        self.kept.mul_(0.9).add_(h.T @ h, alpha=0.1)


class Looking(Net):
    """It looks at values, so that training is recorded on real tensors."""

    def keep(self, h):
        if float(h.mean()) > -1:
            self.kept.lerp_(h.mean(0), 0.1)


class Codebook(Net):
    """Moving averages of the entries that rows choose, as in VQ-VAE."""

    def held(self):
        entries = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
        return {"entries": entries, "counts": torch.ones(5), "kept": entries.clone()}

    def forward(self, x):
        h = torch.relu(self.a(x))
        near = torch.cdist(h, self.entries).argmin(1)
        if self.training:
            chosen = nn.functional.one_hot(near, 5).to(h.dtype)
            self.counts.mul_(0.9).add_(chosen.sum(0), alpha=0.1)
            self.kept.mul_(0.9).add_(chosen.T @ h.detach(), alpha=0.1)
            self.entries.copy_(self.kept / self.counts.unsqueeze(1))
        return self.b(h + (self.entries[near] - h).detach())


class Teacher(Net):
    """A moving average of the weights, in parameters that evaluation doesn't read."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = copy.deepcopy(self.a).requires_grad_(False)

    def held(self):
        return {}

    def keep(self, h):
        for mine, theirs in zip(self.slow.parameters(), self.a.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 0.1)


KINDS = [Lerp, Average, Replaced, Copied, Counted, Covariance, Looking, Codebook, Teacher]


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_training_keeps_goes_with_the_units_it_is_about(kind):
    torch.manual_seed(0)
    model = kind().eval()
    x, keep = torch.randn(8, 6), torch.arange(WIDTH) % 3 != 0
    before = copy.deepcopy(model.state_dict())
    graph = certify(model, (x,), analyze(model, (x,)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), (
        "analysis changes nothing"
    )
    assert [group.name for group in graph.groups] == ["a"]
    smaller = shrink(model, (x,), graph, {"a": keep}).model
    other = model
    other.train()(x)
    smaller.train()(x)
    for name, value in smaller.state_dict().items():
        expected = other.state_dict()[name]
        for dim, size in enumerate(expected.shape):
            if size == WIDTH:
                expected = expected.index_select(dim, torch.nonzero(keep).flatten())
        if kind is not Codebook:  # there the nearest entry depends on all units
            assert torch.allclose(value, expected), name
        assert value.shape == expected.shape, name
    smaller(x).sum().backward()


def test_training_is_traced_only_where_it_may_say_something(monkeypatch):
    traced = []
    monkeypatch.setattr(module_under_test, "trace", lambda *given, **named: traced.append(1))
    plain = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
    analyze(plain, (torch.randn(4, 6),))
    assert not traced
