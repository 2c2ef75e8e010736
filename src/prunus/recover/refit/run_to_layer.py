"""How is a model run up to one layer, once for every layer, without computing anew what no longer changes?

Fits go through a model layer by layer, and each wants to see its inputs as they are once the layers before it are done. So a run
ends where the layer has been called, and modules that hold nothing that is still to change are computed once: their outputs are
kept, and given back instead of calling them. Only modules are skipped whose outputs say all of what they do: :func:`replayable`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunus.core.calls import call

if TYPE_CHECKING:
    from prunus.data import Batch

__all__ = ["Memory", "Replay", "Run", "Seen", "replayable"]

Run = Callable[["Batch"], None]
_BYTES = 1 << 29


@dataclass
class Memory:
    """So many bytes are left for outputs, however many examples there are; what doesn't fit is computed anew."""

    left: int = _BYTES


@dataclass(frozen=True)
class Seen:
    """The modules that one forward pass calls a single time, and those among them that may be skipped."""

    once: frozenset[nn.Module]
    skippable: frozenset[nn.Module]


class _ReachedError(BaseException):
    """The layer has been called, what follows isn't needed; no ``except Exception`` of a model may stop it."""


@torch.no_grad()
def replayable(model: nn.Module, inputs: Any) -> Seen:
    """Return which modules may be skipped when their outputs are known, as far as one call shows.

    Such a module is called once, takes and gives plain values (a cache that it is handed could be written to), writes over none of
    its inputs, gives none of them back, and ends with the attributes that it had. ``model`` ends in evaluation mode.
    """
    model.eval()
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    calls = dict.fromkeys(modules, 0)
    doubtful = {m for m in modules if "forward" in vars(m)}
    before: dict[nn.Module, list[tuple[Tensor, int]]] = {}

    def start(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls[module] += 1
        found = list(_tensors((given, tuple(named.values()))))
        before[module] = [(t, t._version) for t in found if isinstance(t, Tensor)]
        if any(not isinstance(t, Tensor) for t in found):
            doubtful.add(module)

    def end(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], outputs: Any) -> None:
        found, read = list(_tensors(outputs)), before[module]
        stored = {t.untyped_storage().data_ptr() for t, _ in read}
        if any(not isinstance(t, Tensor) or t.untyped_storage().data_ptr() in stored for t in found):
            doubtful.add(module)
        if any(t._version != version for t, version in read):
            doubtful.add(module)

    attributes = {module: _attributes(module) for module in modules}
    handles = [m.register_forward_pre_hook(start, with_kwargs=True) for m in modules]
    handles += [m.register_forward_hook(end, with_kwargs=True) for m in modules]
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    doubtful |= {module for module in modules if _attributes(module) != attributes[module]}
    once = {module for module, n in calls.items() if n == 1}
    return Seen(frozenset(once), frozenset(m for m in once if doubtful.isdisjoint(m.modules()) and m is not model))


class Replay:
    """Runs a model on the batches of one set of examples, up to one layer after the other, in the order of their calls."""

    def __init__(self, model: nn.Module, seen: Seen, memory: Memory) -> None:
        self._model, self._seen, self._memory = model, seen, memory
        self._outputs: dict[bytes, dict[nn.Module, Any]] = {}
        self._own = {m: {m, *m.parameters(recurse=False), *m.buffers(recurse=False)} for m in model.modules()}
        self._holds = {m: {*m.modules(), *m.parameters(), *m.buffers()} for m in seen.skippable}

    def up_to(self, layer: nn.Module, changing: Collection[nn.Module]) -> Run:
        """Return what runs the model on a batch, no further than it takes to see all calls of ``layer``.

        Args:
            changing: the layers that may still change, ``layer`` among them: what holds any of them isn't skipped.
        """
        parts = {part for module in changing for part in (module, *module.parameters(), *module.buffers())}
        open_ = [
            m for m, own in self._own.items() if not parts.isdisjoint(own)
        ]  # others may hold a layer's weight, too
        plan = list(self._plan(parts))
        return lambda batch: self._run(batch, layer, open_, plan)

    def _plan(self, changing: set[Any]) -> Iterator[tuple[nn.Module, bool]]:
        """Yield what may be skipped, and whether its outputs are worth keeping: nothing that holds it is skipped itself."""
        todo, met = [(self._model, False)], set[nn.Module]()
        while todo:
            module, inside = todo.pop()
            if module in met:
                continue
            met.add(module)
            settled = module in self._holds and changing.isdisjoint(self._holds[module])
            if settled:
                yield module, not inside
            todo += [(child, inside or settled) for child in module.children()]

    @torch.no_grad()
    def _run(
        self, batch: Batch, layer: nn.Module, open_: Collection[nn.Module], plan: list[tuple[nn.Module, bool]]
    ) -> None:
        key = batch.index.numpy(force=True).tobytes()
        going = _Going(self._outputs.setdefault(key, {}), self._memory)
        handles = [module.register_forward_pre_hook(lambda *_: going.stop_keeping()) for module in open_]
        if layer in self._seen.once:
            handles.append(layer.register_forward_hook(_reached))
        try:
            with _replaced([(module, going.instead_of(module, keep=keep)) for module, keep in plan]):
                call(self._model, batch.inputs)
        except _ReachedError:
            pass
        finally:
            for handle in handles:
                handle.remove()


