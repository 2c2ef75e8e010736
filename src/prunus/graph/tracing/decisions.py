"""Which decisions does a forward pass take, and what would it have given with those of another pass?

A detector sorts boxes by score and drops those that overlap: what comes after is another answer, not a rounded one, where two
scores change places. A second pass on values that are the same up to rounding takes the decisions of the first, so that the two
can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.graph.tracing.trace import Trace, operation_name

__all__ = ["Decisions", "decides"]

_RANKS = frozenset(("sort", "topk"))


class _Taken(NamedTuple):
    """What an operation made whole numbers of, and what they were."""

    operation: Any
    given: Sequence[Tensor]
    made: Any


class Decisions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the decisions of a block, or takes those of an earlier one.

    A decision is an operation on floating-point numbers that gives whole numbers or truth values: a comparison, a ranking, a number
    that is read. Where its operands aren't those of the earlier pass, it is taken anew.
    """

    def __init__(self, earlier: Decisions | None, tolerance: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken: list[_Taken] = []
        self.earlier: Iterator[_Taken] | None = None if earlier is None else iter(earlier.taken)
        self.tolerance = tolerance

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(map(torch.is_floating_point, given)) or not _is_decision(out):
            return out
        if self.earlier is None:
            self.taken.append(_Taken(func, [value.clone() for value in given], out))
            return out
        then = next(self.earlier, None)
        if then is None or then.operation is not func:
            self.earlier = iter(())  # it went another way
            return out
        same = len(given) == len(then.given) and all(map(self._same, given, then.given))
        return _again(then.made, out, func, args, kwargs or {}) if same else out

    def _same(self, now: Tensor, then: Tensor) -> bool:
        if now.shape != then.shape or not now.is_floating_point():
            return now.shape == then.shape and torch.equal(now, then)
        known = then[then.isfinite()]
        allowed = self.tolerance * float(known.abs().max()) if known.numel() else 0.0
        return torch.allclose(now, then, rtol=0, atol=allowed, equal_nan=True)


def _is_decision(out: Any) -> bool:
    """Tell whether whole numbers come of floating-point ones; beside them there may be the values that they point at."""
    if isinstance(out, Tensor):
        return not out.is_floating_point() and not out.is_complex()
    if isinstance(out, (tuple, list)):
        return len(out) == 2 and all(isinstance(part, Tensor) for part in out) and not out[1].is_floating_point()
    return isinstance(out, (bool, int, float))


def _again(then: Any, now: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """Return the earlier decision, with the values of now at the places that it names."""
    if not isinstance(then, (tuple, list)):
        return then
    names = [argument.name for argument in func._schema.arguments]
    if "dim" not in names:
        return now
    values, index = args[0], then[1]
    dim = kwargs["dim"] if "dim" in kwargs else args[names.index("dim")] if len(args) > names.index("dim") else -1
    if index.dim() == values.dim():
        return values.gather(dim, index), index
    return values.gather(dim, index.unsqueeze(dim)).squeeze(dim), index


def decides(trace: Trace) -> bool:
    """Tell whether a model ranks, or looks at values while it runs."""
    return trace.recorded or any(operation_name(node) in _RANKS for node in trace.graph_module.graph.nodes)
