"""What does a pickle that ``torch.save`` wrote describe, without unpickling it?

Its instructions are followed as data: nothing is imported, called or allocated on its word. A tensor comes out as a description
(which storage, from where, how large), whatever else is allowed in a checkpoint as plain values, or as :class:`Opaque`. Each
instruction makes at most one value, so that what comes out is never larger than what went in.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from prunus.core.errors import WeightsError
from prunus.core.text import plain, shown

__all__ = ["Opaque", "StorageEntry", "TensorEntry", "read_pickle"]

MAX_INSTRUCTIONS = 1_000_000
"""A tensor takes about forty."""

_TENSORS = ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_tensor_v3")
_WRAPPERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")
_ODD_TENSORS = (
    "_rebuild_sparse_tensor",
    "_rebuild_qtensor",
    "_rebuild_nested_tensor",
    "_rebuild_meta_tensor_no_storage",
)
# What torch.load(weights_only=True) lets pass beside tensors; none of it is called here.
_INERT = {
    *(f"torch._utils {name}" for name in (*_TENSORS, *_WRAPPERS, *_ODD_TENSORS)),
    "torch._utils _rebuild_wrapper_subclass", "torch._utils _rebuild_device_tensor_from_numpy",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor", "torch._tensor _rebuild_from_type_v2",
    "collections OrderedDict", "collections Counter", "collections defaultdict", "torch.nn.parameter Parameter",
    "torch.serialization _get_layout", "torch Size", "torch Tensor", "torch device", "_codecs encode",
    "builtins set", "builtins complex", "builtins bytearray", "__builtin__ set", "__builtin__ complex", "__builtin__ bytearray",
}  # fmt: skip
_TORCH_NUMBERS = (
    "float", "double", "half", "bfloat", "int", "long", "short", "uint", "bool", "complex",
    "quint", "qint", "per_", "bits", "char", "byte",
)  # fmt: skip


class Global(NamedTuple):
    """A name that a pickle refers to; nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module} {self.name}"


class Opaque(NamedTuple):
    """Something that isn't looked into; ``what`` says what it is."""

    what: str


class StorageEntry(NamedTuple):
    """A storage as the pickle declares it: which record, of what type, how many elements."""

    key: str
    kind: str
    n_elements: int


@dataclass(frozen=True)
class TensorEntry:
    """A tensor as the pickle describes it, in elements of its type; ``dtype`` is given where the storage's type isn't it."""

    storage: StorageEntry
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None
    marks: tuple[str, ...] = ()

    @property
    def n_elements(self) -> int:
        """How many elements it shows, repeated ones counted."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def reach(self) -> int:
        """How many elements of its storage it needs."""
        if self.n_elements == 0:
            return 0
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class _Key:
    """Stands for a key that is no text: what a stranger nested takes for ever to hash, and whole numbers can be made to collide."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        short = type(self.value) is int and abs(self.value) < 2**63
        return str(self.value) if short else f"a key that is a {type(self.value).__name__}"


class _Mark:
    """What MARK pushes."""


_MARK = _Mark()


def read_pickle(program: bytes, path: Path) -> tuple[Any, list[StorageEntry]]:
    """Return what a pickle describes, and every storage that it refers to.

    Raises:
        WeightsError: it refers to more than tensors and plain values, is damaged, or is longer than any honest one.
    """
    machine = _Machine(path)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(program)):
            if number >= MAX_INSTRUCTIONS:
                raise WeightsError(
                    f"{path}: refused, its data.pkl has more than {MAX_INSTRUCTIONS} instructions; save the tensors as .safetensors"
                )
            machine.step(operation.name, argument)
        return machine.result(), machine.storages
    except WeightsError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise WeightsError(f"{path}: this .pt file is damaged: its pickle can't be followed") from error


