"""What comes out of :func:`prunus.prune`, and how does it show itself?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from torch import nn

from prunus.core.types import Plan
from prunus.evaluate import Cost, NonInferiority
from prunus.graph import Frozen
from prunus.pipeline.auto.choosing import Tried
from prunus.pipeline.auto.promise import broken, kept
from prunus.pipeline.auto.recovering import Recovered
from prunus.recover import Adjusted

__all__ = ["Pruned"]


@dataclass(frozen=True)
class Pruned:
    """A smaller model, and what happened.

    ``kind`` is ``eager`` (the same class) or ``graph`` (the traced computation, since the class can't follow). ``left_alone`` says
    what wasn't a candidate and why; ``tried`` every way that was compared. ``distance`` is how far the outputs are from the dense
    model's on calibration examples that had no part in scores and fits (they chose among what was ``tried``), in ``measure``.
    ``test`` is what shows a contract; where it wasn't kept, nothing is cut. ``recovered`` tells how it was trained after the cut.
    """

    model: nn.Module
    plan: Plan
    kind: Literal["eager", "graph"]
    before: Cost
    after: Cost
    left_alone: tuple[Frozen, ...]
    tried: tuple[Tried, ...] = ()
    objective: str = ""
    measure: str = ""
    distance: float | None = None
    adjusted: Adjusted | None = None
    notes: tuple[str, ...] = ()
    test: NonInferiority | None = None
    recovered: Recovered | None = None

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, *_ in rows)
        lines = [f"{name:<{width}}  {old:>14,} -> {new:>14,}  {share}" for name, old, new, share in rows]
        return "\n".join((self._headline(), *lines, *self._facts()))

    def _repr_html_(self) -> str:
        """Show a table in a notebook."""
        from html import escape

        head = "".join(f"<th>{name}</th>" for name in ("", "before", "after", "left"))
        body = "".join(
            f"<tr><td>{name}</td><td>{old:,}</td><td>{new:,}</td><td>{share}</td></tr>"
            for name, old, new, share in self._rows()
        )
        facts = "".join(f"<li>{escape(line)}</li>" for line in self._facts())
        return f"<p><b>{escape(self._headline())}</b></p><table><tr>{head}</tr>{body}</table><ul>{facts}</ul>"

    def _headline(self) -> str:
        step = self.plan.steps[0]
        name = type(self.model).__name__ if self.kind == "eager" else "traced computation"
        return f"{name}: {step.n_kept} of {step.n_units} {step.granularity}s stay, chosen by {step.criterion}"

    def _rows(self) -> list[tuple[str, int, int, str]]:
        pairs = {
            "parameters": (self.before.parameters, self.after.parameters),
            "MACs per example": (self.before.macs, self.after.macs),
            "bytes": (self.before.memory_bytes, self.after.memory_bytes),
        }
        return [(name, old, new, f"{new / old:.1%}" if old else "") for name, (old, new) in pairs.items()]

    def _facts(self) -> list[str]:
        lines = [] if self.test is None else [kept(self.test) if self.test.kept else broken(self.test)]
        if self.distance is not None:
            unit = {"relative": "of the outputs' size", "boxes": "of the boxes' scores"}.get(self.measure, "nats")
            after = "" if self.recovered is None else ", right after the cut"
            lines.append(f"outputs {self.distance:.3g} ({unit}) from the dense model's, on held-out examples{after}")
        if self.recovered is not None:
            lines.append(str(self.recovered))
        if self.tried:
            best = next(row for row in self.tried if row.chosen)
            lines.append(
                f"{best.criterion} with the {best.allocation} allocation was the nearest of {len(self.tried)} tried"
            )
        reasons = Counter(frozen.reason.partition(" (")[0] for frozen in self.left_alone)
        if reasons:
            said = "; ".join(f"{n} since {reason}" for reason, n in reasons.most_common(3))
            lines.append(f"{sum(reasons.values())} axes are left alone, {said}{'; ...' if len(reasons) > 3 else ''}")
        return [*lines, *self.notes]
