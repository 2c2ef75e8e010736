"""Which whole modules can leave: residual blocks of a stack, and experts of a mixture?

Both are entries of a container (``nn.Sequential``, ``nn.ModuleList``). A block can go where what it gives back has the axes of
what it took, because an addition joined them. An expert goes together with its row of the router and its slice of stacked weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, fx, nn

from prunus.graph.grouping.members import Member
from prunus.graph.solver.axes import Atom, find
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.trace import ModuleCall, operation_name

__all__ = ["Blocks", "Experts", "find_blocks", "find_experts"]

Blocks = tuple[str, tuple[int, ...]]
"""A container, and which of its entries can leave."""
Experts = tuple[str, int, tuple[str, ...], tuple[str, ...], int]
"""The router's module, how many experts, containers of them, tensors with a slice for each, and how many one input takes."""


def containers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every numbered list of modules, by path."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential | nn.ModuleList) and list(module._modules) == [
            str(i) for i in range(len(module))
        ]:
            yield path, module


def find_blocks(model: nn.Module, solver: Solver) -> list[Blocks]:
    """Return the residual blocks of every stack, outermost stacks first."""
    calls: dict[str, list[ModuleCall]] = {}
    for call in solver.trace.calls:
        calls.setdefault(call.name, []).append(call)
    found = []
    for path, container in containers(model):
        entries = tuple(
            number
            for number, entry in enumerate(container.children())
            if _has_weights(entry)
            and (runs := calls.get(f"{path}.{number}" if path else str(number)))
            and all(_is_residual(solver, run) for run in runs)
        )
        if len(container) > 1 and entries:  # type: ignore[arg-type]
            found.append((path, entries))
    return found


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _is_residual(solver: Solver, run: ModuleCall) -> bool:
    """What comes out has the axes of what went in, and an addition to what went in makes it."""
    given, made = solver.values[run.given], solver.values[run.made]
    if run.given is run.made or len(given) != len(made):
        return False
    if any(find(a) is not find(b) for a, b in zip(given, made, strict=True) if a.size > 1):
        return False
    return _adds(run.given, run.made)


def _adds(given: fx.Node, made: fx.Node) -> bool:
    """Tell whether an addition on the way to ``made`` has ``given`` itself (or another view of it) as one side."""
    same = {given}
    for node in _after(given):
        target = operation_name(node)
        tensors = [item for item in node.all_input_nodes if isinstance(item.meta.get("val"), Tensor)]
        if target in ("add", "sub", "rsub") and len(set(tensors)) > 1 and same & set(tensors):
            return True
        if len(tensors) == 1 and tensors[0] in same:
            same.add(node)
        if node is made:
            return False
    return False


def _after(node: fx.Node) -> Iterator[fx.Node]:
    while node.op != "output":
        node = node.next
        yield node


def find_experts(model: nn.Module, solver: Solver, members: Mapping[Atom, Sequence[Member]]) -> list[Experts]:
    """Return every mixture of experts whose router picks the best few.

    A router is a weight with a row for each expert that a ``topk`` chooses from. Its experts are the containers beside it that
    have as many entries, and the weights beside it with as many slices.
    """
    chosen: dict[Atom, int] = {}
    for node in solver.trace.graph_module.graph.nodes:
        name = node.target.overloadpacket.__name__ if hasattr(node.target, "overloadpacket") else ""
        if name in ("topk", "max", "argmax", "sort") and isinstance(node.args[0], fx.Node):
            axes = solver.values[node.args[0]]
            given = node.args[2 if name == "topk" else 1] if len(node.args) > (2 if name == "topk" else 1) else -1
            if axes and isinstance(given, int):
                many = node.args[1] if name == "topk" else 1
                chosen.setdefault(find(axes[given]), int(many))
    found = []
    parameters = dict(model.named_parameters())
    for leaf, many in chosen.items():
        routers = [m.tensor for m in members.get(leaf, ()) if m.is_parameter and m.dim == 0]
        if not routers or leaf.kind != "leaf" or many >= leaf.size:
            continue
        path = routers[0].rpartition(".")[0].rpartition(".")[0]
        beside = f"{path}." if path else ""
        lists = tuple(
            name
            for name, module in containers(model)
            if name.startswith(beside) and len(module) == leaf.size  # type: ignore[arg-type]
        )
        stacked = [
            name
            for name, value in {**parameters, **dict(model.named_buffers())}.items()
            if name.startswith(beside)
            and value.dim() > 0
            and value.shape[0] == leaf.size
            and not any(name.startswith(f"{holder}.") for holder in lists)
        ]
        if lists or any(parameters[name].dim() > 2 for name in stacked if name in parameters):
            found.append((path, leaf.size, lists, tuple(stacked), many))
    return found
