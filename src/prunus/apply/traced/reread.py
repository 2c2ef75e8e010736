"""What would a recording say, had it read its numbers out of the smaller model's tensors?

A model that reads numbers (``float(x.abs().mean())``, ``.item()``, ``.numpy()``) leaves them in its recording as they were, in the
precision and at the widths of then. Two recordings on different values tell which numbers these are; a recording of the smaller
model says what they are now.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.errors import ModelError
from prunus.core.runtime import generator
from prunus.graph.tracing.states import canonical_states, duplicate, running_on
from prunus.graph.tracing.trace import Trace, trace

__all__ = ["Reread"]


class Reread:
    """The numbers of a recording that follow values, and what they are elsewhere.

    Args:
        model: what was recorded, as ``recorded`` says, on ``inputs`` and ``kwargs``.
    """

    def __init__(self, model: nn.Module, recorded: Trace, inputs: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.recorded = recorded
        draw = generator(0, "reread")

        def moved(value: Tensor) -> Tensor:
            noise = torch.rand(value.shape, generator=draw).to(value)
            return value.detach() * (1.2 + 0.2 * noise) if value.is_floating_point() else value.detach()

        states = {name: moved(value) for name, value in canonical_states(model).items()}
        self.elsewhere = _record(model, states, *pytree.tree_map_only(Tensor, moved, (inputs, dict(kwargs))))

    def on(
        self, reference: PrunedGraph, model: nn.Module, states: Mapping[str, Tensor], inputs: Any, kwargs: Any
    ) -> PrunedGraph | None:
        """Return ``reference`` with the numbers that ``model`` reads on these states and inputs; None where its path is another."""
        now = _record(model, states, inputs, kwargs)
        if now is None or self.elsewhere is None:
            return None
        nodes = [list(each.graph_module.graph.nodes) for each in (self.recorded, self.elsewhere, now)]
        if len({tuple(map(_what, each)) for each in nodes}) > 1:
            return None
        twin = duplicate(reference)
        own = {node.meta["number"]: node for node in twin.graph_module.graph.nodes if "number" in node.meta}
        for number, (then, other, here) in enumerate(zip(*nodes, strict=True)):
            new = own.get(number)
            if new is None:
                continue
            if then.op == "get_attr":
                values = [
                    getattr(each.graph_module, node.target)
                    for each, node in zip((self.recorded, self.elsewhere, now), (then, other, here), strict=True)
                ]
                if not _same(values[0], values[1]):
                    setattr(twin.graph_module, new.target, values[2])
            elif then.op == "call_function":
                new.args = _replaced(new.args, then.args, other.args, here.args)
                new.kwargs = _replaced(new.kwargs, then.kwargs, other.kwargs, here.kwargs)
        twin.graph_module.recompile()
        return twin


def _record(model: nn.Module, states: Mapping[str, Tensor], inputs: Any, kwargs: Any) -> Trace | None:
    try:
        with running_on(model, states):
            return trace(model, inputs, kwargs)
    except ModelError:
        return None


def _what(node: fx.Node) -> Any:
    return node.target if node.op == "call_function" else node.op


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _replaced(own: Any, then: Any, other: Any, here: Any) -> Any:
    """Return ``own`` with the numbers of ``here`` where ``then`` and ``other`` differ."""
    if isinstance(own, Mapping):
        return {name: _replaced(value, then.get(name), other.get(name), here.get(name)) for name, value in own.items()}
    if isinstance(own, list | tuple) and all(isinstance(value, list | tuple) for value in (then, other, here)):
        parts = itertools.zip_longest(then, other, here)
        return type(own)(_replaced(value, *next(parts, (None, None, None))) for value in own)
    number = all(isinstance(value, int | float) for value in (own, then, other, here))
    return here if number and then != other else own
