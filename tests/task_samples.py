"""Answers and targets of every task, as the laws of tasks need them: one row per task, and a test fails where one lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import map_tensors, select_rows
from prunus.tasks import Task, measured, tasks
from prunus.tasks.agreement import Agreement
from prunus.tasks.own import own_task

Draw = torch.Generator


@dataclass(frozen=True)
class Answer:
    """What many models return: a structure with logits, and something beside them."""

    logits: Tensor
    loss: Tensor | None = None


@dataclass(frozen=True)
class Sample:
    """A task, and what makes ``n`` answers, inputs and targets of it."""

    task: Task
    make: Callable[[int, Draw], tuple[Any, Any, Any]]

    def drawn(self, n: int, seed: int) -> tuple[Any, Batch]:
        outputs, inputs, targets = self.make(n, torch.Generator().manual_seed(seed))
        return outputs, Batch(torch.arange(n), inputs, targets)


def rows(outputs: Any, batch: Batch, which: Tensor) -> tuple[Any, Batch]:
    """Return some examples of both."""
    return select_rows(outputs, which), Batch(*(select_rows(one, which) for one in batch))


def learning(outputs: Any) -> tuple[Any, list[Tensor]]:
    """Return the same answer with gradients, and the tensors that get them."""
    leaves: list[Tensor] = []

    def leaf(found: Tensor) -> Tensor:
        if not found.is_floating_point():
            return found
        leaves.append(found.detach().clone().requires_grad_())
        return leaves[-1]

    return map_tensors(leaf, outputs), leaves


def numbers(top: int, *size: int, draw: Draw) -> Tensor:
    return torch.randint(top, size, generator=draw)


def normal(*size: int, draw: Draw) -> Tensor:
    # Few different values: ties are where a ranking goes wrong.
    return torch.randn(*size, generator=draw).mul(4).round().div(4)


def ignored(labels: Tensor, draw: Draw, value: int = -100) -> Tensor:
    return labels.masked_fill(torch.rand(labels.shape, generator=draw) < 0.2, value)


def classification(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 3, draw=draw), None, numbers(3, n, draw=draw)


def single_logit(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 1, draw=draw), None, numbers(2, n, draw=draw)


def regression(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 2, draw=draw), None, normal(n, 2, draw=draw)


def multilabel(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 4, draw=draw), None, numbers(2, n, 4, draw=draw)


def segmentation(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return (
        Answer(normal(n, 3, 4, 5, draw=draw)),
        None,
        ignored(numbers(3, n, 8, 10, draw=draw), draw, 255),
    )


def one_logit_masks(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 1, 4, 5, draw=draw), None, numbers(2, n, 4, 5, draw=draw)


TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def tokens(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return {"logits": normal(n, 7, 5, draw=draw)}, None, ignored(numbers(5, n, 7, draw=draw), draw)


def language(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    ids = numbers(11, n, 6, draw=draw)
    mask = (torch.arange(6)[None] < 2 + numbers(5, n, 1, draw=draw)).long()
    return Answer(normal(n, 6, 11, draw=draw)), {"input_ids": ids, "attention_mask": mask}, None


def sequences(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return {"logits": normal(n, 3, 4, draw=draw)}, None, ignored(numbers(4, n, 3, draw=draw), draw)


def retrieval(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 3, draw=draw), None, numbers(max(2, n // 2), n, draw=draw)


def pairs(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return (normal(n, 5, draw=draw), normal(n, 5, draw=draw)), None, None


def agreement(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    return normal(n, 3, draw=draw), None, normal(n, 3, draw=draw)


def boxes(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    def one() -> Any:
        return [{"boxes": normal(int(numbers(3, 1, draw=draw)) + 1, 4, draw=draw)} for _ in range(n)]

    return one(), None, one()


def detections(n: int, draw: Draw) -> tuple[Any, Any, Any]:
    """Answers near the objects, and a loss that the detector gives of itself; COCO ranks ties by the order of the images."""
    targets: list[dict[str, Tensor]] = []
    for _ in range(n):
        g = int(numbers(4, 1, draw=draw))
        corner = torch.rand(g, 2, generator=draw)
        boxes = torch.cat([corner, corner + torch.rand(g, 2, generator=draw)], dim=1)
        targets.append({"boxes": boxes, "labels": numbers(3, g, draw=draw)})
    queries = torch.rand(n, 5, 4, generator=draw)
    for row, target in enumerate(targets):
        boxes = target["boxes"]
        near = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
        queries[row, : len(near)] = near + normal(*near.shape, draw=draw) / 20
    loss = torch.rand((), generator=draw)
    return {"loss": loss, "logits": torch.randn(n, 5, 3, generator=draw), "pred_boxes": queries}, None, targets


def largest_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().max()


SAMPLES: dict[str, Sample] = {
    "agreement": Sample(Agreement(), agreement),
    "agreement, boxes": Sample(Agreement(), boxes),
    "classification": Sample(tasks["classification"](), classification),
    "classification, one logit": Sample(tasks["classification"](("no", "yes")), single_logit),
    "detection": Sample(tasks["detection"](("a", "b", "c")), detections),
    "language": Sample(tasks["language"](), language),
    "multilabel": Sample(tasks["multilabel"](), multilabel),
    "own": Sample(
        own_task(loss=torch.nn.L1Loss(), metric={"largest_error": largest_error}, higher_is_better=False), regression
    ),
    "regression": Sample(tasks["regression"](), regression),
    "retrieval": Sample(tasks["retrieval"](), retrieval),
    "retrieval, pairs": Sample(tasks["retrieval"](), pairs),
    "segmentation": Sample(tasks["segmentation"](), segmentation),
    "segmentation, one logit": Sample(tasks["segmentation"](), one_logit_masks),
    "sequence_to_sequence": Sample(tasks["sequence_to_sequence"](), sequences),
    "token_classification": Sample(tasks["token_classification"](), tokens),
    "token_classification, spans": Sample(tasks["token_classification"](TAGS), tokens),
}
"""By the task's name, and what is special after a comma. A task of one's own is no registered one, but holds the same laws."""


def batch_of(targets: Any, inputs: Any = None, n: int | None = None) -> Batch:
    return Batch(torch.arange(len(targets) if n is None else n), inputs, targets)


def value_of(task: Task, name: str, outputs: Any, batch: Batch) -> float:
    """Return one metric of one batch."""
    seen = task.settled(task.observe(outputs, batch))
    return float(measured(task, [name], seen, np.ones((1, len(batch.index))))[0, 0])
