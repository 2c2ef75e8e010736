"""What does a module run that was traced before, the same one on the same sizes?

Many traces of nearly the same model say mostly the same. A module whose class, settings and sizes of tensors were met before,
and that is given tensors of the same sizes, runs the same operations: they are written down again instead of run. Only what a
module shows of itself is known: so a trace that has to be right whatever a class does remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunus.graph.tracing.eager_trace import MODULE, ModuleCall, Recorder
from prunus.graph.tracing.writes import base_of, written_by

__all__ = ["Remembered"]

_ATOMS = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.Size, type, type(len), type(lambda: 0))


class _Unknown(Exception):  # noqa: N818 - no error
    """Something that can't be compared with another of its kind."""


@dataclass(frozen=True)
class _Part:
    """What a module ran: the nodes, those of what it was given and of its tensors before them, and what it returned."""

    nodes: tuple[fx.Node, ...]
    constants: Mapping[fx.Node, Tensor]
    given: tuple[fx.Node, ...]
    states: tuple[fx.Node, ...]
    made: Any
    calls: tuple[ModuleCall, ...]
    name: str


@dataclass
class Remembered:
    """What modules ran in earlier traces, by what they are and what they were given."""

    parts: dict[Hashable, _Part] = field(default_factory=dict)
    kinds: dict[Hashable, int] = field(default_factory=dict)

    @contextmanager
    def at_hand(
        self, model: nn.Module, recorder: Recorder, calls: list[ModuleCall], fake: Callable[[Tensor], Tensor]
    ) -> Iterator[None]:
        """Let modules be written down from memory for a block, in which ``recorder`` writes down what ``model`` runs.

        Args:
            calls: the runs of modules so far, which those from memory are added to.
            fake: makes a fake tensor of the sizes of another.
        """
        looks = _looks(model, self.kinds)
        names = {id(module): name for name, module in model.named_modules()}
        run = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(module) not in looks or not module._modules:
                return run(module, *args, **kwargs)
            own = [
                t
                for part in module.modules()
                for t in (*part._parameters.values(), *part._buffers.values())
                if t is not None
            ]
            nodes = [recorder.known(value) for value in own]
            given: list[Tensor] = []
            try:
                key = looks[id(module)], _described((args, tuple(kwargs.items())), given, recorder), _ties(own)
            except _Unknown:
                return run(module, *args, **kwargs)
            if None in nodes:
                return run(module, *args, **kwargs)
            before = [recorder.nodes[id(value)] for value in given]
            part = self.parts.get(key)
            if part is not None:
                return _again(part, recorder, calls, names[id(module)], before, nodes, given, fake)
            last, n_calls = recorder.graph._root.prev, len(calls)
            held = _held(module)
            out = run(module, *args, **kwargs)
            if _same_things(held, _held(module)):
                made = _part(recorder, last, before, nodes, out, calls[n_calls:], names[id(module)])
                if made is not None:
                    self.parts[key] = made
            return out

        nn.Module.__call__ = call  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.__call__ = run  # type: ignore[method-assign]


def _looks(model: nn.Module, kinds: dict[Hashable, int]) -> dict[int, int]:
    """Return the kind of each module that has parts, by id; those aren't there that hold something unknown.

    Args:
        kinds: what can be seen of a kind of module, its parts among it, and its number.
    """
    found: dict[int, int] = {}
    objects: dict[int, Hashable] = {}
    for module in reversed(list(model.modules())):  # parts before what they are parts of
        parts = [(name, None if child is None else found.get(id(child), -1)) for name, child in module._modules.items()]
        if any(kind == -1 for _, kind in parts):
            continue
        seen: list[Any] = [type(module), *parts]
        try:
            for name, value in vars(module).items():
                if name in ("_parameters", "_buffers"):
                    seen += [(n, None if t is None else (type(t), *_sizes(t))) for n, t in value.items()]
                elif name not in ("_modules", "training") and not ("hook" in name and not value):
                    seen.append((name, _settled(value, objects)))
        except _Unknown:
            continue
        found[id(module)] = kinds.setdefault(tuple(seen), len(kinds))
    return found


def _settled(value: Any, objects: dict[int, Hashable]) -> Hashable:
    """Return a setting as something that equals the same setting elsewhere."""
    if isinstance(value, _ATOMS):
        return type(value), value
    if type(value) in (tuple, list):
        return type(value), tuple(_settled(part, objects) for part in value)
    if type(value) is dict:
        return dict, tuple((_settled(name, objects), _settled(part, objects)) for name, part in value.items())
    if type(value) in (set, frozenset):
        return type(value), frozenset(_settled(part, objects) for part in value)
    if isinstance(value, Tensor | nn.Module | MethodType) or not hasattr(value, "__dict__"):
        raise _Unknown
    if id(value) not in objects:
        objects[id(value)] = id(value)  # it may hold itself
        objects[id(value)] = type(value), tuple((name, _settled(part, objects)) for name, part in vars(value).items())
    return objects[id(value)]


