"""Which traced computation goes along with a model, and does it compute the same?

It is read back from its own text, as a receiver would, and compared with the model at several batch sizes before it may go along.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunus.apply.regraph import PrunedGraph, resized
from prunus.core.errors import BundleError
from prunus.core.imports import one_line
from prunus.core.quiet import quiet
from prunus.core.runtime import device_of, seeded
from prunus.graph import analyze
from prunus.graph.states import canonical_states, duplicate
from prunus.ship.follow import Guard, check_runs
from prunus.ship.graph_file import read_graph, state_names, write_graph
from prunus.ship.inputs import Inputs, arguments_of, called_on, keywords_of, made

__all__ = ["Exported", "check_same", "export", "printable", "same_outputs", "stable_line"]

_BATCHES = (1, 3, 5)
aten = torch.ops.aten


@dataclass(frozen=True)
class Exported:
    """The text of ``graph.json``, and the tensors that the graph needs and the model's state dict hasn't got, by name."""

    text: str
    constants: Mapping[str, Tensor]


def export(model: nn.Module, takes: Inputs) -> Exported:
    """Return the computation of ``model`` in evaluation mode on what it takes; the model isn't changed.

    Raises:
        BundleError: there is none that can be written and computes the same; the message says why.
    """
    twin = duplicate(model).cpu().eval()
    if not isinstance(model, PrunedGraph):
        twin = _traced(twin, takes)
    assert isinstance(twin, PrunedGraph)
    if twin.limits is not None and twin.limits.read:
        raise BundleError(f"it is a traced computation that holds for {twin.limits}")
    _make_portable(twin.graph_module.graph)
    text = write_graph(twin)
    tree = json.loads(text)
    tensors = {name: operator.attrgetter(name)(twin).detach() for name in state_names(tree)}
    graph = read_graph(tree, tensors, n_inputs=len(takes), n_outputs=None)
    graph.keywords = keywords_of(takes)
    check_runs(graph, takes)
    graph.guard = Guard()
    check_same(model, graph, takes)
    state = model.state_dict(keep_vars=True)
    held = canonical_states(model)
    return Exported(text, {n: t for n, t in tensors.items() if n not in state or state[n] is not held.get(n)})


def _traced(model: nn.Module, takes: Inputs) -> PrunedGraph:
    graph = analyze(model, *arguments_of(made(takes, 2, "trace")))
    assert graph.solution is not None
    if graph.solution.solver.trace.one_path:
        raise BundleError(f"other inputs may run other operations: {'; '.join(graph.notes)}")
    parameters = frozenset(name for name, _ in model.named_parameters())
    return PrunedGraph(resized(graph.solution, {}), canonical_states(model), parameters)


def check_same(model: nn.Module, graph: nn.Module, takes: Inputs) -> None:
    """Raise unless the two give the same outputs for two batch sizes: the first of ``_BATCHES`` that ``model`` takes."""
    n_compared = 0
    for size in _BATCHES:
        inputs = made(takes, size, "check", size)
        try:
            expected = _outputs(model, inputs)
        except Exception:  # noqa: S112 - a model that doesn't take one example needn't be compared on it
            continue
        try:
            got = _outputs(graph, inputs)
        except Exception as error:
            raise BundleError(f"its trace fails on a batch of {size}: {stable_line(error)}") from error
        if not same_outputs(expected, got):
            raise BundleError(f"its trace gives other outputs for a batch of {size}")
        n_compared += 1
        if n_compared == 2:
            return
    raise BundleError(f"the model runs on {n_compared} of the batch sizes {_BATCHES}, so its trace can't be compared")


def _outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    modes = {module: module.training for module in model.modules()}
    try:
        with quiet(model), torch.no_grad(), seeded(0, "bundle", "check"):
            outputs = called_on(model.eval(), pytree.tree_map_only(Tensor, lambda t: t.to(device_of(model)), inputs))
    finally:
        for module, training in modes.items():
            module.training = training
    if not outputs:
        raise BundleError("the model must return tensors, got none")
    return [value.cpu() for value in outputs]


def same_outputs(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Tell whether outputs agree as far as another order of the same sums lets them."""
    return len(ones) == len(others) and all(
        one.shape == other.shape and torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-5, equal_nan=True)
        for one, other in zip(ones, others, strict=True)
    )


def _make_portable(graph: fx.Graph) -> None:
    """Let every attention be the one that picks a kernel where it runs: fused ones belong to one kind of device."""
    for node in list(graph.nodes):
        if node.op != "call_function" or getattr(node.target, "overloadpacket", None) not in _FUSED:
            continue
        if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users if user.users):
            continue
        named = dict(zip([argument.name for argument in node.target._schema.arguments], node.args, strict=False))
        named |= node.kwargs
        with graph.inserting_before(node):
            new = graph.call_function(
                aten.scaled_dot_product_attention.default,
                (named["query"], named["key"], named["value"], named.get("attn_mask", named.get("attn_bias"))),
                {name: named[name] for name in ("dropout_p", "is_causal", "scale") if name in named},
            )
        for user in list(node.users):
            user.replace_all_uses_with(new)
            graph.erase_node(user)
        graph.erase_node(node)


_FUSED = (
    aten._scaled_dot_product_flash_attention_for_cpu,
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
)


def stable_line(error: Exception) -> str:
    """Return an error as one line without addresses: the same model must give the same words."""
    return printable(re.sub(r"0x[0-9a-fA-F]+", "0x…", one_line(error)))


def printable(text: str) -> str:
    """Return at most 300 characters of a text that may be shown on a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text[:300])
