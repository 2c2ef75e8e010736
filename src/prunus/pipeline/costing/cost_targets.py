"""What does a candidate cost in the currency of the target, and which units meet a share of it?

Parameters, MACs and bytes are counted exactly before anything is cut. A latency is predicted from measured operations, and what was
predicted is corrected by the smaller model's own time until the two agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from prunus.core.errors import RecipeError
from prunus.core.types import Bools, Ints, Stratum
from prunus.evaluate import measure_cost
from prunus.graph import AxisGraph, Group
from prunus.graph.costs.cost_model import CostModel, count_model
from prunus.pipeline.costing.kernel_widths import convolved, fitting
from prunus.select import cost_aware, floor_counts, top

__all__ = ["Costing", "Counted", "masks_of"]


class Costing(ABC):
    """One currency: what the dense model costs in it, and how to spend a share of that."""

    kind: str
    runtime: str | None = None

    @abstractmethod
    def share(self, model: nn.Module) -> float:
        """Return the cost of ``model`` as a share of the dense model's, counted or measured on itself."""

    @abstractmethod
    def floor(self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum]) -> float:
        """Return the share that is left when every stratum is cut to its floor."""

    @abstractmethod
    def choose(
        self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum], share: float
    ) -> list[Bools]:
        """Return which units stay for ``share`` of the dense cost at the least predicted loss.

        Raises:
            RecipeError: even the floors cost more; it says how much.
        """

    def too_slow(self, model: nn.Module) -> str:
        """Return why a model isn't worth delivering in this currency, measured anew; "" where it is."""
        del model
        return ""

    def refuse(self, share: float, floor: float) -> RecipeError:
        """Return the error that says what the least share is."""
        return RecipeError(
            f"target: {share:g} of the {self.kind} is below the floor: what can't be pruned costs {floor:.3g} of the dense "
            f"model; ask for at least {_round_up(floor):g}, or exclude less"
        )


@dataclass(frozen=True)
class Counted(Costing):
    """Parameters, MACs or bytes; ``auto``: channels are kept in the widths that kernels want, where there is room for them."""

    kind: Literal["params", "macs", "bytes"]
    dense: float
    inputs: Any
    auto: bool = False

    @classmethod
    def of(
        cls,
        kind: Literal["params", "macs", "bytes"],
        dense: nn.Module,
        inputs: Any,
        *,
        round_to: int | Literal["auto"] = "auto",
    ) -> Counted:
        """Return the currency in which ``dense`` costs 1; ``round_to`` is as in the strategy."""
        return cls(kind, _count(kind, dense, inputs), inputs, round_to == "auto")

    def share(self, model: nn.Module) -> float:
        """Count on the model itself."""
        return _count(self.kind, model, self.inputs) / self.dense

    def floor(self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum]) -> float:
        """Count with every group at its floor."""
        return self._model(graph, groups, model).total(floor_counts(strata)) / self.dense

    def choose(
        self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module, strata: Sequence[Stratum], share: float
    ) -> list[Bools]:
        """Choose by exact counts."""
        cost = self._model(graph, groups, model)
        floor = cost.total(floor_counts(strata)) / self.dense
        if floor > share:
            raise self.refuse(share, floor)
        if self.auto:
            sizes = convolved(groups, model)
            free = {s.name: sizes[s.name] for s in strata if s.multiple == 1 and s.name in sizes}
            strata = fitting(strata, free, cost, share * self.dense)
        return masks_of(strata, cost_aware(strata, cost, share * self.dense))

    def _model(self, graph: AxisGraph, groups: Sequence[Group], model: nn.Module) -> CostModel:
        return count_model(self.kind, graph, groups, model)


def masks_of(strata: Sequence[Stratum], counts: Ints) -> list[Bools]:
    """Return the best units of each stratum."""
    return [top(s.saliency, s.units, count) for s, count in zip(strata, counts.tolist(), strict=True)]


def _count(kind: str, model: nn.Module, inputs: Any) -> float:
    cost = measure_cost(model, inputs)
    found: Mapping[str, int] = {"params": cost.parameters, "macs": cost.macs, "bytes": cost.memory_bytes}
    return float(found[kind])


def _round_up(share: float) -> float:
    """Return a share that is no lower, in two decimals where they suffice."""
    return next((n / 100 for n in range(1, 101) if n / 100 >= share), 1.0)
