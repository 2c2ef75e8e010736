"""Which attributes does ``forward`` take its sizes from, and for which dimensions?

While the model is traced, every whole number that its modules (and their configs) hold is a :class:`Tagged` integer that
remembers where it came from, through arithmetic. Where one ends up as a size in a reshape, a split or a slice, that use is
written down. So a size is found by what it does, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Attribute", "SizeUse", "Tagged", "is_config", "observing", "tagged_attributes"]


@dataclass(frozen=True)
class Attribute:
    """A number that an object holds: ``vars(owner)[name]``, or the entry ``at`` of a tuple there.

    Two modules may share an owner (a config).
    """

    owner: Any
    name: str
    at: int | None = None

    def __hash__(self) -> int:
        return hash((id(self.owner), self.name, self.at))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Attribute):
            return False
        return other.owner is self.owner and (other.name, other.at) == (self.name, self.at)

    def get(self) -> int:
        """Return the number."""
        held = vars(self.owner)[self.name]
        return int(held if self.at is None else held[self.at])

    def set(self, value: int) -> None:
        """Change the number."""
        held = vars(self.owner)[self.name]
        if self.at is not None:
            value = type(held)(value if i == self.at else old for i, old in enumerate(held))
        vars(self.owner)[self.name] = value


Expression = Attribute | int | tuple[str, Any, Any]


class Tagged(int):
    """An integer that knows the expression it came from."""

    expression: Expression

    def __new__(cls, value: int, expression: Expression) -> Tagged:
        """Return ``value``, remembering ``expression``."""
        made = super().__new__(cls, value)
        made.expression = expression
        return made

    def __eq__(self, other: object) -> bool:
        """Compare as numbers do; whoever observes hears that a size was found to be as expected."""
        same = int.__eq__(self, other)
        if same is True and type(other) is int:
            for observer in _OBSERVERS:
                observer.compared(self)
        return same

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __deepcopy__(self, memo: Any) -> int:
        return int(self)

    def __reduce__(self) -> Any:
        return int, (int(self),)


def _arithmetic(name: str, sign: str) -> None:
    def forward(self: Tagged, other: Any) -> Any:
        value = getattr(int, f"__{name}__")(self, other)
        if type(value) is not int or not isinstance(other, int):
            return value
        return Tagged(value, (sign, self.expression, getattr(other, "expression", int(other))))

    def backward(self: Tagged, other: Any) -> Any:
        value = getattr(int, f"__r{name}__")(self, other)
        if type(value) is not int or not isinstance(other, int):
            return value
        return Tagged(value, (sign, getattr(other, "expression", int(other)), self.expression))

    setattr(Tagged, f"__{name}__", forward)
    setattr(Tagged, f"__r{name}__", backward)


for _name, _sign in (("mul", "*"), ("floordiv", "//"), ("add", "+"), ("sub", "-")):
    _arithmetic(_name, _sign)


@dataclass(frozen=True)
class SizeUse:
    """An expression of attributes that is the size of dimension ``dim`` of a traced value.

    ``kind``: ``size``; ``start`` (what comes before the value along that dimension of ``source``); ``times`` (how often the
    dimension of ``source`` is repeated in it); ``outer`` (the number of rows that the dimension is read as); or ``compared``
    (the dimension was as large, when ``forward`` looked whether something is).
    """

    expression: Expression
    node: fx.Node
    dim: int
    kind: str = "size"
    source: fx.Node | None = None


@contextmanager
def tagged_attributes(model: nn.Module) -> Iterator[None]:
    """Let every whole number above one in the modules and their configs be tagged for a block."""
    changed: list[tuple[Attribute, int]] = []
    seen: set[int] = set()
    owners: list[Any] = []
    for module in model.modules():
        owners.append(module)
        owners.extend(value for value in vars(module).values() if is_config(value))
    try:
        for owner in owners:
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            for name, value in vars(owner).items():
                if type(value) is int and value > 1 and not name.startswith("__"):
                    changed.append((Attribute(owner, name), value))
                elif type(value) in (tuple, list) and value and all(type(part) is int for part in value):
                    changed += [(Attribute(owner, name, at), part) for at, part in enumerate(value) if part > 1]
        for attribute, value in changed:
            attribute.set(Tagged(value, attribute))
        yield
    finally:
        for attribute, value in changed:
            held = vars(attribute.owner).get(attribute.name)
            held = held[attribute.at] if attribute.at is not None and isinstance(held, tuple | list) else held
            if isinstance(held, Tagged):
                attribute.set(value)


def is_config(value: Any) -> bool:
    """Tell whether an object is a bag of settings, as transformers' configs are: its class is called so and has attributes."""
    return type(value).__name__.endswith(("Config", "config")) and hasattr(value, "__dict__")


@contextmanager
def observing(model: nn.Module, node_of: Callable[[Tensor], fx.Node | None]) -> Iterator[list[SizeUse]]:
    """Collect the uses of attributes as sizes while the model is traced inside the block.

    Args:
        node_of: which node of the trace made a value.
    """
    uses: list[SizeUse] = []
    with tagged_attributes(model), _Observer(uses, node_of):
        yield uses


_OBSERVERS: list[_Observer] = []
_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]


