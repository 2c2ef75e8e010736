"""Which units can go for a share of the dense model's latency?

A table of single operations says what every width takes; two measured models say what the table leaves out (scale, what moves
numbers, overhead). Then the cut that the prediction proposes is timed itself, beside the dense model, and the limit is moved until
what was measured is what was asked for.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunus.apply import shrink
from prunus.core.calls import arguments, n_examples, tensors
from prunus.core.errors import ModelError
from prunus.core.recipes import recipe
from prunus.core.types import Bools, Floats, Ints, Stratum
from prunus.evaluate import LatencyTable, fastest_runtime, in_runtime, measure_latency
from prunus.evaluate.timing.latency import Latency, device_of_inputs
from prunus.evaluate.timing.runtimes import called, put_away
from prunus.graph import AxisGraph, Group
from prunus.graph.costs.cost_model import CostModel, CostTerm
from prunus.graph.costs.timed_operations import batch_axis, operations
from prunus.graph.solver.axes import Atom, find
from prunus.graph.solver.axis_positions import left_of
from prunus.pipeline.costing.cost_targets import Costing, masks_of
from prunus.pipeline.costing.kernel_widths import BLOCK, convolved, width_at
from prunus.select import climb, cost_aware, floor_counts, one_less
from prunus.ship.timed.all_runtimes import ALL_RUNTIMES

__all__ = ["Timed", "fit_parts"]

_TRIES, _CLOSE, _ON_THE_WAY = 6, 0.03, 0.15
"""How often a cut is timed and corrected, and how near to what was asked is near enough: at the goal, and on the way to it."""
_BETWEEN = 5
"""How often more where the proposals leap over what was asked for."""
_BESIDE = 3
_FITTED_AT = (0.5, 0.25)


class Timed(Costing):
    """Latency of a batch, in the runtime in which the dense model is fastest (or the one that the recipe names).

    Args:
        dense: what costs 1.
        batch: the inputs that are timed.
        traced: the inputs that models are traced on.
        round_to: as in the strategy.
        goal: the share that is asked for in the end.
    """

    kind = "latency"
    runtime: str

    def __init__(
        self,
        dense: nn.Module,
        batch: Any,
        traced: Any,
        config: recipe.Latency,
        *,
        round_to: int | str = "auto",
        goal: float | None = None,
        note: Callable[[str], None],
        table: LatencyTable | None = None,
        seed: int = 0,
    ) -> None:
        self._dense, self._batch, self._traced, self._config, self._seed = dense, batch, arguments(traced), config, seed
        self._auto, self._goal = round_to == "auto", goal
        self._setting = f"{_structure(dense)} {_sizes(batch)}"
        self.runtime, self._ready = fastest_runtime(dense, batch, config, note=note, known=ALL_RUNTIMES, seed=seed)
        self._table = table or LatencyTable(self.runtime, device=device_of_inputs(batch))
        self._parts: Floats | None = None

    def share(self, model: nn.Module) -> float:
        """Time ``model`` and the dense model in turns; the same structure is timed once on a machine."""
        key, known = _digest(f"{self._setting} {_structure(model)}"), self._table.shares
        if _structure(model) == _structure(self._dense):
            return 1.0
        if key not in known:
            found = self._timed(model)
            assert found.speedup is not None
            known[key] = 1 / found.speedup.value
        return known[key]

    def too_slow(self, model: nn.Module) -> str:
        """Return that a model isn't measurably faster than the dense one, timed anew: what is remembered was another day's."""
        speedup = self._timed(model).speedup
        assert speedup is not None
        if speedup.low > 1:
            return ""
        return (
            f"it isn't measurably faster than the dense model in {called(self.runtime, ALL_RUNTIMES)}: {speedup.value:.2f}x "
            f"({speedup.low:.2f}x to {speedup.high:.2f}x)"
        )

    def _timed(self, model: nn.Module) -> Latency:
        pruned = in_runtime(self.runtime, model, self._batch, known=ALL_RUNTIMES, clock=self._config.clock)
        try:
            models = {"dense": self._ready, "pruned": pruned}
            return measure_latency(models, self._batch, self._config, runtime=self.runtime, seed=self._seed)
        finally:
            put_away(pruned)

    def floor(self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum]) -> float:
        """Predict from the table."""
        strata = self._rounded(groups, strata)
        found = self._model(graph, groups, model).total(floor_counts(strata))
        self._table.save()
        return min(1.0, found)

    def choose(
        self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum], share: float
    ) -> list[Bools]:
        """Propose by prediction, time what was proposed, and correct the limit."""
        strata = self._rounded(groups, strata)
        cost = self._model(graph, groups, model)
        floor = cost.total(floor_counts(strata))
        if floor > share:
            raise self.refuse(share, floor)
        close = _CLOSE if self._goal is None or share <= 1.05 * self._goal else _ON_THE_WAY
        timed = _Timings(lambda counts: self.share(self._cut(graph, groups, model, strata, counts)), share, close)
        limit, seen = share, list[tuple[float, float]]()
        while not timed.take(cost_aware(strata, cost, max(limit, floor))) and len(seen) < _TRIES - 1:
            seen.append((limit, timed.taken[-1][0]))
            moved = min(1.0, _moved(seen, share))
            if max(moved, floor) == max(limit, floor):
                break
            limit = moved
        if not timed.found:
            _between(timed, strata, cost)
        self._table.save()
        return masks_of(strata, timed.nearest)

    def _rounded(self, groups: Sequence[Group], strata: Sequence[Stratum]) -> list[Stratum]:
        """Give channels the multiple that the runtime's kernels want, where nothing else was asked for."""
        sizes = convolved(groups, self._dense) if self._auto else {}
        wanted = self._table.block() if sizes else 1
        wants = {name: wanted if size > wanted else width_at(size / 2, wanted) for name, size in sizes.items()}
        if self._auto:  # products count columns in vectors: a step of one is small beside the whole
            wants |= {g.name: BLOCK for g in groups if g.name not in sizes and g.size >= 16 * BLOCK}
        return [replace(s, multiple=wants.get(s.name, 1)) if s.multiple == 1 else s for s in strata]

    def _model(self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module) -> CostModel:
        """Return predicted shares of the dense latency."""
        if self._parts is None:
            self._parts = self._fit(graph, groups, model)
        return self._weighted(graph, groups, self._parts)

    def _weighted(self, graph: AxisGraph, groups: Sequence[Group], parts: Floats) -> CostModel:
        batch = batch_axis(graph)
        sizes = {} if batch is None else {batch: n_examples(arguments(self._batch))}
        rest = CostTerm((), lambda _: float(parts[2]))
        return CostModel(graph, groups, [*self._terms(graph, sizes, parts), rest], sizes)

    def _terms(self, graph: AxisGraph, sizes: Mapping[Atom, int], parts: Floats) -> Iterable[CostTerm]:
        known = {find(atom): size for atom, size in sizes.items()}
        for operation in operations(graph):
            weight = float(parts[1] if operation.kind == "move" else parts[0])
            if weight > 0:
                full = tuple(left_of(atom, known) for atom in operation.axes)
                price = self._table.price(operation, full)
                yield CostTerm(operation.axes, lambda at, price=price, weight=weight: weight * price(at))  # type: ignore[misc]

    def _fit(self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module) -> Floats:
        """Weigh computing, moving and overhead so that they add up to what whole models were measured to take."""
        alone = [self._weighted(graph, groups, np.eye(3)[part]) for part in (0, 1)]
        rows, measured = [], []
        block = self._table.block() if convolved(groups, self._dense) else 8
        strata = [Stratum(g.name, np.arange(g.size, 0, -1.0), min_units=g.min_units) for g in groups]
        streams = [group.kind == "width" for group in groups]
        ways = [(share, share) for share in (1.0, *_FITTED_AT)]
        if any(streams) and not all(streams):  # what is read and written in many places, and what lies between
            ways += [(_FITTED_AT[0], 1.0), (1.0, _FITTED_AT[0])]
        for of_stream, other in ways:
            shares = [of_stream if stream else other for stream in streams]
            wanted = [max(s.min_units, round(share * len(s.saliency))) for s, share in zip(strata, shares, strict=True)]
            counts = np.array([_near(n, len(s.saliency), block) for n, s in zip(wanted, strata, strict=True)], np.int64)
            try:
                measured.append(self.share(self._cut(graph, groups, model, strata, counts)))
            except ModelError:
                continue
            rows.append([alone[0].total(counts), alone[1].total(counts), 1.0])
        return fit_parts(np.array(rows), np.array(measured))

    def _cut(
        self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum], counts: Ints
    ) -> nn.Module:
        keep = {s.name: torch.from_numpy(mask) for s, mask in zip(strata, masks_of(strata, counts), strict=True)}
        return shrink(model, self._traced[0], graph, keep, kwargs=self._traced[1]).model