class _Machine:
    """The pickle machine over descriptions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: list[StorageEntry] = []

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[int(argument)])
        elif name in _TUPLES:
            stack.append(tuple(_taken(stack, _TUPLES[name])))
        elif name in _DEEDS:
            _DEEDS[name](self)
        elif name in ("GLOBAL", "INST"):
            if name == "INST":
                raise self._foreign(*argument.split(" ", 1))
            stack.append(self._global(*argument.split(" ", 1)))
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise WeightsError(
                f"{self.path}: refused, it has the instruction {name}, in a form that torch.save never writes"
            )

    def _global(self, module: str, name: str) -> Global:
        found = Global(module, name)
        torch_s = module in ("torch", "torch.cuda") and (name.endswith("Storage") or name.startswith(_TORCH_NUMBERS))
        if not (
            torch_s
            or str(found) in _INERT
            or (module == "torch.storage" and name in ("UntypedStorage", "TypedStorage"))
        ):
            raise self._foreign(module, name)
        return found

    def _foreign(self, module: str, name: str) -> WeightsError:
        return WeightsError(
            f"{self.path}: refused, it holds more than tensors ({plain(f'{module}.{name}')[:200]}) and reading that could run "
            "code; save model.state_dict() instead, best as .safetensors"
        )

    def marked(self) -> list[Any]:
        """Take what lies above the last mark off the stack, and the mark."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise IndexError("no mark")
        return _taken(self.stack, len(self.stack) - place)[1:]

    def stack_global(self) -> None:
        module, name = _taken(self.stack, 2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a global is named by two texts")
        self.stack.append(self._global(module, name))

    def persistent(self) -> None:
        """Note the storage that a tuple names, as ``torch.save`` writes it: ('storage', type, key, location, elements)."""
        entry = self.stack.pop()
        plainly = (
            isinstance(entry, tuple)
            and len(entry) == 5
            and entry[0] == "storage"
            and isinstance(entry[1], Global)
            and isinstance(entry[2], str)
            and isinstance(entry[3], str)
            and type(entry[4]) is int
        )
        if not plainly:
            raise WeightsError(f"{self.path}: refused, a storage is referred to in a form that torch.save never writes")
        self.storages.append(StorageEntry(entry[2], str(entry[1]), entry[4]))
        self.stack.append(self.storages[-1])

    def reduce(self) -> None:
        function, arguments = _taken(self.stack, 2)
        self.stack.append(self._called(function, arguments))

    def _called(self, function: Any, arguments: Any) -> Any:
        """Return the description of what a call would make."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("only a global can be called")
        name = function.name
        if name == "_rebuild_from_type_v2" and len(arguments) == 4 and isinstance(arguments[0], Global):
            kind = arguments[1]
            if str(kind) in ("torch Tensor", "torch.nn.parameter Parameter"):
                return self._called(arguments[0], arguments[2])
            return Opaque(f"a {kind.name if isinstance(kind, Global) else 'tensor of another class'}")
        if function.module == "torch._utils" and name in _TENSORS:
            return self._tensor(name, arguments)
        if function.module == "torch._utils" and name in _WRAPPERS and isinstance(arguments[0], TensorEntry | Opaque):
            return arguments[0]
        if name == "_get_layout" and len(arguments) == 1 and isinstance(arguments[0], str):
            return Opaque(shown(arguments[0]).strip("'"))
        if name == "_rebuild_sparse_tensor" and isinstance(arguments[0], Opaque):
            return arguments[0]
        if name == "OrderedDict" and not arguments:
            return {}
        return Opaque(name)

    def _tensor(self, name: str, arguments: tuple[Any, ...]) -> TensorEntry:
        storage, offset, shape, stride = arguments[:4]
        dtype = arguments[6] if name == "_rebuild_tensor_v3" else None
        metadata = arguments[7:8] if name == "_rebuild_tensor_v3" else arguments[6:7]
        whole = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= 64
        if (
            not isinstance(storage, StorageEntry)
            or not whole
            or not all(type(n) is int and 0 <= n < 2**60 for n in (offset, *shape, *stride))
            or not (dtype is None or isinstance(dtype, Global))
        ):
            raise WeightsError(f"{self.path}: refused, a tensor is described in a form that torch.save never writes")
        marks = metadata[0] if metadata and isinstance(metadata[0], dict) else {}
        set_marks = tuple(mark for mark in ("conj", "neg") if marks.get(mark) is True)
        return TensorEntry(storage, offset, shape, stride, dtype.name if dtype else None, set_marks)

    def new_object(self) -> None:
        kind, _ = _taken(self.stack, 2)
        self.stack.append(Opaque(kind.name if isinstance(kind, Global) else "an object"))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key if isinstance(key, str) else _Key(key)] = value

    def forget_marked(self) -> None:
        """A set isn't looked into."""
        self.marked()

    def forget_state(self) -> None:
        """What ``BUILD`` would set, such as the ``_metadata`` of a state dict, isn't needed."""
        _taken(self.stack, 1)

    def append(self, items: list[Any]) -> None:
        if isinstance(target := self.stack[-1], list):
            target += items


def _taken(stack: list[Any], count: int) -> list[Any]:
    if count > len(stack):
        raise IndexError("the stack is empty")
    taken = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return taken


def _dict(machine: _Machine) -> None:
    items = machine.marked()
    machine.stack.append({})
    machine.set_items(items)


_VALUES = frozenset(
    (
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "FLOAT", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
        "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING", "STRING", "BYTEARRAY8",
    )
)  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": lambda: Opaque("set"), "MARK": lambda: _MARK,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_DEEDS: dict[str, Callable[[_Machine], None]] = {
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.marked())),
    "LIST": lambda machine: machine.stack.append(machine.marked()),
    "DICT": _dict,
    "SETITEM": lambda machine: machine.set_items(_taken(machine.stack, 2)),
    "SETITEMS": lambda machine: machine.set_items(machine.marked()),
    "APPEND": lambda machine: machine.append(_taken(machine.stack, 1)),
    "APPENDS": lambda machine: machine.append(machine.marked()),
    "ADDITEMS": _Machine.forget_marked,
    "STACK_GLOBAL": _Machine.stack_global,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.forget_state,
}
