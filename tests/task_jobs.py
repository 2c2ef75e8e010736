"""A small model for every registered task, and data that it can learn: what the suite takes through a whole run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prunus.tasks import Task, TokenClassification, own_task
from prunus.tasks.detection import Detection

N = 240
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@dataclass(frozen=True)
class Job:
    """A task, a model that hasn't learnt it, data, and what else ``ModelOptimizer`` is told."""

    task: str | Task | None
    model: Callable[[], nn.Module]
    data: Any
    metric: str
    options: dict[str, Any]


def dense(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, outputs))


def masks(classes: int) -> nn.Module:
    """Answers at half of the size, as SegFormer does."""
    return nn.Sequential(
        nn.Conv2d(2, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, classes, 1)
    )


class Reader(nn.Module):
    """Scores for each token: looks at it and at those before it."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.words, self.state, self.head = (
            nn.Embedding(words, 16),
            nn.GRU(16, 24, batch_first=True),
            nn.Linear(24, classes),
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.head(self.state(self.words(input_ids))[0])}


class Finder(nn.Module):
    """A box and a class for each of three queries."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)
        )
        self.classes, self.boxes = nn.Linear(64, 9), nn.Linear(64, 12)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        seen = self.body(pixel_values).flatten(1)
        return {"logits": self.classes(seen).view(-1, 3, 3), "pred_boxes": self.boxes(seen).view(-1, 3, 4).sigmoid()}


def near_the_middle(outputs: Any, batch: Any) -> Tensor:
    return (outputs["pred_boxes"] - 0.5).square().mean() + outputs["logits"].square().mean()


def _jobs() -> dict[str, Job]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N, 6, generator=draw)
    y = x @ torch.randn(6, 4, generator=draw)
    images = torch.randn(N, 2, 8, 8, generator=draw)
    ids = torch.randint(12, (N, 6), generator=draw)
    counting = (torch.arange(6)[None] + torch.randint(12, (N, 1), generator=draw)) % 12
    words = {"input_ids": counting, "attention_mask": (torch.arange(6)[None] < 3 + ids[:, :1] % 4).long()}
    objects = [
        {"boxes": torch.tensor([[2.0, 2.0, 9.0, 9.0]]), "labels": torch.tensor([number % 2])} for number in range(N)
    ]
    return {
        "agreement": Job(None, lambda: dense(6, 4), x, "agreement", {"trained": True}),
        "classification": Job("classification", lambda: dense(6, 4), (x, y.argmax(1)), "auroc", {}),
        "detection": Job(
            Detection(("a", "b"), activation="softmax"),
            Finder,
            DataLoader(
                [(image, one) for image, one in zip(torch.randn(N, 3, 16, 16, generator=draw), objects, strict=True)],
                batch_size=32,
                collate_fn=_together,
            ),
            "map",
            {"loss": near_the_middle},
        ),
        "language": Job("language", lambda: Reader(12, 12), words, "token_accuracy", {}),
        "multilabel": Job("multilabel", lambda: dense(6, 4), (x, (y > 0).long()), "f1_micro", {}),
        "own": Job(
            own_task(loss=nn.L1Loss(), metric={"spread_met": _spread}, higher_is_better=True),
            lambda: dense(6, 4),
            (x, y),
            "spread_met",
            {},
        ),
        "regression": Job("regression", lambda: dense(6, 4), (x, y), "r2", {}),
        "retrieval": Job("retrieval", lambda: dense(6, 8), (x, y.argmax(1)), "recall_at_5", {}),
        "segmentation": Job(
            "segmentation", lambda: masks(3), (images, (images[:, 0] > 0).long() + (images[:, 1] > 1)), "miou", {}
        ),
        "sequence_to_sequence": Job(
            "sequence_to_sequence", lambda: Reader(12, 12), (ids, (ids * 5) % 12), "exact_match", {}
        ),
        "token_classification": Job(TokenClassification(TAGS), lambda: Reader(12, 5), (ids, ids % 5), "f1_micro", {}),
    }


def _spread(outputs: Tensor, targets: Tensor) -> Tensor:
    return 1 - (outputs - targets).abs().max() / (targets.max() - targets.min() + 1)


def _together(parts: Any) -> Any:
    return torch.stack([image for image, _ in parts]), [objects for _, objects in parts]


JOBS = _jobs()
