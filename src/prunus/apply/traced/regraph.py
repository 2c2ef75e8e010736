"""What does the traced computation look like after the cut?

Every size in the trace follows from the axes: a view to 768 = heads x 64 becomes one to what is left of both. Sizes that come
from the inputs (the batch) are read off them when the graph runs. The result is the reference for the mended module, and the
model itself where no mending helps.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, fx, nn

from prunus.apply.traced.limits import Limits
from prunus.apply.traced.resized_operations import RESIZE
from prunus.apply.traced.trace_rewriter import Rewriter
from prunus.core.structures.forms import Form
from prunus.core.structures.signature import Signature
from prunus.graph import Solution
from prunus.graph.solver.sizes import FollowedSizes

__all__ = ["Called", "PrunedGraph", "resized"]


Guard = Callable[["PrunedGraph", Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
"""Runs a computation on its tensors and its inputs."""


class Called(Protocol):
    """Whatever says how a computation is called, and what holds its answer: a trace, or a file."""

    @property
    def answer(self) -> Form:
        """What the tensors are given in."""
        ...

    @property
    def signature(self) -> Signature:
        """How its tensors may come."""
        ...


class PrunedGraph(nn.Module):
    """The traced computation on sliced tensors; it takes what the model took, and gives its tensors in what the model held them in.

    Its tensors are called as in the model that was traced. ``folded`` says by what the class beside it has multiplied some of
    them, to make good for scales that it computes anew (:mod:`prunus.apply.classes.attention_scales`). ``limits`` say for which
    inputs it holds. Where the computation came from elsewhere, ``guard`` runs it, on what it has looked at.
    """

    def __init__(
        self, graph_module: fx.GraphModule, states: Mapping[str, Tensor], parameters: frozenset[str], called: Called
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.names = tuple(states)
        self.folded: dict[str, Tensor] = {}
        self.limits: Limits | None = None
        self.guard: Guard | None = None
        self.answer, self.signature = called.answer, called.signature
        for name, value in states.items():
            path, _, own = name.rpartition(".")
            holder = _holder(self, path)
            if name in parameters:
                holder.register_parameter(own, value if isinstance(value, nn.Parameter) else nn.Parameter(value))
            else:
                holder.register_buffer(own, value)

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """Run the traced operations."""
        given = self.signature.tensors(inputs, kwargs)
        if self.limits is not None:
            self.limits.check_sizes(given, self.signature.names)
        states = [operator.attrgetter(name)(self) for name in self.names]
        outputs = self.graph_module(*states, *given) if self.guard is None else self.guard(self, states, given)
        if self.limits is not None and self.limits.read:
            outputs, read = outputs[: -len(self.limits.read)], outputs[-len(self.limits.read) :]
            self.limits.check_read(read)
        return self.answer.filled(outputs)


def _holder(root: nn.Module, path: str) -> nn.Module:
    """Return the submodule at ``path``, made of empty modules where it isn't there."""
    for part in path.split(".") if path else ():
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    return root


def resized(
    solution: Solution, kept: Mapping[str, int], followed: FollowedSizes | None = None, *, reads: bool = False
) -> fx.GraphModule:
    """Return the trace with all sizes as they are when group ``name`` keeps ``kept[name]`` units.

    Args:
        followed: which numbers follow the sizes of the inputs; without it, those that are sizes of the inputs' own axes do.
        reads: whether the values that the model read numbers out of come out, too, after the outputs.
    """
    read = solution.solver.trace.reads if reads else ()
    return Rewriter(solution.solver, solution.sizes(kept), followed, read, RESIZE).run()
