"""What does the model of a bundle take and give: which tensors, of what type and shape, by which names?

A description is a flat list: positional tensors first, then those that have names. The batch comes first in every tensor and isn't
part of its shape; ``spans`` say which other sizes may vary. Where a model takes a list with a tensor for each example (images of
different sizes), its entry is ``listed``. From a description come inputs to compare models on; whole numbers
are drawn below what an example showed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from prunus.apply.traced.limits import BATCH, Span, misfit
from prunus.core.calls import arguments, call
from prunus.core.errors import BundleError
from prunus.core.runtime import generator
from prunus.core.structures.forms import tensors_of
from prunus.core.structures.signature import Signature

__all__ = [
    "InputEntry",
    "Inputs",
    "SpanEntry",
    "beyond",
    "called_on",
    "described",
    "floats",
    "in_order",
    "is_scaled",
    "keywords_of",
    "made",
    "other_sizes",
    "output_tensors",
    "settled",
    "shapes",
    "sizes_misfit",
    "with_spans",
]

Size = Annotated[int, Field(ge=1, lt=2**31)]
Dtype = Literal["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
_MOST = 64


class SpanEntry(BaseModel):
    """The sizes ``least`` to ``most`` (None: any above) that a dimension may have; dimensions of one ``name`` have one size."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
    least: Size = 1
    most: Size | None = None

    @property
    def span(self) -> Span:
        """What a computation is checked against."""
        return Span(self.least, self.most, self.name)


