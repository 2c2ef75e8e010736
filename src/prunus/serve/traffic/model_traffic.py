"""Which model answers a request, of those that are served under one name?

One model; or a dense and a pruned one: then a share of the requests is answered by the pruned one and asked of the dense one, too
(canary), or the dense one answers and the pruned one is asked beside it (shadow). What is asked beside comes after the answer and
is left out where the queue is long. Where the pruned model turns out worse, the dense one answers again (roll-back), by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from prunus.core.errors import RecipeError
from prunus.serve.refusal import Refusal
from prunus.serve.running.batcher import Answer
from prunus.serve.running.served_model import ServedModel
from prunus.serve.traffic.comparison import Comparison, Promise
from prunus.serve.traffic.likeness_of_answers import alike, read_labels, worse_by_labels
from prunus.serve.traffic.recent_answers import RecentAnswers
from prunus.serve.wire.tensor_data import Array

__all__ = ["Pair", "Stage", "Traffic"]

Stage = Literal["single", "canary", "shadow", "promoted", "rolled back"]
_MOST_BESIDE = 256
"""So many requests may be asked beside their answers at one time."""
_LOST = (500, 422, 503)
"""How a model fails on a request that the other may answer."""


@dataclass(frozen=True)
class Pair:
    """How dense and pruned are served together: the pruned one's share of the answers, or None where it only goes along."""

    share: float | None
    promise: Promise

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise RecipeError(f"--canary must be above 0 and at most 100 percent: got {100 * self.share:g}")

    @property
    def stage(self) -> Stage:
        """How it begins."""
        return "shadow" if self.share is None else "canary"


