"""A vector for each example, by which its like are found: images of one product, a question and its answer.

What is resampled are the queries, against the fixed set of all that were observed: the rank of the first thing rightly found is
known before any weights are, so it doesn't hang on which other queries are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.batch import Batch
from prunus.core.calls import described
from prunus.core.errors import DataError, ShapeError
from prunus.core.predictions import Prediction, check_outputs_finite
from prunus.core.types import Floats
from prunus.tasks.metric import metric, ratio
from prunus.tasks.one_tensor import leading_tensor
from prunus.tasks.task import Observed, Task, task

__all__ = ["Ranks", "Retrieval", "mrr", "recall_at_1", "recall_at_5", "recall_at_10"]

_NAMED = ("embeddings", "sentence_embedding", "image_embeds", "text_embeds", "pooler_output")
_PAIRS = (("query", "item"), ("text_embeds", "image_embeds"))
_TIE = 1e-9
"""Cosines this close are the same: a vector that occurs twice mustn't be ranked by rounding."""
_BLOCK = 4_000_000


class Ranks(NamedTuple):
    """How many queries find their like among the first 1, 5 and 10; the sum of 1 / rank; the queries: each ``(resamples,)``."""

    at_1: Floats
    at_5: Floats
    at_10: Floats
    reciprocal: Floats
    queries: Floats


