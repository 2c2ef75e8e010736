"""How far apart two answers of a detector are, against boxes one by one."""

import torch

from prunus.tasks.boxes.box_distance import boxes_apart


def overlap(one, other):
    """Intersection over union of two boxes, 0 of two without an area."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    inter = max(width, 0.0) * max(height, 0.0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - inter
    return inter / union if union else 0.0


def missed(boxes, scores, there, sure):
    """What each box of the other answer lacks in this one."""
    found = [
        max((overlap(box, other) * min(score, weight) for box, score in zip(boxes, scores, strict=True)), default=0.0)
        for other, weight in zip(there, sure, strict=True)
    ]
    return sum(weight - best for weight, best in zip(sure, found, strict=True))


def drawn(n, draw):
    corners = torch.randint(0, 6, (n, 2, 2), generator=draw).double().sort(dim=1).values  # some have no area
    return corners.reshape(n, 4), torch.rand(n, generator=draw, dtype=torch.float64)


def test_the_distance_is_that_of_all_pairs_one_by_one():
    draw = torch.Generator().manual_seed(0)
    for n, m in ((1, 1), (4, 7), (9, 3), (0, 2), (5, 0)):
        one, other = drawn(n, draw), drawn(m, draw)
        lists = [part.tolist() for part in (*one, *other)]
        expected = missed(*lists) + missed(*lists[2:], *lists[:2])
        apart, size = boxes_apart(one, other)
        assert abs(apart - expected) < 1e-9
        assert abs(size - float(one[1].sum() + other[1].sum())) < 1e-9


def test_boxes_without_an_area_overlap_nothing():
    point, sure = torch.tensor([[1.0, 1.0, 1.0, 1.0]]), torch.tensor([0.5])
    assert boxes_apart([point, sure], [point, sure]) == (1.0, 1.0)