class Traffic:
    """The models of one name.

    Args:
        first: what answers where there is one model, and the dense one of a pair.
        pruned: what is tried beside it.
        changed: is told when another model answers from now on, and why.
    """

    def __init__(
        self,
        name: str,
        first: ServedModel,
        pruned: ServedModel | None = None,
        pair: Pair | None = None,
        changed: Callable[[Stage, str], None] = lambda stage, why: None,
    ) -> None:
        self.name, self.first, self.pruned, self.pair, self._changed = name, first, pruned, pair, changed
        self.stage: Stage = "single" if pair is None else pair.stage
        self.comparison = None if pair is None else Comparison(pair.promise)
        self.recent = RecentAnswers()
        self.n_beside_left_out = 0
        self._draw = random.Random(0)  # noqa: S311 - who gets the pruned model is no secret
        self._beside: set[asyncio.Task[None]] = set()

    @property
    def primary(self) -> ServedModel:
        """What answers, but for the share of a canary."""
        return self.pruned if self.pruned is not None and self.stage == "promoted" else self.first

    @property
    def models(self) -> list[ServedModel]:
        """All that are served now."""
        return [self.first] if self.pruned is None else [self.first, self.pruned]

    def model(self, name: str, version: str | None) -> ServedModel:
        """Return the model that clients mean.

        Raises:
            Refusal: there is none (404).
        """
        if name != self.name:
            raise Refusal(404, f"there is no model {name[:100]!r} here: {self.name!r} is served", field="model")
        if version is None:
            return self.primary
        for model in self.models:
            if model.spec.version == version:
                return model
        known = ", ".join(model.spec.version for model in self.models)
        raise Refusal(404, f"{self.name!r} has no version {version[:100]!r}: it has {known}", field="version")

    async def answer(
        self, model: ServedModel, pinned: bool, arrays: list[Array], n_bytes: int, timeout_s: float, request_id: str
    ) -> tuple[ServedModel, Answer]:
        """Return what answered, and the answer.

        Args:
            model: what was asked for when the request came.
            pinned: it was asked for by its version, so it is to answer, and nothing is compared.
        """
        if pinned:
            return await self._alone(model, arrays, n_bytes, timeout_s, request_id)
        if self.pair is None or self.pruned is None or self.stage not in ("canary", "shadow"):
            return await self._alone(self.primary, arrays, n_bytes, timeout_s, request_id)
        dense, pruned = self.first, self.pruned
        share = self.pair.share if self.stage == "canary" else 0.0
        chosen, other = (pruned, dense) if self._draw.random() < (share or 0.0) else (dense, pruned)
        try:
            made = await chosen.answer(arrays, n_bytes, timeout_s)
        except Refusal as refusal:
            if chosen is dense or refusal.status not in _LOST:
                raise
            # The pruned model fails where the dense one may not: that counts, and the client still gets an answer.
            made = await dense.answer(arrays, n_bytes, timeout_s)
            self._compared(dense, pruned, [1] * len(arrays[0]), None)
            return dense, made
        self.recent.keep(request_id, arrays, n_bytes, chosen.spec.version, made)
        if self.stage == "shadow" or chosen is pruned:
            self._ask_beside(other, chosen, arrays, n_bytes, request_id, made)
        return chosen, made

    async def _alone(
        self, model: ServedModel, arrays: list[Array], n_bytes: int, timeout_s: float, request_id: str
    ) -> tuple[ServedModel, Answer]:
        made = await model.answer(arrays, n_bytes, timeout_s)
        self.recent.keep(request_id, arrays, n_bytes, model.spec.version, made)
        return model, made

    def _ask_beside(
        self, other: ServedModel, chosen: ServedModel, arrays: list[Array], n_bytes: int, request_id: str, made: Answer
    ) -> None:
        """Ask the other model, too, once the client has its answer; leave it out where there is too much to do."""
        if len(self._beside) >= _MOST_BESIDE or other.batcher.half_full:
            self.n_beside_left_out += 1
            return
        task = asyncio.get_running_loop().create_task(
            self._compare(other, chosen, arrays, n_bytes, request_id, made), name="beside"
        )
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _compare(
        self, other: ServedModel, chosen: ServedModel, arrays: list[Array], n_bytes: int, request_id: str, made: Answer
    ) -> None:
        pruned_answers = chosen is self.pruned
        try:
            found = await other.answer(arrays, n_bytes, 30.0)
        except Refusal as refusal:
            if refusal.status in _LOST and not pruned_answers:  # only the pruned model fails
                self._compared(chosen, other, [1] * len(arrays[0]), None)
            else:
                self.n_beside_left_out += 1
            return
        if (recent := self.recent.find(request_id)) is not None:
            recent.answers[other.spec.version] = found
        dense, pruned = (other, chosen) if pruned_answers else (chosen, other)
        same = alike(chosen.spec, *((found, made) if pruned_answers else (made, found)))
        self._compared(dense, pruned, [int(not one) for one in same], None)

    def _compared(self, dense: ServedModel, pruned: ServedModel, differ: list[int], worse: list[int] | None) -> None:
        """Take one request into the tests, and roll back where they say that the pruned model is worse."""
        if self.comparison is None or dense is not self.first or pruned is not self.pruned:
            return  # one of them was replaced meanwhile
        if worse is not None:
            self.comparison.labels.observe(worse)
        else:
            self.comparison.answers.observe(differ)
        if self.comparison.verdict == "worse" and self.stage in ("canary", "shadow", "promoted"):
            which = "labels" if self.comparison.labels.shown == "worse" else "the dense model's answers"
            self.turn("rolled back", f"shown to be worse by {which}")

    def feedback(self, request_id: str, given: Any) -> bool:
        """Take the labels of a request that was answered; return whether both models' answers to it were there to compare.

        Raises:
            Refusal: the request is unknown or forgotten (404), has labels already (409), or these are none (400).
        """
        recent = self.recent.find(request_id)
        if recent is None:
            raise Refusal(404, "no request of this id was answered lately", field="id")
        if recent.labels is not None:
            raise Refusal(409, "this request has its labels already", field="id")
        labels = read_labels(self.first.spec, given, len(recent.arrays[0]))
        recent.labels = labels
        if self.pruned is None:
            return False
        dense, pruned = recent.answers.get(self.first.spec.version), recent.answers.get(self.pruned.spec.version)
        if dense is None or pruned is None:
            return False
        self._compared(self.first, self.pruned, [], worse_by_labels(self.first.spec, dense, pruned, labels))
        return True

    def turn(self, stage: Stage, why: str) -> None:
        """Let another model answer from now on."""
        self.stage = stage
        self._changed(stage, why)

    def begin_again(self) -> None:
        """Forget what was compared, since one of the models is another one now."""
        if self.pair is not None:
            self.comparison = Comparison(self.pair.promise)
            self.stage = self.pair.stage
        self.recent.forget()

    async def drained(self) -> None:
        """Wait for what is asked beside, and for all queues."""
        while self._beside:
            await asyncio.wait(self._beside)
        for model in self.models:
            await model.retire()
