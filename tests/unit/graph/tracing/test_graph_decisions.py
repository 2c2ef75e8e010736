"""A model that ranks is checked on what it ranks: neither ties that rounding breaks nor an empty answer tell anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from prunus.graph import analyze, certify
from prunus.graph.tracing.decisions import Decisions


class Detector(nn.Module):
    """Boxes whose score is above ``least``, the best first."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU())
        self.score, self.box = nn.Conv2d(12, 1, 1), nn.Conv2d(12, 4, 1)
        self.least = least

    def ranked(self, features: Tensor) -> Tensor:
        return self.score(features).sigmoid()

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        features = self.body(x)
        scores, boxes = self.ranked(features).flatten(1), self.box(features).flatten(2).transpose(1, 2)
        found = []
        for score, box in zip(scores, boxes, strict=True):
            score, box = score[score > self.least], box[score > self.least]
            order = score.argsort(descending=True)
            found.append({"scores": score[order], "boxes": box[order]})
        return found


class Tied(Detector):
    """The scores are 1 up to rounding."""

    def ranked(self, features: Tensor) -> Tensor:
        return self.score(features) * 0 + features.softmax(dim=1).sum(dim=1, keepdim=True)


def shifted(graph, tensor):
    """Plant a fault: in one of a group's members the units lie elsewhere."""

    def moved(member):
        return replace(member, index=member.index.roll(1, 0)) if member.tensor == tensor and member.dim == 1 else member

    groups = tuple(replace(group, members=tuple(map(moved, group.members))) for group in graph.groups)
    assert any(m.tensor == tensor and m.dim == 1 for group in graph.groups for m in group.members)
    return replace(graph, groups=groups)


@pytest.mark.parametrize("least", [0.0, 2.0])
@pytest.mark.parametrize("tensor", ["body.2.weight", "box.weight", "score.weight"])
def test_a_wrong_coupling_is_caught_though_nothing_is_found(least, tensor):
    torch.manual_seed(0)
    model, x = Detector(least).eval(), torch.randn(2, 3, 6, 6)
    assert all(len(one["scores"]) == (0 if least else 36) for one in model(x))
    graph = analyze(model, (x,))
    assert len(certify(model, (x,), graph).groups) == len(graph.groups) == 2
    assert len(certify(model, (x,), shifted(graph, tensor)).groups) == 1


@pytest.mark.parametrize("seed", range(3))
def test_scores_that_are_equal_up_to_rounding_dont_hide_that_a_coupling_is_right(seed):
    torch.manual_seed(seed)
    model, x = Tied(0.0).eval(), torch.randn(2, 3, 6, 6)
    graph = analyze(model, (x,))
    certified = certify(model, (x,), graph)
    assert len(certified.groups) == len(graph.groups) == 2
    assert len(certify(model, (x,), shifted(graph, "box.weight")).groups) == 1


def test_decisions_are_taken_again_on_the_same_numbers_and_anew_on_others():
    values = torch.tensor([3.0, 1.0, 1.0 + 1e-7, 2.0])
    close, other = values.clone(), values.flip(0)
    close[1], close[2] = values[2], values[1]

    def ranking(given, earlier):
        with Decisions(earlier, 1e-4) as decisions:
            top = given.topk(3)
            return top, given > 1.00000005, float(given.max(dim=0).values), decisions

    top, above, largest, first = ranking(values, None)
    again, above_again, largest_again, _ = ranking(close, first)
    assert torch.equal(again.indices, top.indices)
    assert torch.equal(again.values, close[top.indices])
    assert torch.equal(above_again, above)
    assert largest_again == largest
    anew, above_anew, *_ = ranking(other, first)
    assert torch.equal(anew.indices, other.topk(3).indices)
    assert torch.equal(above_anew, other > 1.00000005)
