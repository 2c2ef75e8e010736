"""What hangs together because of what only training runs: auxiliary heads, moving averages, counters of a codebook?

The training mode is traced, too, where evaluation left something unread or a buffer is the model's own, and what it says joins the
axes that evaluation found. A buffer that is put in another's place is written like one that is updated in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from prunus.core.errors import ModelError
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.trace import trace

__all__ = ["learn_from_training"]


def learn_from_training(
    model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None, solver: Solver
) -> tuple[Solver, ...]:
    """Add to the axes of ``solver`` what training says about them, and return the walk through it, if there was one."""
    if not _unread(solver) and not any(_own_statistics(model)):
        return ()
    with contextlib.suppress(ModelError):
        # A model that can't train on these inputs is pruned for evaluation, as far as that tells.
        training = Solver(trace(model, inputs, kwargs, training=True), states=solver.states)
        training.solve()
        return (training,)
    return ()


def _unread(solver: Solver) -> bool:
    """Tell whether evaluation leaves a parameter, or a buffer of more than one value, alone."""
    nodes = [node for node in solver.trace.graph_module.graph.nodes if node.op == "placeholder"]
    named = zip(solver.trace.states, nodes, strict=False)
    return any(not node.users and node.meta["val"].numel() > 1 for _, node in named)


def _own_statistics(model: nn.Module) -> Iterator[str]:
    """Yield the buffers that training may well write, outside of torch's norms: saved ones of numbers."""
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            continue
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dim() and buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}"