def _sizes(value: Tensor) -> tuple[Hashable, ...]:
    return tuple(value.shape), value.stride(), value.storage_offset(), value.dtype


def _ties(own: list[Tensor]) -> tuple[int, ...]:
    first: dict[int, int] = {}
    return tuple(first.setdefault(id(value), place) for place, value in enumerate(own))


def _described(value: Any, given: list[Tensor], recorder: Recorder) -> Hashable:
    """Return an argument by its sizes; ``given`` collects the tensors, each once."""
    if isinstance(value, Tensor):
        if recorder.known(value) is None:
            raise _Unknown
        place = next((n for n, other in enumerate(given) if other is value), None)
        if place is None:
            place = len(given)
            given.append(value)
        return "tensor", place, *_sizes(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int, int(value)
    if isinstance(value, _ATOMS):
        return type(value), value
    if type(value) is tuple:
        return tuple(_described(part, given, recorder) for part in value)
    raise _Unknown


def _held(module: nn.Module) -> list[tuple[str, Any, int]]:
    """Return what a module and its parts hold, to be compared with what they hold later."""
    return [
        (name, value, len(value) if isinstance(value, list | dict | set) else 0)
        for part in module.modules()
        for held in (vars(part), part._buffers)
        for name, value in held.items()
    ]


def _same_things(before: list[tuple[str, Any, int]], after: list[tuple[str, Any, int]]) -> bool:
    return len(before) == len(after) and all(
        a[0] == b[0] and a[1] is b[1] and a[2] == b[2] for a, b in zip(before, after, strict=True)
    )


def _part(
    recorder: Recorder,
    last: fx.Node,
    given: list[fx.Node],
    states: list[Any],
    out: Any,
    calls: list[ModuleCall],
    name: str,
) -> _Part | None:
    """Return what came after ``last`` as something to be written down again; None where it reaches for something else."""
    nodes: list[fx.Node] = []
    node = last.next
    while node.op != "root":
        nodes.append(node)
        node = node.next
    inside, known = set(nodes), {*nodes, *given, *states}
    constants = {node: getattr(recorder.root, str(node.target)) for node in nodes if node.op == "get_attr"}
    if any(type(value) is not Tensor for value in constants.values()):
        return None
    for node in nodes:
        if node.op not in ("call_function", "get_attr") or not known.issuperset(node.all_input_nodes):
            return None
        if any(base_of(to) not in inside for to in written_by(node)):
            return None
    if any(call.given not in known or call.made not in known for call in calls):
        return None
    try:
        made = _returned(out, recorder, known)
    except _Unknown:
        return None
    return _Part(tuple(nodes), constants, tuple(given), tuple(states), made, tuple(calls), name)


def _returned(value: Any, recorder: Recorder, known: set[fx.Node]) -> Any:
    if isinstance(value, Tensor):
        node = recorder.known(value)
        if node is None or node not in known:
            raise _Unknown
        return node
    if type(value) in (tuple, list):
        return type(value)(_returned(part, recorder, known) for part in value)
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise _Unknown


def _again(
    part: _Part,
    recorder: Recorder,
    calls: list[ModuleCall],
    name: str,
    given: list[fx.Node],
    states: list[Any],
    tensors: list[Tensor],
    fake: Callable[[Tensor], Tensor],
) -> Any:
    """Write down what a module like this one ran before, and return what it gives."""
    now: dict[fx.Node, fx.Node] = {
        **dict(zip(part.states, states, strict=True)),
        **dict(zip(part.given, given, strict=True)),
    }
    for node in part.nodes:
        if node in part.constants:
            now[node] = recorder.constant(part.constants[node])
            continue
        copied = now[node] = recorder.graph.node_copy(node, now.__getitem__)
        custom = dict(copied.meta.get("custom") or {})
        if str(custom.get(MODULE, "")).startswith(part.name):
            copied.meta["custom"] = {**custom, MODULE: name + custom[MODULE].removeprefix(part.name)}
    calls += [ModuleCall(name + c.name.removeprefix(part.name), now[c.given], now[c.made]) for c in part.calls]
    values = dict(zip(given, tensors, strict=True))

    def give(made: Any) -> Any:
        if isinstance(made, fx.Node):
            node = now[made]
            if node not in values:
                value = values[node] = fake(node.meta["val"])
                custom = node.meta.get("custom")
                recorder.name(node, value)
                node.meta["custom"] = custom or {}
            return values[node]
        return type(made)(map(give, made)) if type(made) in (tuple, list) else made

    return give(part.made)