@task("retrieval")
@dataclass(frozen=True)
class Retrieval(Task):
    """Outputs are vectors, ``(n, size)``, and targets the number of what each example shows, ``(n,)``: equal ones are alike.

    Or outputs are a pair of such (a tuple, ``query`` and ``item``, ``text_embeds`` and ``image_embeds``): an example's first one
    is the query for the second; targets may lack. A single vector never finds itself; one that has no like is no query. Vectors are
    compared by their cosine, and a tie counts as not found. ``temperature`` divides the cosines in the contrastive loss.
    """

    reads: ClassVar[tuple[str, ...]] = ("rank",)
    labelled: ClassVar[bool] = False
    temperature: float = 0.05

    def check(self, outputs: Any, batch: Batch) -> None:
        """See that there is a vector, or a pair of them, for each example."""
        self._read(outputs, batch)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return -log of the share that an example's like get of the batch, in nats; of a pair the mean of both directions.

        0 for an example without its like in the batch.

        References:
            InfoNCE (arXiv:1807.03748); with several alike, the sum inside the logarithm of arXiv:2004.11362.
        """
        query, item, number, paired = self._read(outputs, batch)
        cosines = (query @ item.T) / self.temperature
        alike = number[:, None] == number[None, :]
        if paired:
            return (_contrast(cosines, alike) + _contrast(cosines.T, alike)) / 2
        itself = torch.eye(len(number), dtype=torch.bool, device=number.device)
        return _contrast(cosines.masked_fill(itself, -torch.inf), alike & ~itself)

    def observe(self, outputs: Any, batch: Batch) -> Observed:
        """Return the vectors: what they find is known when all have been seen."""
        query, item, number, paired = self._read(outputs, batch)
        columns = {"query": query, "item": item} if paired else {"query": query}
        return {"number": number.cpu().numpy()} | {
            name: column.detach().cpu().numpy() for name, column in columns.items()
        }

    def settled(self, observed: Observed) -> Observed:
        """Return at which rank each query finds the first of its like, among all that were observed; 0 where there is none."""
        number = torch.from_numpy(np.asarray(observed["number"]))
        paired = "item" in observed
        query = torch.from_numpy(observed["query"]).double()
        item = torch.from_numpy(observed["item"]).double() if paired else query
        parts = []
        for rows in torch.split(torch.arange(len(query)), max(1, _BLOCK // max(1, len(item)))):
            cosines = query[rows] @ item.T
            alike = number[rows][:, None] == number[None, :]
            itself = torch.zeros_like(alike)
            if not paired:
                itself[torch.arange(len(rows)), rows] = True
            best = cosines.masked_fill(~alike | itself, -torch.inf).amax(dim=1, keepdim=True)
            before = ((cosines >= best - _TIE) & ~alike).sum(dim=1)
            parts.append((before + 1).where(best[:, 0] > -torch.inf, 0))
        rank = torch.cat(parts).numpy() if parts else np.zeros(0, np.int64)
        return {"rank": rank}

    def totals(self, observed: Observed, weights: Floats) -> Ranks:
        """Return the sums over the queries."""
        rank = observed["rank"].astype(np.float64)
        is_query = rank > 0
        found = [(is_query & (rank <= k)).astype(np.float64) for k in (1, 5, 10)]
        queries = is_query.astype(np.float64)
        return Ranks(*(weights @ column for column in (*found, ratio(queries, rank), queries)))

    def decode(self, outputs: Any) -> Prediction:
        """Return the vector of each example, of length 1; of a pair the query's."""
        pair = _pair(outputs)
        found = _single(outputs) if pair is None else pair[0]
        check_outputs_finite(found)
        return Prediction(tuple(functional.normalize(found.detach().double(), dim=-1).tolist()))

    def _read(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Return vectors of queries and of items, of length 1, what they show, and whether they're pairs."""
        n, targets, pair = len(batch.index), batch.targets, _pair(outputs)
        vectors = pair or (_single(outputs),)
        if any(one.ndim != 2 or len(one) != n for one in vectors) or vectors[0].shape != vectors[-1].shape:
            raise ShapeError(
                f"retrieval: expected one vector per example, ({n}, size), or a pair of them: got {described(outputs)}"
            )
        if targets is None and pair:
            number = batch.index
        elif not isinstance(targets, Tensor) or targets.is_floating_point() or tuple(targets.shape) != (n,):
            raise DataError(
                f"retrieval: expected a number of what each example shows, ({n},): got {described(targets)}; "
                "without such, the model must return a pair of vectors"
            )
        else:
            number = targets
        query, item = (functional.normalize(one.float(), dim=1) for one in (vectors[0], vectors[-1]))
        return query, item, number.to(query.device), bool(pair)


def _contrast(scores: Tensor, alike: Tensor) -> Tensor:
    found = scores.masked_fill(~alike, -torch.inf).logsumexp(dim=1)
    has = alike.any(dim=1)
    # A row without its like has no finite logarithm, and its gradient must not be NaN.
    return torch.where(has, scores.where(has[:, None], 0.0).logsumexp(dim=1) - found.where(has, 0.0), 0.0)


def _named(outputs: Any, name: str) -> Tensor | None:
    found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
    return found if isinstance(found, Tensor) else None


def _pair(outputs: Any) -> tuple[Tensor, Tensor] | None:
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2 and all(isinstance(one, Tensor) for one in outputs):
        return outputs[0], outputs[1]
    for names in _PAIRS:
        query, item = (_named(outputs, name) for name in names)
        if query is not None and item is not None:
            return query, item
    return None


def _single(outputs: Any) -> Tensor:
    named = [] if isinstance(outputs, Tensor) else [_named(outputs, name) for name in _NAMED]
    found = next((one for one in named if one is not None), None)
    return leading_tensor(outputs) if found is None else found


@metric("recall_at_1", task="retrieval", higher_is_better=True, label="recall@1", unit="share", default=0)
def recall_at_1(ranks: Ranks) -> Floats:
    """Return the share of queries whose nearest neighbour is like them."""
    return ratio(ranks.at_1, ranks.queries)


@metric("recall_at_5", task="retrieval", higher_is_better=True, label="recall@5", unit="share", default=1)
def recall_at_5(ranks: Ranks) -> Floats:
    """Return the share of queries that have one of their like among the 5 nearest."""
    return ratio(ranks.at_5, ranks.queries)


@metric("recall_at_10", task="retrieval", higher_is_better=True, label="recall@10", unit="share", default=1)
def recall_at_10(ranks: Ranks) -> Floats:
    """Return the share of queries that have one of their like among the 10 nearest."""
    return ratio(ranks.at_10, ranks.queries)


@metric("mrr", task="retrieval", higher_is_better=True, label="MRR", default=1)
def mrr(ranks: Ranks) -> Floats:
    """Return the mean reciprocal rank: 1 / the place of the first of a query's like."""
    return ratio(ranks.reciprocal, ranks.queries)
