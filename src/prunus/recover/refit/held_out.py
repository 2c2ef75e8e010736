"""On which calibration examples is a repair judged, and how far is one model from another on them?

A repair that is judged on what it was fitted to always looks well: a quarter of the examples has no part in any fit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from prunus.core.calls import answers, call, described, select_rows
from prunus.core.errors import ModelError
from prunus.tasks.boxes.box_distance import boxes_apart

if TYPE_CHECKING:
    from prunus.data import Batch, Batched

__all__ = ["FEWEST", "Answers", "Measure", "Part", "distance", "natural_measure", "split_off"]

Measure = Literal["relative", "kl", "kl_last", "boxes"]

FEWEST = 8
"""With fewer examples, those that are held out say nothing."""
_ANSWER_BYTES = 256 << 20
"""Answers are remembered up to so many bytes: those of a language model, a score for every word at every place, may be more."""
_TENSOR_BYTES = 1 << 10
"""What a tensor takes beside its numbers, with its place in a dictionary."""


class Part:
    """Some of a set's examples, by their places in it: every fourth, or the others."""

    def __init__(self, examples: Batched, *, held_out: bool) -> None:
        self._examples, self._held_out = examples, held_out

    def __len__(self) -> int:
        fourths = len(self._examples) // 4
        return fourths if self._held_out else len(self._examples) - fourths

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield what there is of each batch of the whole set."""
        for batch in self._examples.batches(batch_size, generator):
            mine = (batch.index % 4 == 3) == self._held_out
            if bool(mine.all()):
                yield batch
            elif bool(mine.any()):
                yield type(batch)(*(select_rows(field, mine) for field in batch))


def split_off(examples: Batched) -> tuple[Any, Any]:
    """Return the examples to fit on, and every fourth, which is held out.

    >>> [len(part) for part in split_off(range(10))]
    [8, 2]
    """
    return Part(examples, held_out=False), Part(examples, held_out=True)


class Answers:
    """What a model answers to one set of examples, computed once: many others are compared with it, and it stays as it is.

    What doesn't fit into ``memory_bytes`` is computed anew each time. The model ends in evaluation mode.
    """

    def __init__(self, model: nn.Module, *, memory_bytes: int = _ANSWER_BYTES) -> None:
        self._model, self._left = model, memory_bytes
        self._kept: dict[bytes, list[Tensor]] = {}

    @torch.no_grad()
    def to(self, batch: Batch) -> list[Tensor]:
        """Return the tensors of the answer to a batch of the set."""
        # Short: the numbers of its examples take half as much as the answers of a few classes.
        key = hashlib.blake2b(batch.index.numpy(force=True).tobytes(), digest_size=16).digest()
        if key in self._kept:
            return self._kept[key]
        found = answers(call(self._model.eval(), batch.inputs))
        size = sum(each.numel() * each.element_size() + _TENSOR_BYTES for each in found)
        if size <= self._left:
            self._left -= size
            self._kept[key] = [each.clone() for each in found]  # a view would keep all that it is a part of
        return found


@torch.no_grad()
def distance(
    model: nn.Module,
    reference: nn.Module | Answers,
    examples: Batched,
    *,
    measure: Measure = "relative",
    batch_size: int = 256,
) -> float:
    """Return how far the outputs are from the reference's; both models end in evaluation mode.

    Of a structure all numbers count that both models have in the same shape. Give the reference as ``Answers`` to these examples
    where several models are compared with it.

    Units:
        ``relative``: ``|y - r| / |r|`` over all outputs of all examples, 0 for the same outputs and 1 for those that are all zero.
        ``kl``, for class scores along dimension 1: the mean divergence of the reference's answer from the model's, in nats. Scores
        that only shrink or move together answer the same, and the classes that win count most: it goes the way of a metric where
        the other needn't (benchmarks/adjust.py). ``kl_last`` is the same for scores along the last dimension (tokens).
        ``boxes``, for lists of boxes with a score each: the share of the scores for which the other model has no box that overlaps
        as much and is as sure, of both; 0 for the same boxes in any order, 1 where none overlap.

    Raises:
        ModelError: the answers have nothing in the same shape.
    """
    model.eval()
    dense = reference if isinstance(reference, Answers) else Answers(reference, memory_bytes=0)
    lost = size = 0.0
    for batch in examples.batches(batch_size):
        if measure == "boxes":
            missed, there = boxes_apart(answers(call(model, batch.inputs)), dense.to(batch))
            lost, size = lost + missed, size + there
            continue
        for found, wanted in _compared(answers(call(model, batch.inputs)), dense.to(batch)):
            new, old = found.double(), wanted.double()
            if measure != "relative":
                dim = 1 if measure == "kl" else -1
                old = _log_shares(old, dim)
                each = (old.exp() * (old - _log_shares(new, dim))).sum(dim=dim)
                lost, size = lost + float(each.sum()), size + each.numel()
            else:
                lost, size = lost + float((new - old).square().sum()), size + float(old.square().sum())
    if size == 0:
        return math.inf if lost > 0 else 0.0
    return math.sqrt(lost / size) if measure == "relative" else max(lost / size, 0.0)


def natural_measure(outputs: Any) -> Measure:
    """Return how answers are compared where no targets tell: what is called logits is scores of classes, lists hold boxes."""
    if (
        isinstance(outputs, list)
        and outputs
        and all(isinstance(one, dict) and {"boxes", "scores"} <= one.keys() for one in outputs)
    ):
        return "boxes"
    named = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
    several = sum(found.dim() > 0 for found in answers(outputs)) > 1  # a loss beside them is no answer
    if not isinstance(named, Tensor) or several:
        return "relative"
    return "kl" if named.dim() in (2, 4) else "kl_last"


def _compared(found: list[Tensor], reference: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return what both answers hold in the same shape: a hidden state beside the answer follows the cut.

    Raises:
        ModelError: nothing.
    """
    pairs = [(new, old) for new, old in zip(found, reference, strict=False) if new.shape == old.shape]
    if len(found) != len(reference) or not pairs:
        raise ModelError(
            "the smaller model's answer can't be compared with the dense one's: got "
            f"{described(found)} and {described(reference)}"
        )
    return pairs


def _log_shares(scores: Tensor, dim: int = 1) -> Tensor:
    """Return the logarithms of the classes' probabilities; a single score is that of one class against another's zero."""
    if scores.dim() < 2:
        scores = scores.unsqueeze(1)
    if scores.shape[dim] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], dim=dim)
    return scores.log_softmax(dim=dim)
