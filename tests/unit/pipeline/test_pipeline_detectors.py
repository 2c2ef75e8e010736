"""prune takes detectors as they are: their own loss where targets are boxes, and boxes that come in any number and order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prunus import prune
from prunus.core.errors import ModelError
from prunus.core.events import silent
from prunus.tasks.boxes.box_distance import boxes_apart


class AsTorchvision(nn.Module):
    """Takes a list of images; boxes by score in evaluation mode, losses by name in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2)
        )
        self.score, self.sides = nn.Conv2d(12, 1, 1), nn.Conv2d(12, 2, 1)

    def forward(self, images: list[Tensor], targets: list | None = None):
        features = torch.relu(self.body(torch.stack(images)))
        scores, sides = self.score(features).sigmoid().flatten(1), self.sides(features).exp().flatten(2).mT
        place = torch.arange(sides.shape[1], dtype=torch.float32)[:, None].expand(-1, 2)
        boxes = torch.cat([place - sides, place + sides], dim=2)
        if self.training:
            assert targets is not None
            wanted = torch.stack([one["boxes"].mean() for one in targets])
            return {"score": -scores.log().mean(), "boxes": (boxes.mean(dim=(1, 2)) - wanted).square().mean()}
        found = []
        for score, box in zip(scores, boxes, strict=True):
            sure = score > score.median()
            order = score[sure].argsort(descending=True)
            found.append({"boxes": box[sure][order], "scores": score[sure][order], "labels": torch.ones(len(order))})
        return found


def made(labelled: bool = True):
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(24, 3, 8, 8, generator=draw)
    targets = [{"boxes": torch.tensor([[0.0, 0, 4, 4]]), "labels": torch.tensor([1])} for _ in images]

    def collate(pairs):
        batch = [image for image, _ in pairs]
        return (batch, [target for _, target in pairs]) if labelled else (batch,)

    loader = DataLoader(list(zip(images, targets, strict=True)), batch_size=4, collate_fn=collate)
    return AsTorchvision().eval(), ([images[0], images[1]],), loader


@pytest.mark.parametrize("labelled", [True, False])
def test_a_detector_of_lists_is_cut_with_its_data(labelled):
    model, inputs, loader = made(labelled)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = prune(model, inputs, data=loader, target={"macs": 0.6}, batch_size=4, listener=silent)
    assert small.kind == "eager"
    assert small.after.macs <= 0.6 * small.before.macs
    assert small.measure == "boxes"
    assert 0 < small.distance < 1
    assert small.objective == (
        "the loss of detection" if labelled else "no targets: how far its outputs move on these inputs are kept"
    )
    assert all(set(one) == {"boxes", "scores", "labels"} for one in small.model(*inputs))
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_detector_that_gives_no_loss_asks_for_one():
    class Silent(AsTorchvision):
        def forward(self, images: list[Tensor]):
            training, self.training = self.training, False
            try:
                return super().forward(images)
            finally:
                self.training = training

    _, inputs, loader = made()
    with pytest.raises(ModelError, match="expected losses from the model when it has the targets"):
        prune(Silent().eval(), inputs, data=loader, batch_size=4, listener=silent)


def test_boxes_are_as_far_apart_as_their_scores_say_whatever_their_order():
    boxes, scores = torch.tensor([[0.0, 0, 2, 2], [5, 5, 7, 7], [9, 9, 10, 10]]), torch.tensor([0.9, 0.5, 0.2])
    order = torch.tensor([2, 0, 1])
    assert boxes_apart([boxes, scores], [boxes[order], scores[order]])[0] == pytest.approx(0, abs=1e-6)
    missed, size = boxes_apart([boxes[:1], scores[:1]], [boxes, scores])
    assert (missed, size) == pytest.approx((0.7, 2.5))
    nothing = [torch.zeros(0, 4), torch.zeros(0)]
    assert boxes_apart(nothing, [boxes, scores]) == pytest.approx((1.6, 1.6))
    assert boxes_apart(nothing, nothing) == (0, 0)
    assert boxes_apart([boxes + 100, scores], [boxes, scores]) == pytest.approx((3.2, 3.2))
