"""Which traced computation goes along with a model, and does it compute the same?

It is read back from its own text, as a receiver would, and compared with the model at several batch sizes, and at other sizes of
what may vary, before it may go along.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunus.apply.traced.limits import BATCH, Limits, Span
from prunus.apply.traced.regraph import PrunedGraph, resized
from prunus.apply.traced.spans import Spans
from prunus.apply.traced.traced_model import with_limits
from prunus.core.calls import arguments
from prunus.core.code.imports import one_line
from prunus.core.errors import BundleError, raise_if_out_of_memory
from prunus.core.quiet import quiet
from prunus.core.runtime import device_of, seeded
from prunus.graph import analyze
from prunus.graph.tracing.states import canonical_states, duplicate
from prunus.ship.graph_files.graph_file import read_graph, state_names, write_graph
from prunus.ship.graph_files.input_fit import Guard, check_runs, follow
from prunus.ship.graph_limits import GraphLimits, TooCostlyError
from prunus.ship.inputs import Inputs, called_on, keywords_of, made, other_sizes, with_spans

__all__ = ["Exported", "check_same", "export", "printable", "same_outputs", "stable_line"]

_BATCHES = (1, 3, 5)
_TRIAL = GraphLimits(live_bytes=2**28, arithmetic_per_example=1e9)
"""What a run may take that looks for the largest sizes: some tenths of a second on one core."""

aten = torch.ops.aten


@dataclass(frozen=True)
class Exported:
    """The text of ``graph.json``, and the tensors that the graph needs and the model's state dict hasn't got, by name.

    ``spans`` are the sizes that it holds for.
    """

    text: str
    constants: Mapping[str, Tensor]
    spans: Spans


def export(model: nn.Module, takes: Inputs, fixed: Collection[tuple[int, int]] = ()) -> Exported:
    """Return the computation of ``model`` in evaluation mode on what it takes; the model isn't changed.

    Args:
        fixed: sizes that don't vary, by input and place in its shape, even if the model takes others.

    Raises:
        BundleError: there is none that can be written and computes the same; the message says why.
    """
    if any(entry.listed for entry in takes):
        raise BundleError("it takes a list with a tensor for each example, and a trace holds for one number of them")
    twin = duplicate(model).cpu().eval()
    if not isinstance(model, PrunedGraph):
        twin = _traced(twin, takes)
    assert isinstance(twin, PrunedGraph)
    if twin.limits is not None and twin.limits.read:
        raise BundleError(f"it is a traced computation that holds for {twin.limits}")
    if twin.limits is None:
        twin.limits = Limits(tuple((Span(1, None, BATCH), *(Span(n, n) for n in entry.shape)) for entry in takes))
    spans = [list(own) for own in twin.limits.spans]
    for number, place in fixed:
        spans[number][place + 1] = Span(takes[number].shape[place], takes[number].shape[place])
    twin.limits = Limits(tuple(map(tuple, spans)))
    _make_portable(twin.graph_module.graph)
    text = write_graph(twin)
    tree = json.loads(text)
    tensors = {name: operator.attrgetter(name)(twin).detach() for name in state_names(tree)}
    graph = read_graph(tree, tensors, n_inputs=len(takes), n_outputs=None, keywords=keywords_of(takes))
    check_runs(graph, takes)
    graph.guard = Guard()
    check_same(model, graph, with_spans(takes, twin.limits.spans))
    state = model.state_dict(keep_vars=True)
    held = canonical_states(model)
    return Exported(
        text, {n: t for n, t in tensors.items() if n not in state or state[n] is not held.get(n)}, twin.limits.spans
    )


def _traced(model: nn.Module, takes: Inputs) -> PrunedGraph:
    given, named = arguments(made(takes, 2, "trace"))
    graph = analyze(model, given, named)
    assert graph.solution is not None
    if graph.solution.solver.trace.one_path:
        raise BundleError(f"other inputs may run other operations: {'; '.join(graph.notes)}")
    parameters = frozenset(name for name, _ in model.named_parameters())
    whole = PrunedGraph(resized(graph.solution, {}), canonical_states(model), parameters, graph.solution.solver.trace)

    def affordable(computation: PrunedGraph, inputs: Sequence[Tensor]) -> bool | None:
        try:
            follow(computation, inputs, _TRIAL)
        except TooCostlyError:
            return False
        except BundleError:  # where the sizes don't fit, the model is to say so
            return None
        return True

    return with_limits(
        whole, model, graph.solution, {}, given, named, asked_for=True, affordable=affordable, batch_first=True
    )


def check_same(model: nn.Module, graph: nn.Module, takes: Inputs) -> None:
    """Raise unless the two give the same outputs for two batch sizes: the first of ``_BATCHES`` that ``model`` takes.

    The second one comes with other sizes of what may vary.
    """
    n_compared = 0
    others = list(other_sizes(takes))
    for size, entries in ((n, e) for n in _BATCHES for e in ((*others, takes) if n_compared else (takes,))):
        inputs = made(entries, size, "check", size)
        try:
            expected = _outputs(model, inputs)
        except Exception as error:  # a model that doesn't take one example needn't be compared on it
            raise_if_out_of_memory(error)
            continue
        try:
            got = _outputs(graph, inputs)
        except Exception as error:
            raise_if_out_of_memory(error)
            raise BundleError(f"its trace fails on {_shown(inputs)}: {stable_line(error)}") from error
        if not same_outputs(expected, got):
            raise BundleError(f"its trace gives other outputs for {_shown(inputs)}")
        n_compared += 1
        if n_compared == 2:
            return
    raise BundleError(f"the model runs on {n_compared} of the batch sizes {_BATCHES}, so its trace can't be compared")


def _shown(inputs: Any) -> str:
    positional, named = arguments(inputs)
    return f"inputs of shape {', '.join(str(list(value.shape)) for value in (*positional, *named.values()))}"


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