class _Observer(TorchFunctionMode):
    def __init__(self, uses: list[SizeUse], node_of: Callable[[Tensor], fx.Node | None]) -> None:
        super().__init__()
        self.uses, self.node_of = uses, node_of
        self.read: tuple[Tensor, tuple[int, ...]] | None = None  # the tensor and its sizes, from dimension ``first`` on
        self.first = 0

    def __enter__(self) -> _Observer:
        _OBSERVERS.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: object) -> None:
        _OBSERVERS.remove(self)
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def compared(self, number: Tagged) -> None:
        """Note a number that a size equals: one of the tensor whose shape was read last."""
        if self.read is None or not isinstance(number.expression, Attribute):
            return
        value, sizes = self.read
        node = self.node_of(value)
        for dim, size in enumerate(sizes, start=self.first % max(value.dim(), 1)):
            if node is not None and int.__eq__(number, size) is True:
                self.uses.append(SizeUse(number.expression, node, dim, "compared"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if (name == "__get__" and func == _SHAPE) or (name == "size" and args):
            self.read = args[0], tuple(out) if isinstance(out, tuple) else (out,)
            self.first = 0 if isinstance(out, tuple) else (args[1] if len(args) > 1 else kwargs["dim"])
            return out
        look = _READ.get(name)
        if look is not None and _any_tagged((args, tuple(kwargs.values()))):
            for expression, value, dim, kind, source in look(out, args, kwargs):
                node = self.node_of(value)
                if node is not None:
                    origin = None if source is None else self.node_of(source)
                    self.uses.append(SizeUse(expression, node, dim, kind, origin))
        return out


def _any_tagged(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_any_tagged, value))
    if isinstance(value, slice):
        return any(isinstance(part, Tagged) for part in (value.start, value.stop))
    return isinstance(value, Tagged)


Found = Iterator[tuple[Expression, Tensor, int, str, Tensor | None]]


def _sizes(given: Any) -> list[Any]:
    flat: list[Any] = []
    for item in given:
        if isinstance(item, tuple | list):
            flat.extend(item)
        else:
            flat.append(item)
    return flat


def _shape(first: int) -> Callable[..., Found]:
    def look(out: Tensor, args: Any, kwargs: Any) -> Found:
        sizes = _sizes([*args[first:], *(kwargs[name] for name in ("size", "shape", "sizes") if name in kwargs)])
        for dim, size in enumerate(sizes[: out.dim()]):
            if isinstance(size, Tagged) and int(size) == out.shape[dim]:
                yield size.expression, out, dim, "size", None

    return look


def _unflatten(out: Tensor, args: Any, kwargs: Any) -> Found:
    start = (args[1] if len(args) > 1 else kwargs["dim"]) % args[0].dim()
    sizes = args[2] if len(args) > 2 else kwargs.get("sizes", kwargs.get("unflattened_size"))
    for offset, size in enumerate(sizes):
        if isinstance(size, Tagged):
            yield size.expression, out, start + offset, "size", None


def _layer_norm(out: Tensor, args: Any, kwargs: Any) -> Found:
    sizes = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    for offset, size in enumerate(sizes):
        if isinstance(size, Tagged):
            yield size.expression, out, out.dim() - len(sizes) + offset, "size", None


def _split(out: Any, args: Any, kwargs: Any) -> Found:
    sizes = args[1] if len(args) > 1 else kwargs.get("split_size_or_sections", kwargs.get("split_size"))
    dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % args[0].dim()
    for position, value in enumerate(out):
        size = sizes if isinstance(sizes, int) else sizes[position]
        if isinstance(size, Tagged) and value.shape[dim] == int(size):
            yield size.expression, value, dim, "size", None


def _getitem(out: Any, args: Any, kwargs: Any) -> Found:
    source, index = args[0], args[1]
    if not isinstance(out, Tensor) or not isinstance(source, Tensor):
        return
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [p for p in parts if not isinstance(p, Tensor)]:
        at = next(i for i, p in enumerate(parts) if p is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (source.dim() - (len(parts) - 1))
    if len(parts) > source.dim() or not all(isinstance(part, slice) for part in parts):
        return
    for dim, part in enumerate(parts):
        if isinstance(part.stop, Tagged) and not part.start and out.shape[dim] == int(part.stop):
            yield part.stop.expression, out, dim, "size", None
        if isinstance(part.start, Tagged) and source.shape[dim] - out.shape[dim] == int(part.start):
            yield part.start.expression, out, dim, "start", source


def _repeat_interleave(out: Tensor, args: Any, kwargs: Any) -> Found:
    repeats = args[1] if len(args) > 1 else kwargs.get("repeats")
    dim = args[2] if len(args) > 2 else kwargs.get("dim")
    if isinstance(repeats, Tagged) and dim is not None:
        yield repeats.expression, out, dim % out.dim(), "times", args[0]


def _attention(out: Any, args: Any, kwargs: Any) -> Found:
    """The heads are the rows of what the last projection takes; torch runs the whole function as one."""
    heads = kwargs.get("num_heads", args[4] if len(args) > 4 else None)
    weight = kwargs.get("out_proj_weight", args[11] if len(args) > 11 else None)
    if isinstance(heads, Tagged) and isinstance(weight, Tensor):
        yield heads.expression, weight, 1, "outer", None


def _convolution(out: Any, args: Any, kwargs: Any) -> Found:
    """Channels are groups x rest."""
    groups = kwargs.get("groups", args[6] if len(args) > 6 else None)
    source = args[0] if args else kwargs.get("input")
    if isinstance(groups, Tagged) and isinstance(source, Tensor):
        yield (
            groups.expression,
            source,
            source.dim() - (args[1] if len(args) > 1 else kwargs["weight"]).dim() + 1,
            "outer",
            None,
        )


_READ: dict[str, Callable[..., Found]] = {
    **dict.fromkeys(("view", "reshape", "expand", "new_zeros", "new_ones", "new_empty", "new_full"), _shape(1)),
    **dict.fromkeys(("zeros", "ones", "empty", "full", "randn", "rand"), _shape(0)),
    "unflatten": _unflatten,
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("split", "split_with_sizes"), _split),
    "__getitem__": _getitem,
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    "multi_head_attention_forward": _attention,
}
