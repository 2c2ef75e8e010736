"""How are the small models of the three real sets trained, and what does a training say about its examples?

Every training of a set takes the same optimiser and schedule; a share of the data is trained on for that share of the steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from example_data import N_WORDS, RealSet
from torch import Tensor, nn
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.runtime import derive_seed, generator, seeded
from prunus.score import ExampleRecorder, wrong_labels
from prunus.tasks import Classification

FOLDS = 3


@dataclass(frozen=True)
class Setting:
    """How long, and in which steps, a set's model is trained on all of it."""

    epochs: int
    batch_size: int
    learning_rate: float


SETTINGS = {
    "text": Setting(epochs=4, batch_size=256, learning_rate=0.01),
    "mnist1d": Setting(epochs=40, batch_size=64, learning_rate=0.01),
    "flights": Setting(epochs=3, batch_size=512, learning_rate=0.005),
}


class Bag(nn.Module):
    """The mean of an embedding per word, and two layers."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(N_WORDS, 32, mode="mean", padding_idx=0)
        nn.init.normal_(self.words.weight, std=0.03)
        self.body = nn.Sequential(nn.LayerNorm(32), nn.Dropout(0.3), nn.Linear(32, 64), nn.ReLU())
        self.head = nn.Linear(64, n_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        return self.body(self.words(inputs))


class Curve(nn.Module):
    """Three convolutions, as the network that comes with MNIST-1D."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, 25, 5, 2, 1), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Conv1d(25, 25, 3, 2, 1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(125, n_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        return self.body(inputs[:, None])


class Table(nn.Module):
    """An embedding per category, side by side, and two layers."""

    def __init__(self, n_classes: int, n_columns: int, n_codes: int) -> None:
        super().__init__()
        self.codes = nn.Embedding(n_codes, 8)
        self.body = nn.Sequential(nn.Linear(8 * n_columns, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, n_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        return self.body(self.codes(inputs).flatten(start_dim=1))


def model_for(data: RealSet, seed: int) -> nn.Module:
    """Return a fresh model."""
    n_classes = len(data.class_names)
    with seeded(seed, "model"):
        if data.name == "text":
            return Bag(n_classes)
        if data.name == "mnist1d":
            return Curve(n_classes)
        return Table(n_classes, data.inputs.shape[1], int(data.inputs.max()) + 1)


def full_steps(data: RealSet, n: int) -> int:
    """Return for how many steps a model of all ``n`` examples is trained."""
    setting = SETTINGS[data.name]
    return setting.epochs * -(-n // setting.batch_size)


def trained(
    data: RealSet, inputs: Tensor, labels: Tensor, n_steps: int, seed: int, watch: ExampleRecorder | None = None
) -> nn.Module:
    """Return a model that learnt from the examples for so many steps, however many epochs that is."""
    setting = SETTINGS[data.name]
    model = model_for(data, seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.learning_rate, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, setting.learning_rate, total_steps=n_steps, pct_start=min(0.1, 10 / n_steps) + 1 / n_steps
    )
    rounds = _rounds(len(labels), setting.batch_size, seed)
    for _ in range(n_steps):
        epoch, rows = next(rounds)
        outputs = model.head(model.embed(inputs[rows]))  # type: ignore[operator]
        loss = functional.cross_entropy(outputs, labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if watch is not None:
            watch(epoch, Batch(rows, inputs[rows], labels[rows]), outputs.detach())
    return model.eval()


def _rounds(n: int, batch_size: int, seed: int) -> Iterator[tuple[int, Tensor]]:
    draw, epoch = generator(seed, "order"), 0
    while True:
        for rows in torch.randperm(n, generator=draw).split(batch_size):
            yield epoch, rows
        epoch += 1


@torch.no_grad()
def answers(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and what the last layer reads."""
    lying = torch.cat([model.embed(part) for part in inputs.split(4096)])  # type: ignore[operator]
    return model.head(lying), lying  # type: ignore[operator]


def recorded(data: RealSet, inputs: Tensor, labels: Tensor, seed: int) -> dict[str, Tensor]:
    """Return what was recorded of a training, and where examples lie for its model."""
    recorder = ExampleRecorder(len(labels), Classification(class_names=data.class_names))
    model = trained(data, inputs, labels, full_steps(data, len(labels)), derive_seed(seed, "judge"), recorder)
    return recorder.tensors() | {"embedding": answers(model, inputs)[1], "label": labels}


def unseen_once(data: RealSet, inputs: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Return what models say that learnt from other examples, ``(n, classes)``."""
    return _unseen(data, inputs, labels, torch.ones(len(labels), dtype=torch.bool), seed, 1)


def unseen_twice(data: RealSet, inputs: Tensor, labels: Tensor, seed: int, once: Tensor) -> Tensor:
    """Return what models say that didn't learn from what the first ones call wrong either, where those can tell."""
    doubted = torch.from_numpy(wrong_labels(once.double().numpy(), labels.numpy(), seed=seed).doubted())
    return _unseen(data, inputs, labels, ~doubted, seed, 2) if doubted.any() else once


def _unseen(data: RealSet, inputs: Tensor, labels: Tensor, trusted: Tensor, seed: int, number: int) -> Tensor:
    """Return what models say that learnt from trusted labels, and not from the example's own: ``(n, classes)``."""
    fold = torch.randperm(len(labels), generator=generator(seed, "folds")) % FOLDS
    found = torch.zeros(len(labels), len(data.class_names))
    for part in range(FOLDS):
        others, held = torch.nonzero((fold != part) & trusted).flatten(), torch.nonzero(fold == part).flatten()
        steps = full_steps(data, len(others))
        model = trained(data, inputs[others], labels[others], steps, derive_seed(seed, "fold", number, part))
        found[held] = answers(model, inputs[held])[0].softmax(dim=1)
    return found


def measured(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Return how good a model is on test examples; ``auroc`` of two classes only."""
    from sklearn.metrics import roc_auc_score

    logits = answers(model, inputs)[0]
    said, n_classes = logits.argmax(dim=1), logits.shape[1]
    right = torch.bincount(labels[said == labels], minlength=n_classes)
    there = torch.bincount(labels, minlength=n_classes)
    found = {
        "accuracy": float((said == labels).float().mean()),
        "macro_recall": float((right / there.clamp(min=1))[there > 0].mean()),
        "log_loss": float(functional.cross_entropy(logits, labels)),
    }
    if n_classes == 2:
        found["auroc"] = float(roc_auc_score(labels.numpy(), np.asarray(logits[:, 1] - logits[:, 0])))
    return found
