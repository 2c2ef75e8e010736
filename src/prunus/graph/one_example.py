"""Does one example of a batch show as much as all of them?

It does where examples never meet (nothing sums, ranks or normalises along the batch), so that each is computed as if it were
alone, and where one example has every unit at many places: a unit that is off at one of them isn't at all. What isn't known to
keep examples apart is taken to mix them.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from prunus.graph.grouping.groups import AxisGraph
from prunus.graph.solver.axes import Atom, find, leaves
from prunus.graph.solver.solve import Solver, arguments_of
from prunus.graph.tracing.decisions import decides
from prunus.graph.tracing.trace import operation_name
from prunus.graph.tracing.writes import base_of, written_by

__all__ = ["one_example_tells"]

_PLACES = 32
"""At so many places of one example every unit has to be: pixels, tokens."""

_BESIDE = {
    "native_layer_norm": -1, "_fused_rms_norm": -1, "native_group_norm": 1, "native_batch_norm": 1,
    "_native_batch_norm_legit_no_training": 1, "convolution": 1, "_convolution": 1, "max_pool2d_with_indices": 1,
    "avg_pool2d": 1, "avg_pool1d": 1, "_adaptive_avg_pool2d": 1, "adaptive_avg_pool2d": 1, "adaptive_avg_pool1d": 1,
    "upsample_nearest2d": 1, "upsample_bilinear2d": 1, "upsample_bicubic2d": 1, "constant_pad_nd": 1, "reflection_pad2d": 1,
    "scaled_dot_product_attention": -2, "_scaled_dot_product_flash_attention_for_cpu": -2,
    "_scaled_dot_product_attention_math": -2, "_scaled_dot_product_flash_attention": -2,
    "_scaled_dot_product_efficient_attention": -2, "_safe_softmax": -1,
}  # fmt: skip
"""The operations that treat places of a tensor alike along its first dimensions: up to which one."""
_EMPTY = frozenset(
    ("new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like")
)
"""What these give holds nothing of what they are given."""
_CONTRACT = frozenset(
    ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear", "embedding", "cat", "stack", "index", "einsum")
)
"""The operations that keep what isn't summed; what is summed is gone from the result."""


def one_example_tells(graph: AxisGraph) -> list[tuple[int, ...]]:
    """Return the shapes of what the model answers to one example; nothing where one doesn't show all."""
    if graph.solution is None or any(stack.kind == "expert" for stack in graph.stacks):
        return []  # other examples go to other experts
    solver = graph.solution.solver
    if decides(solver.trace) or solver.unknown or solver.unread:
        return []
    batch = {find(axes[0]) for axes in solver.inputs if axes}
    if not batch or any(atom.kind != "leaf" for atom in batch):
        return []
    nodes = list(solver.trace.graph_module.graph.nodes)
    inputs = set([node for node in nodes if node.op == "placeholder"][len(solver.trace.states) :])
    seen: dict[Atom, int] = {}
    fed: set[fx.Node] = set()
    for node in nodes:
        given = [value for value in node.all_input_nodes if value in fed]
        if (node not in inputs and not given) or operation_name(node) in _EMPTY:
            continue
        fed.add(node)
        if any(base_of(to) not in fed for to in written_by(node)):
            return []  # from there on it may be read without being followed
        if any(isinstance(value.meta["val"], Tensor) and _batch_dim(solver, value, batch) is None for value in given):
            return []
        computes = node.op == "call_function" and node.target is not operator.getitem
        if computes and not _keeps_apart(solver, node, batch, fed):
            return []
        _count(solver, node, batch, seen)
    if any(
        max((seen.get(leaf, 0) for leaf in graph.solution.axes_of(group.name)), default=0) < _PLACES
        for group in graph.groups
    ):
        return []
    return _shapes(solver, batch, fed)


def _batch_dim(solver: Solver, node: fx.Node, batch: set[Atom]) -> int | None:
    """Return the dimension of a value that the batch lies along, once; None where it lies along none or several."""
    axes = solver.values.get(node)
    if not axes or isinstance(axes[0], list):
        return None
    found = [dim for dim, atom in enumerate(axes) for leaf in leaves(atom) if leaf in batch]
    return found[0] if len(found) == 1 else None


def _keeps_apart(solver: Solver, node: fx.Node, batch: set[Atom], fed: set[fx.Node]) -> bool:
    """Tell whether an operation treats what lies beside one another along the batch alike."""
    name = operation_name(node)
    if not name:
        return False
    target: Any = node.target
    if torch.Tag.pointwise in target.tags or name in _CONTRACT or name in ("clone", "_to_copy"):
        return name != "index" or _indexes_beside(solver, node, batch)
    arguments = arguments_of(node)
    first = next((value for value in node.all_input_nodes if value in fed), None)
    if first is None or not isinstance(first.meta["val"], Tensor):
        return False
    rank, along = first.meta["val"].dim(), _batch_dim(solver, first, batch)
    if along is None:
        return False
    if name in _BESIDE:
        return along < _BESIDE[name] % rank if _BESIDE[name] < 0 else along < _BESIDE[name]
    if name == "permute" or name in (
        "transpose",
        "t",
        "unsqueeze",
        "view",
        "reshape",
        "_unsafe_view",
        "expand",
        "alias",
    ):
        return True
    named = [arguments[word] for word in ("dim", "dims", "dim0") if word in arguments]
    if not named or any(value is None or value == [] for value in named):
        return name in ("squeeze", "contiguous", "detach", "lift_fresh_copy", "lift_fresh", "as_strided")
    dims = {dim % rank for value in named for dim in (value if isinstance(value, list | tuple) else [value])}
    return along not in dims


def _indexes_beside(solver: Solver, node: fx.Node, batch: set[Atom]) -> bool:
    """Tell whether an index leaves the batch of what it looks into alone."""
    source, places = node.args[0], node.args[1]
    assert isinstance(source, fx.Node)
    assert isinstance(places, list | tuple)
    along = _batch_dim(solver, source, batch)
    return along is None or along >= len(places) or places[along] is None


def _count(solver: Solver, node: fx.Node, batch: set[Atom], seen: dict[Atom, int]) -> None:
    """Note at how many places of one example each axis of a value has its units."""
    value, axes = node.meta.get("val"), solver.values.get(node)
    if not isinstance(value, Tensor) or not axes or isinstance(axes[0], list):
        return
    along = {leaf for atom in axes for leaf in leaves(atom)}
    each = value.numel()
    for leaf in along & batch:
        each //= leaf.size
    for leaf in along - batch:
        seen[leaf] = max(seen.get(leaf, 0), each // max(leaf.size, 1))


def _shapes(solver: Solver, batch: set[Atom], fed: set[fx.Node]) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs for one example; nothing where one of them isn't made of the inputs."""
    output = next(node for node in solver.trace.graph_module.graph.nodes if node.op == "output")
    shapes = []
    for value in output.all_input_nodes:
        along = _batch_dim(solver, value, batch) if value in fed else None
        if along is None:
            return []
        axes = solver.axes(value)
        size = next(leaf.size for leaf in leaves(axes[along]) if leaf in batch)
        shapes.append(tuple(n // size if dim == along else n for dim, n in enumerate(value.meta["val"].shape)))
    return shapes