class InputEntry(BaseModel):
    """One tensor that the model takes: for a batch of ``n`` it has the shape ``(n, *shape)``.

    If it is ``listed``, it is a list of ``n`` tensors of the shape ``shape`` instead.
    ``name`` is the keyword that it is given by; without one it is positional. ``below``: whole numbers to try are smaller.
    ``spans`` has an entry for each size of ``shape``: the sizes that may come instead, or None where there are no others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dtype: Dtype
    shape: tuple[Size, ...] = Field(strict=False, max_length=16)
    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")] | None = None
    below: int = Field(0, ge=0, lt=2**62)
    spans: tuple[SpanEntry | None, ...] = Field((), strict=False, max_length=16)
    listed: bool = False

    @model_validator(mode="after")
    def _fit(self) -> InputEntry:
        if self.spans and len(self.spans) != len(self.shape):
            raise ValueError(f"spans must have an entry for each of {list(self.shape)}, got {len(self.spans)}")
        for size, entry in zip(self.shape, self.spans, strict=False):
            if entry is not None and size not in entry.span:
                raise ValueError(f"the size {size} of shape must be one of its span, got {entry.span}")
        return self

    @property
    def allowed(self) -> tuple[Span, ...]:
        """The sizes that its dimensions may have, the batch's first."""
        free = self.spans or (None,) * len(self.shape)
        own = (Span(n, n) if s is None else s.span for n, s in zip(self.shape, free, strict=True))
        return (Span(0, None, BATCH), *own)

    @property
    def kind(self) -> torch.dtype:
        """The type of its values."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found


Inputs = tuple[InputEntry, ...]
"""All that a model takes, in order."""


def floats(shape: Sequence[int]) -> Inputs:
    """Return the description of one tensor of single-precision numbers."""
    # Unchecked: the manifest checks its input_shape, and says so under that name.
    return (InputEntry.model_construct(dtype="float32", shape=tuple(shape)),)


def described(example: Any) -> Inputs:
    """Return the description of what a model is called on: a tensor, a tuple of them (positional) or a mapping (keywords).

    In place of a tensor there may be a list with one tensor for each example.

    Raises:
        BundleError: something else is among them, or they aren't batches of one size.
    """
    positional, named = arguments(example)
    pairs = [*((None, value) for value in positional), *named.items()]
    if not 0 < len(pairs) <= _MOST:
        raise BundleError(f"an example must hold 1 to {_MOST} tensors: got {len(pairs)}")
    n = _n_rows(pairs[0][1])
    found = []
    for number, (name, value) in enumerate(pairs):
        what = "the example" if len(pairs) == 1 else f"the example's {name or f'input {number}'}"
        if _n_rows(value) != n or n < 0:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise BundleError(
                f"{what} must be a tensor with the batch as its first dimension: got {got}; or a list, one tensor for each example"
            )
        found.append(_entry(what, name, value))
    return tuple(found)


def _n_rows(value: Any) -> int:
    """Return how many examples a tensor or a list of tensors of one type holds; -1 where it is neither."""
    if isinstance(value, list):
        kinds = {(one.dtype, one.dim()) if isinstance(one, Tensor) else None for one in value}
        return len(value) if len(kinds) == 1 and None not in kinds else -1
    return len(value) if isinstance(value, Tensor) and value.dim() else -1


def _entry(what: str, name: str | None, value: Tensor | list[Tensor]) -> InputEntry:
    listed = isinstance(value, list)
    shape, values = tuple(value[0].shape), torch.cat([one.flatten() for one in value])
    kind = str(values.dtype).removeprefix("torch.")
    whole = not values.is_floating_point() and values.dtype != torch.bool and values.numel() > 0
    try:
        return InputEntry(
            dtype=kind,  # type: ignore[arg-type]
            shape=shape,
            name=name,
            below=int(values.max()) + 1 if whole and int(values.max()) > 0 else 0,
            listed=listed,
        )
    except ValueError as error:
        raise BundleError(f"{what} can't be described: got {kind} {_shape(value)} by the name {name!r}") from error


def _shape(value: Tensor | list[Tensor]) -> tuple[int, ...]:
    return (len(value), *value[0].shape)


def is_scaled(entries: Inputs) -> bool:
    """Tell whether inputs are one tensor of fractional numbers, which a scaler may be for."""
    return len(entries) == 1 and entries[0].kind.is_floating_point and not entries[0].listed


def keywords_of(entries: Inputs) -> tuple[str, ...]:
    """Return the names that the inputs have, in order."""
    return tuple(entry.name for entry in entries if entry.name is not None)


def in_order(entries: Inputs, signature: Signature) -> Inputs:
    """Return the description of what a traced computation takes, in the order of its trace.

    Raises:
        BundleError: it takes others.
    """
    called = [entry.name or (signature.places[n : n + 1] or ("",))[0] for n, entry in enumerate(entries)]
    wanted = list(signature.forms)
    if called == wanted:
        return entries
    if sorted(called) != sorted(wanted):
        raise BundleError(f"the model takes {', '.join(wanted)}: the example holds {', '.join(called)}")
    found = dict(zip(called, entries, strict=True))
    return tuple(found[name].model_copy(update={"name": name}) for name in wanted)


def with_spans(entries: Inputs, spans: Sequence[Sequence[Span]]) -> Inputs:
    """Return the description with the sizes that a computation holds for, the batch's first."""
    found = []
    for entry, (_, *own) in zip(entries, spans, strict=True):
        free = tuple(
            None if s.name in ("", BATCH) else SpanEntry(name=s.name, least=max(s.least, 1), most=s.most) for s in own
        )
        found.append(entry.model_copy(update={"spans": free if any(free) else ()}))
    return tuple(found)


def settled(entries: Inputs, scaled: Sequence[int], *, columns: bool) -> set[tuple[int, int]]:
    """Return the sizes that don't vary whatever a model takes, by input and place in its shape.

    Args:
        scaled: the shape of the scaler's mean: what is scaled by place has as many places.
        columns: whether the places of the first input have a meaning each.
    """
    first = max(len(entries[0].shape) - len(scaled), 0)
    return {(0, first + place) for place, size in enumerate(scaled) if size != 1} | ({(0, 0)} if columns else set())


def beyond(entries: Inputs, spans: Sequence[Sequence[Span]]) -> str:
    """Return where a description allows sizes that a computation doesn't hold for; empty where it allows none.

    Args:
        spans: what the computation holds for, the batch first; nothing for an input of which it says nothing.
    """
    called: dict[str, str] = {}
    for number, entry in enumerate(entries):
        if entry.listed:
            continue  # the class itself says what it takes
        own = spans[number] if number < len(spans) else ()
        for dim, said in enumerate(entry.allowed[1:], 1):
            holds = own[dim] if dim < len(own) else Span(entry.shape[dim - 1], entry.shape[dim - 1])
            apart = holds.name and called.setdefault(holds.name, said.name) != said.name
            if not entry.spans and not apart:
                continue  # one size, which the computation is followed on
            most = holds.most is None or (said.most is not None and said.most <= holds.most)
            if said.least < holds.least or not most or apart:
                return f"input {number} may have the size {said} in dimension {dim}, and the graph holds for {holds}"
    return ""


