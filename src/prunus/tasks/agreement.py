"""How closely does a model answer as another one does? For data without labels: the targets are the dense model's answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunus.core.batch import Batch
from prunus.core.calls import answers, described
from prunus.core.errors import DataError, ModelError
from prunus.core.predictions import Prediction
from prunus.core.types import Floats
from prunus.tasks.metric import metric, ratio
from prunus.tasks.one_tensor import plain_answer
from prunus.tasks.shares import Share, counted_right
from prunus.tasks.task import Observed, Task, task

__all__ = ["Agreement", "Likeness", "agreement", "decision_agreement", "kl", "relative_distance"]


class Likeness(NamedTuple):
    """Sums over examples, of relative distances and of the shares of same decisions, and their number, each ``(resamples,)``."""

    distance: Floats
    same: Floats
    examples: Floats


@task("agreement")
@dataclass(frozen=True)
class Agreement(Task):
    """Targets are what the dense model answered to the same inputs, of any structure; all floating-point numbers of both count.

    The relative distance of an example is ``|y - r| / |r|`` over all of its numbers. Where the answer is scores of classes (it is
    ``(n, classes)`` or called ``logits``; ``scores`` says otherwise), its decisions are the highest ones, and the example is
    right when all of them are the same; any other answer is right within ``tolerance``, a relative distance.
    """

    reads: ClassVar[tuple[str, ...]] = ("distance", "same")
    of_dense: ClassVar[bool] = True
    scores: bool | None = None
    tolerance: float = 0.05

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that both answers have the same numbers for each example."""
        if batch.targets is None:
            raise DataError("agreement: expected the dense model's answers as targets: got None")
        self._distances(outputs, batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return each example's relative distance."""
        return self._distances(outputs, batch)

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return the distance, the share of the same decisions, and the divergence, which is NaN where no classes are scored."""
        distance = self._distances(outputs, batch).detach().double().cpu()
        classes = self._classes(outputs, batch.targets)
        if classes is None:
            right = distance <= self.tolerance
            same, divergence = right.double(), torch.full_like(distance, torch.nan)
        else:
            old, new = (one.detach().double().flatten(2).log_softmax(dim=1) for one in classes)
            same = (old.argmax(dim=1) == new.argmax(dim=1)).double().mean(dim=1).cpu()
            right = same == 1
            divergence = (old.exp() * (old - new)).sum(dim=1).mean(dim=1).clamp(min=0).cpu()
        columns = {"distance": distance, "same": same, "kl": divergence, "right": right}
        return {name: column.numpy() for name, column in columns.items()}

    def totals(self, observed: Observed, weights: Floats) -> Likeness:
        """Return the sums."""
        return Likeness(weights @ observed["distance"], weights @ observed["same"], weights.sum(axis=1))

    def decode(self, outputs: Any) -> Prediction:
        """Return the numbers of the answer."""
        return Prediction(plain_answer(outputs))

    def _distances(self, outputs: Any, batch: Batch) -> Tensor:
        n = len(batch.index)
        if _is_per_example(batch.targets, n) and _is_per_example(outputs, n):
            pairs = [
                tuple(torch.cat([*(one.flatten() for one in many)]) for many in _padded(answers(new), answers(old)))
                for new, old in zip(outputs, batch.targets, strict=True)
            ]
            return torch.stack([_relative(new[None], old[None])[0] for new, old in pairs])
        found, wanted = _numbers(outputs, n), _numbers(batch.targets, n)
        # What follows the cut, a hidden state beside the answer, can't be compared.
        alike = [(new, old) for new, old in zip(found, wanted, strict=False) if new.shape == old.shape]
        if len(found) != len(wanted) or not alike:
            raise ModelError(
                f"agreement: expected an answer like the dense model's, {described(batch.targets)}: got {described(outputs)}"
            )
        new, old = (torch.cat([one.float().flatten(1) for one in many], dim=1) for many in zip(*alike, strict=True))
        return _relative(new, old)

    def _classes(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor] | None:
        """Return the scores of both answers, ``(n, classes, ...)``, the dense model's first, where they are scores of classes."""
        (old, named), (new, _) = _scores(targets), _scores(outputs)
        if old is None or new is None or old.shape != new.shape or self.scores is False:
            return None
        if old.ndim == 1 or old.shape[1:] == (1,):  # a single logit can't be told from a number
            if not self.scores:
                return None
            old, new = (torch.stack([torch.zeros_like(one.flatten()), one.flatten()], dim=1) for one in (old, new))
        if old.ndim > 2 and not (named or self.scores):
            return None
        dim = 2 if old.ndim == 3 else 1
        return old.movedim(dim, 1).unsqueeze(-1), new.movedim(dim, 1).unsqueeze(-1)


def _numbers(tree: Any, n: int) -> list[Tensor]:
    """Return the floating-point tensors with a row for each example: a loss beside them has none."""
    return [found for found in answers(tree) if found.ndim and len(found) == n]


def _is_per_example(tree: Any, n: int) -> bool:
    """Tell whether a structure is a list with one answer for each example, as detectors give."""
    return isinstance(tree, list) and len(tree) == n and not all(isinstance(one, Tensor) and one.ndim for one in tree)


def _padded(found: list[Tensor], wanted: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return both in the same sizes: what one has more rows of counts against zeros."""
    if len(found) != len(wanted) or any(a.shape[1:] != b.shape[1:] for a, b in zip(found, wanted, strict=False)):
        raise ModelError(
            f"agreement: expected an answer like the dense model's, {described(wanted)}: got {described(found)}"
        )
    sizes = [max(len(a), len(b)) for a, b in zip(found, wanted, strict=True)]

    def grown(many: list[Tensor]) -> list[Tensor]:
        return [
            torch.cat([one, one.new_zeros(size - len(one), *one.shape[1:])])
            for one, size in zip(many, sizes, strict=True)
        ]

    return grown(found), grown(wanted)


def _relative(new: Tensor, old: Tensor) -> Tensor:
    """Return ``|new - old| / |old|`` of each row; of a row of zeros any other is 1 away."""
    old = old.detach().to(new.device)
    lost, size = torch.linalg.vector_norm(new - old, dim=1), torch.linalg.vector_norm(old, dim=1)
    own = torch.linalg.vector_norm(new, dim=1).detach()
    far: Tensor = lost / torch.where(size > 0, size, torch.where(own > 0, own, 1.0))
    return far


def _scores(tree: Any) -> tuple[Tensor | None, bool]:
    """Return what may be scores of classes, and whether it is called so."""
    for name in ("logits", "out"):
        named = tree.get(name) if isinstance(tree, Mapping) else getattr(tree, name, None)
        if isinstance(named, Tensor) and named.is_floating_point():
            return named, True
    found = [one for one in answers(tree) if one.ndim]
    return (found[0], False) if len(found) == 1 and not isinstance(tree, list) else (None, False)


@metric(
    "agreement",
    task="agreement",
    higher_is_better=True,
    label="agreement",
    unit="share",
    exact_test=True,
    default=0,
    totals=counted_right,
    reads=("right",),
)
def agreement(counts: Share) -> Floats:
    """Return the share of examples with the dense model's decisions; where there are none, with nearly its numbers."""
    return ratio(counts.right, counts.examples)


@metric("decision_agreement", task="agreement", higher_is_better=True, label="same decisions", unit="share", default=1)
def decision_agreement(likeness: Likeness) -> Floats:
    """Return the mean share of an example's decisions (pixels, tokens) that are the dense model's."""
    return ratio(likeness.same, likeness.examples)


@metric("relative_distance", task="agreement", higher_is_better=False, label="relative distance", default=1)
def relative_distance(likeness: Likeness) -> Floats:
    """Return the mean distance of an example's answer from the dense model's, over that one's length."""
    return ratio(likeness.distance, likeness.examples)


def _divergence(observed: Observed, weights: Floats) -> tuple[Floats, Floats]:
    if np.isnan(observed["kl"]).any():
        raise ModelError(
            "kl: the answers aren't scores of classes: expected (n, classes), or a structure with logits; name another metric, or "
            "say Agreement(scores=True)"
        )
    return weights @ observed["kl"], weights.sum(axis=1)


@metric(
    "kl",
    task="agreement",
    higher_is_better=False,
    label="divergence",
    totals=_divergence,
    reads=("kl",),
)
def kl(total: tuple[Floats, Floats]) -> Floats:
    """Return the mean divergence of the dense model's class probabilities from the model's, in nats per decision."""
    return ratio(*total)