def fit_parts(rows: Floats, measured: Floats) -> Floats:
    """Return weights of at least 0 whose sums of ``rows`` are nearest to ``measured``, in proportion.

    Shapes:
        ``rows`` is ``(models, parts)``, ``measured`` ``(models,)``; there are few parts, so all sets of them are tried.

    >>> fit_parts(np.array([[4.0, 1.0], [2.0, 1.0]]), np.array([1.0, 0.6])).round(3).tolist()
    [0.2, 0.2]
    """
    scaled, best = rows / measured[:, None], (np.inf, np.zeros(rows.shape[1]))
    for n in range(1, rows.shape[1] + 1):
        for chosen in itertools.combinations(range(rows.shape[1]), n):
            weights = np.zeros(rows.shape[1])
            weights[list(chosen)] = np.linalg.lstsq(scaled[:, list(chosen)], np.ones(len(rows)), rcond=None)[0]
            off = float(np.square(scaled @ weights - 1).sum())
            if (weights >= 0).all() and off < best[0] - 1e-12:
                best = off, weights
    return best[1]


@dataclass
class _Timings:
    """Cuts that were timed on the way to a share: what each took, and its counts; ``close`` is how near is near enough."""

    time: Callable[[Ints], float]
    share: float
    close: float
    taken: list[tuple[float, Ints]] = field(default_factory=list)

    def take(self, counts: Ints) -> bool:
        """Time a cut; return whether it is near enough."""
        self.taken.append((self.time(counts), counts))
        return self._off(self.taken[-1]) <= self.close

    @property
    def found(self) -> bool:
        """Whether one of them is near enough."""
        return any(self._off(each) <= self.close for each in self.taken)

    @property
    def nearest(self) -> Ints:
        """The counts that come nearest."""
        return min(self.taken, key=self._off)[1]

    @property
    def below(self) -> tuple[float, Ints] | None:
        """The slowest that is no slower than the share."""
        return max((each for each in self.taken if each[0] <= self.share), key=lambda each: each[0], default=None)

    @property
    def above(self) -> tuple[float, Ints] | None:
        """The fastest that is slower than the share."""
        return min((each for each in self.taken if each[0] > self.share), key=lambda each: each[0], default=None)

    def _off(self, each: tuple[float, Ints]) -> float:
        """A little above is as good as a little below, far above isn't what was asked for."""
        return abs(each[0] / self.share - 1) + (1.0 if each[0] > (1 + self.close) * self.share else 0.0)