def other_sizes(entries: Inputs) -> Iterator[Inputs]:
    """Yield descriptions of inputs with other sizes where they may vary: one more, one less, twice as many, half."""
    others: tuple[Callable[[int], int], ...] = (lambda n: n + 1, lambda n: n - 1, lambda n: 2 * n, lambda n: n // 2)
    for other in others:
        fixed = {  # those of one name stay together
            free.name
            for entry in entries
            for size, free in zip(entry.shape, entry.spans, strict=False)
            if free is not None and other(size) not in free.span
        }
        changed = tuple(_resized(entry, other, fixed) for entry in entries)
        if changed != entries:
            yield changed


def _resized(entry: InputEntry, other: Callable[[int], int], fixed: Collection[str]) -> InputEntry:
    places = zip(entry.shape, entry.spans or (None,) * len(entry.shape), strict=True)
    shape = tuple(size if free is None or free.name in fixed else other(size) for size, free in places)
    return entry.model_copy(update={"shape": shape})


def sizes_misfit(entries: Inputs, given: Sequence[Tensor | list[Tensor]]) -> str:
    """Return which dimension of which input has a size that the model doesn't take; empty where all fit."""
    called = [entry.name or str(number) for number, entry in enumerate(entries)]
    plain: list[tuple[Tensor, InputEntry, str]] = []
    for entry, value, name in zip(entries, given, called, strict=False):
        if isinstance(value, Tensor):
            plain.append((value, entry, name))
            continue
        for place, one in enumerate(value):
            if problem := misfit([one[None]], [entry.allowed], [f"{name}[{place}]"]):
                return problem
    named = bool(keywords_of(entries)) or len(plain) < len(entries)
    return misfit([v for v, *_ in plain], [e.allowed for _, e, _ in plain], [n for *_, n in plain] if named else [])


def made(entries: Inputs, size: int, *names: object) -> Any:
    """Return inputs of ``size`` examples, the same ones for the same ``names``; one tensor where the model takes one."""
    draw = generator(0, "bundle", *names)
    values = [_drawn(entry, size, draw) for entry in entries]
    if [entry.name for entry in entries] == [None]:
        return values[0]
    return _arranged(entries, values)


def shapes(entries: Inputs, size: int) -> list[Tensor]:
    """Return tensors without values of the shapes and types that the model takes."""
    return [torch.empty(size, *entry.shape, dtype=entry.kind, device="meta") for entry in entries]


def _arranged(entries: Inputs, values: Sequence[Any]) -> Any:
    named = {entry.name: value for entry, value in zip(entries, values, strict=True) if entry.name is not None}
    positional = tuple(value for entry, value in zip(entries, values, strict=True) if entry.name is None)
    if positional and named:
        raise BundleError("a model's inputs are positional or have names: got both")
    return named or positional


def _drawn(entry: InputEntry, size: int, draw: torch.Generator) -> Any:
    if entry.listed:
        return [_drawn(entry.model_copy(update={"listed": False}), 1, draw)[0] for _ in range(size)]
    shape = (size, *entry.shape)
    if entry.kind.is_floating_point:
        return torch.randn(shape, generator=draw).to(entry.kind)
    return torch.randint(2 if entry.kind == torch.bool else max(entry.below, 1), shape, generator=draw).to(entry.kind)


def called_on(model: nn.Module | Callable[..., Any], inputs: Any) -> list[Tensor]:
    """Return the tensors that ``model`` gives for inputs, in order, whatever holds them."""
    return output_tensors(call(model, inputs))


def output_tensors(outputs: Any) -> list[Tensor]:
    """Return the tensors among a model's outputs, in order."""
    return tensors_of(outputs)
