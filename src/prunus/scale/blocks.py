"""Which blocks of a model are called one after the other, and with what else than the output of the block before?

Found by watching, not by name: among all lists of modules, the heaviest one whose entries run once each, in order, each on what
the one before gave back. Then every block becomes a pass-through for a moment, so that what a batch gives to all blocks (masks,
position embeddings) is written down without computing any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.errors import ModelError
from prunus.graph.tracing.states import as_it_was
from prunus.scale.replay import Shared, copied, duplicated, parts_of, unwritten, versions

__all__ = ["Call", "Stack", "Stop", "call_model", "find_stack", "record_calls", "run_once"]


@dataclass(frozen=True)
class Stack:
    """The blocks under the name of their list; ``returns_tuple``: whether a block gives back a tuple, the hidden state first."""

    name: str
    blocks: tuple[nn.Module, ...]
    returns_tuple: tuple[bool, ...]

    def entry(self, number: int) -> str:
        """Return the name of one block."""
        return f"{self.name}.{number}".removeprefix(".")


@dataclass
class Call:
    """With what a block is called, but for the hidden state: it is the first positional argument, or the one called ``key``.

    ``shared`` are the parts of the model, which a block that is handed them works on itself.
    """

    rest: tuple[Any, ...]
    kwargs: dict[str, Any]
    key: str | None = None
    shared: Shared = field(default_factory=dict)

    def run(self, block: nn.Module, hidden: Tensor) -> Tensor:
        """Return the hidden state after ``block``; every run finds what the first one found.

        Raises:
            ModelError: the block writes into what others read.
        """
        rest, kwargs = copied((self.rest, self.kwargs), self.shared)
        hidden, before = hidden.clone(), versions((self.rest, self.kwargs))
        with as_it_was(block):
            given = (hidden, *rest) if self.key is None else rest
            result = block(*given, **kwargs, **({} if self.key is None else {self.key: hidden}))
        unwritten(before)
        first: Tensor = result if isinstance(result, Tensor) else result[0]
        return first


class Stop(Exception):  # noqa: N818 - it isn't an error
    """Leave a forward pass that has served its purpose."""


def call_model(model: nn.Module, batch: Any) -> Any:
    """Return ``model`` on one batch: keyword arguments (a mapping), positional ones (a tuple or list), or one tensor."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


@torch.no_grad()
def run_once(model: nn.Module, batch: Any) -> None:
    """Run ``model`` on the first example of a batch, to be watched; model and batch stay as they were."""
    with as_it_was(model):
        call_model(model, duplicated(_shortened(batch), parts_of(model)))


@torch.no_grad()
def find_stack(model: nn.Module, batch: Any, name: str | None = None) -> Stack:
    """Return the stack of blocks, watched on one batch.

    Args:
        name: of the list of blocks, if it shouldn't be searched for.

    Raises:
        ModelError: none is found, or not under that name.
    """
    lists = {
        path: tuple(module)
        for path, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
    }
    if name is not None:
        if name not in lists:
            raise ModelError(f"the model has no list of modules {name!r}; it has {', '.join(lists) or 'none'}")
        lists = {name: lists[name]}
    seen: list[tuple[nn.Module, list[Tensor], Any]] = []

    def watch(module: nn.Module, given: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        seen.append((module, [v for v in (*given, *kwargs.values()) if isinstance(v, Tensor)], result))

    entries = {id(block): block for blocks in lists.values() for block in blocks}
    handles = [block.register_forward_hook(watch, with_kwargs=True) for block in entries.values()]
    try:
        run_once(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    for path, blocks in sorted(lists.items(), key=lambda item: -_weight(item[1])):
        calls = [call for call in seen if any(call[0] is block for block in blocks)]
        if [call[0] for call in calls] == list(blocks) and _chained(calls):
            return Stack(path, blocks, tuple(not isinstance(call[2], Tensor) for call in calls))
    raise ModelError(
        f"no list of blocks runs one after the other, each on the output of the one before "
        f"(looked at: {', '.join(lists) or 'none'}): prune this model in one piece instead"
    )


@torch.no_grad()
def record_calls(model: nn.Module, stack: Stack, batch: Any) -> tuple[Tensor, list[Call]]:
    """Return the hidden state before the first block, and with what else each block is called, without computing the blocks.

    Raises:
        ModelError: a block hands something on besides the hidden state, so that the blocks can't run by themselves.
    """
    start: list[Tensor] = []
    calls: list[Call] = []
    shared = parts_of(model)

    def stand_in(number: int) -> Any:
        def forward(*given: Any, **kwargs: Any) -> Any:
            hidden, call = _split(given, kwargs, shared)
            start.append(hidden)
            calls.append(call)
            if number == len(stack.blocks) - 1:
                raise Stop
            return (hidden,) if stack.returns_tuple[number] else hidden

        return forward

    with as_it_was(model), _replaced(stack.blocks, stand_in):
        try:
            call_model(model, duplicated(batch, shared))
        except Stop:
            pass
        except (IndexError, ValueError, TypeError) as error:
            raise ModelError(
                f"the blocks {stack.name!r} hand on more than their hidden state ({error}): prune this model in one piece instead"
            ) from error
    assert len(calls) == len(stack.blocks), f"{len(calls)} of {len(stack.blocks)} blocks were called"
    return start[0], calls


def _shortened(batch: Any) -> Any:
    """Return the first example of a batch of one shape, which shows as much; another batch as it is."""
    named = isinstance(batch, Mapping)
    values = list(batch.values()) if named else list(batch) if isinstance(batch, (tuple, list)) else [batch]
    if not all(isinstance(value, Tensor) and value.dim() and value.shape == values[0].shape for value in values):
        return batch
    first = [value[:1] for value in values]
    return dict(zip(batch, first, strict=True)) if named else first


def _split(given: tuple[Any, ...], kwargs: dict[str, Any], shared: Shared) -> tuple[Tensor, Call]:
    if given and isinstance(given[0], Tensor):
        return given[0], Call(given[1:], kwargs, shared=shared)
    key = next(key for key, value in kwargs.items() if isinstance(value, Tensor) and value.is_floating_point())
    return kwargs[key], Call(given, {k: v for k, v in kwargs.items() if k != key}, key, shared)


def _chained(calls: Sequence[tuple[nn.Module, list[Tensor], Any]]) -> bool:
    """Return whether each call got what the one before gave back, and nothing else of it."""
    for (_, _, result), (_, given, _) in pairwise(calls):
        parts = (result,) if isinstance(result, Tensor) else tuple(result) if isinstance(result, (tuple, list)) else ()
        tensors = [part for part in parts if isinstance(part, Tensor)]
        if not tensors or not any(value is tensors[0] for value in given):
            return False
        if any(value is part for part in tensors[1:] for value in given):
            return False
    return bool(calls)


def _weight(blocks: Sequence[nn.Module]) -> int:
    return sum(parameter.numel() for block in blocks for parameter in block.parameters())


@contextmanager
def _replaced(blocks: Sequence[nn.Module], stand_in: Any) -> Iterator[None]:
    """Let every block's ``forward`` be another function for a block of code."""
    own = [vars(block).get("forward") for block in blocks]
    try:
        for number, block in enumerate(blocks):
            block.forward = stand_in(number)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            if forward is None:
                del block.forward
            else:
                block.forward = forward