def _between(timed: _Timings, strata: Sequence[Stratum], cost: CostModel) -> None:
    """Time what lies between two proposals that leap over what was asked for: one layer is widened after the other."""
    low = floor_counts(strata) if timed.below is None else timed.below[1]
    high = np.array([len(s.saliency) for s in strata], np.int64) if timed.above is None else timed.above[1]
    way = climb(strata, cost, low, high)
    for _ in range(_BETWEEN):
        if not way:
            break
        middle = len(way) // 2
        if timed.take(way[middle]):
            return
        way = way[middle + 1 :] if timed.taken[-1][0] <= timed.share else way[:middle]
    if (
        not way and timed.above is not None
    ):  # one step from too fast to too slow: beside it another layer is a step narrower
        measured, counts = timed.above
        wanted = cost.total(counts) * timed.share / measured
        for beside in sorted(one_less(strata, counts), key=lambda n: abs(cost.total(n) - wanted))[:_BESIDE]:
            if timed.take(beside):
                return


def _moved(seen: Sequence[tuple[float, float]], share: float) -> float:
    """Return the next limit, along the line through the last two of (limit, measured), or through the origin."""
    (limit, measured), (before, then) = seen[-1], seen[-2] if len(seen) > 1 else (0.0, 0.0)
    slope = (measured - then) / (limit - before) if limit != before else 1.0
    # A little below what was asked for: widths come in steps.
    return float(np.clip(limit + (0.985 * share - measured) / np.clip(slope, 0.4, 2.5), 0.5 * limit, 1.5 * limit))


def _near(count: int, size: int, block: int) -> int:
    """Return a multiple of what kernels want near ``count`` where there is room for one."""
    return count if size <= block else min(size, max(block, round(count / block) * block))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _sizes(batch: Any) -> Any:
    """Return the shapes of what is timed; of one tensor just its own."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape)
    return [(where, tuple(value.shape), str(value.dtype)) for where, value in tensors(batch)]


def _structure(model: nn.Module) -> str:
    """Return what decides a model's time: its class and the shapes of its tensors."""
    shapes = [(name, tuple(value.shape)) for name, value in model.state_dict().items()]
    return f"{type(model).__qualname__} {shapes}"