@dataclass
class _Going:
    """One run: what is known of its batch, and whether what is computed now depends on nothing that may still change."""

    outputs: dict[nn.Module, Any]
    memory: Memory
    keeps: bool = True
    called: set[nn.Module] = field(default_factory=set)

    def stop_keeping(self) -> None:
        self.keeps = False

    def instead_of(self, module: nn.Module, *, keep: bool) -> Callable[..., Any]:
        forward = module.forward

        def replayed(*given: Any, **named: Any) -> Any:
            first = module not in self.called
            self.called.add(module)
            if first and module in self.outputs:
                return _copy(self.outputs[module])  # what follows may write over it
            result = forward(*given, **named)
            if first and keep and self.keeps and not _is_activation(module, given, named, result):
                self._keep(module, result)
            return result

        return replayed

    def _keep(self, module: nn.Module, result: Any) -> None:
        found = list(_tensors(result))
        size = _size(found)
        if size > self.memory.left or any(not isinstance(t, Tensor) for t in found):
            return
        self.outputs[module] = _copy(result)
        self.memory.left -= size
        for inner in module.modules():
            if inner is not module and inner in self.outputs:
                self.memory.left += _size(list(_tensors(self.outputs.pop(inner))))


@contextmanager
def _replaced(forwards: list[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Let modules compute something else for a block."""
    try:
        for module, forward in forwards:
            vars(module)["forward"] = forward
        yield
    finally:
        for module, _ in forwards:
            vars(module).pop("forward", None)


def _reached(module: nn.Module, given: Any, outputs: Any) -> None:
    raise _ReachedError


def _tensors(tree: Any) -> Iterator[Any]:
    """Yield what is in nested tuples, without what can't change; what isn't a tensor may be anything."""
    if type(tree) is tuple:
        for part in tree:
            yield from _tensors(part)
    elif tree is not None and not isinstance(tree, (bool, int, float, str, torch.dtype, torch.device, torch.Size)):
        yield tree


def _is_activation(module: nn.Module, given: Any, named: Any, result: Any) -> bool:
    """Tell whether a module turns one tensor into one of its shape without weights: that takes no longer than a copy."""
    read, made = ([t for t in _tensors(tree) if isinstance(t, Tensor)] for tree in ((given, *named.values()), result))
    if len(read) != 1 or len(made) != 1 or read[0].shape != made[0].shape:
        return False
    return next(module.parameters(), None) is None and next(module.buffers(), None) is None


def _copy(tree: Any) -> Any:
    if type(tree) is tuple:
        return tuple(_copy(part) for part in tree)
    return tree.clone() if isinstance(tree, Tensor) else tree


def _size(found: list[Any]) -> int:
    return sum(t.numel() * t.element_size() for t in found)


def _attributes(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Return what tells whether a module's own values were replaced or written over; hooks come and go."""
    held = {**{key: value for key, value in vars(module).items() if not key.endswith("_hooks")}, **module._buffers}
    return {
        key: (
            id(value),
            value._version if isinstance(value, Tensor) else len(value) if hasattr(value, "__len__") else 0,
        )
        for key, value in held.items()
        if not isinstance(value, (bool, int, float, str))
    } | {key: (0, hash(value)) for key, value in held.items() if isinstance(value, (bool, int, float, str))}
