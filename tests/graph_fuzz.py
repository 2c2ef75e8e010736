"""Random graphs as a stranger might write them: valid calls of every operation on the list, with arguments that don't fit.

A graph follows from its seed. Its tensors end where a page of memory ends that the next page's protection follows, so that one byte
read or written beyond is the end of the process, which runs in a child with limits.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import math
import mmap
import os
import random
import resource
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.core.errors import BundleError, PrunusError
from prunus.ship.graph_files.allowed_operations import allowed_names, operation
from prunus.ship.graph_files.argument_types import made_by
from prunus.ship.graph_files.graph_file import read_graph
from prunus.ship.graph_files.input_fit import Guard, follow
from prunus.ship.graph_limits import GraphLimits

__all__ = ["LIMITS", "forged_graph", "guarded", "outcomes"]

LIMITS = GraphLimits(n_nodes=64, tensor_bytes=2**25, live_bytes=2**27, arithmetic_per_example=2e8)
MOST_SECONDS, MOST_BYTES = 60, 2**30
_INPUT = (2, 3, 4)
_INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    -2,
    64,
    255,
    1000,
    2**31 - 1,
    2**31,
    -(2**31),
    2**62,
    2**63 - 1,
    -(2**63),
    2**63,
    10**30,
)
_FLOATS = (0.0, -1.0, 0.5, 1e-30, 1e30, -1e30, 1e-7, math.nan, math.inf, -math.inf)
_TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int8", "uint8", "bool", "complex64")
_PAGE = mmap.PAGESIZE


# --- graphs ------------------------------------------------------------------------------------


@functools.cache
def _calls() -> dict[str, list[Any]]:
    """Return valid calls by operation; what has none of its own borrows from its twin, or gets arguments by its schema."""
    found: dict[str, list[Any]] = {}
    for call in json.loads((Path(__file__).parent / "graph_fuzz_calls.json").read_text()):
        found.setdefault(call[0], []).append(call)
    for short in allowed_names():
        name = f"aten.{short}"
        if name not in found:
            twin = name.replace("_.", ".", 1)
            found[name] = [[name, *call[1:]] for call in found.get(twin, [])] or [_by_schema(name)]
    return found


def _by_schema(name: str) -> list[Any]:
    tensor = {"t": [[2, 4, 4], "float32", 0, 1]}
    plain: dict[str, Any] = {
        "Tensor": tensor,
        "List[Tensor]": [tensor],
        "int": 1,
        "List[int]": [2, 2],
        "number": 2,
        "float": 0.5,
        "bool": False,
    }
    schema = operation(name)._schema.arguments  # type: ignore[attr-defined]
    needed = [argument for argument in schema if not argument.has_default_value()]
    values = {argument.name: plain.get(str(argument.real_type)) for argument in needed}
    named = {argument.name for argument in needed if argument.kwarg_only}
    return [name, [value for key, value in values.items() if key not in named], {key: values[key] for key in named}]


def _holds_number(value: Any) -> bool:
    """Tell whether a value is a number, or a list of some."""
    return any(map(_holds_number, value)) if isinstance(value, list) else type(value) in (int, float)


class _Forger:
    """Writes one graph."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.values = torch.Generator().manual_seed(seed)
        self.states: list[list[Any]] = []
        self.nodes: list[list[Any]] = []
        self.tensors: dict[str, Tensor] = {}
        self.usable = ["x"]
        self.odds = self.draw.choice((0.0, 0.5, 0.5, 1.0))

    def write(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        names = list(_calls())
        for number in range(self.draw.choice((1, 1, 1, 2, 3, 5))):
            self.call(f"n{number}", *self.draw.choice(_calls()[self.draw.choice(names)]))
        last = ["out", "output", None, [{"node": self.usable[-1]}], {}]
        given = ["x", "input", None, self.sizes(), {}]
        return {"format": 2, "nodes": [*self.states, given, *self.nodes, last]}, self.tensors

    def sizes(self) -> list[Any]:
        """Return the sizes that the graph says it holds for: none, its input's, more, or what is no size."""
        if self.draw.random() < 0.7:
            return []
        found: list[Any] = [self.draw.choice((n, [1, None, "a"], [n, n + 1, f"b{n}"])) for n in _INPUT]
        if self.draw.random() < 0.2 * self.odds:
            odd = (
                *_INTEGERS,
                None,
                "x",
                True,
                [],
                [1, 2],
                [2, 1, "c"],
                [None, None, "c"],
                [0, None, "C c"],
                {"node": "x"},
            )
            found[self.draw.randrange(len(found))] = self.draw.choice(odd)
        return found

    def call(self, name: str, target: str, arguments: list[Any], named: dict[str, Any]) -> None:
        arguments = [self.value(part) for part in arguments]
        named = {key: self.value(part) for key, part in named.items()}
        for _ in range(self.draw.choice((1, 1, 2)) if self.draw.random() < self.odds else 0):
            if arguments and (not named or self.draw.random() < 0.8):
                place = self.draw.randrange(len(arguments))
                arguments[place] = self.spoilt(arguments[place])
            elif named:
                key = self.draw.choice(sorted(named))
                named[key] = self.spoilt(named[key])
        numbers = [place for place, value in enumerate(arguments) if _holds_number(value)]
        if self.draw.random() < 0.3:
            if numbers:
                place = self.draw.choice(numbers)
                arguments[place] = self.measured(arguments[place])
            else:
                self.measured(self.draw.choice((3, 0.5)))  # nobody takes it
        self.nodes.append([name, "call", target, arguments, named])
        kind = made_by(operation(target))
        if kind == "tensors":
            place = self.draw.choice((0, 0, 1, 2))
            self.nodes.append([f"{name}_{place}", "call", "operator.getitem", [{"node": name}, place], {}])
            self.usable.append(f"{name}_{place}")
        elif kind == "tensor":
            self.usable.append(name)

    def measured(self, value: Any) -> Any:
        """Return a value with a number in it that arithmetic on sizes comes to."""
        if isinstance(value, list) and value:
            place = self.draw.randrange(len(value))
            return [self.measured(part) if number == place else part for number, part in enumerate(value)]
        if not _holds_number(value):
            return value
        source = self.draw.choice(["x", *(name for name, own in self.tensors.items() if own.dim())])
        shape = _INPUT if source == "x" else tuple(self.tensors[source].shape)
        dim = self.draw.randrange(len(shape))
        n, size = shape[dim], self.arithmetic("aten.sym_size.int", {"node": source}, dim)
        for _ in range(self.draw.choice((1, 1, 1, 2, 6))):
            ways = ("add", "floordiv", "mod", "truediv", "pow")
            way = self.draw.choice(ways[:3] if type(value) is int and self.draw.random() < 0.8 else ways)
            if way == "pow":
                size = self.arithmetic("operator.pow", size, self.draw.choice((0.5, -0.5, 1.0, 2.0, 100.0)))
            elif way in ("add", "mod"):
                size = self.arithmetic("operator.add", size, value - n)
                size = self.arithmetic("operator.mod", size, abs(value) + 1) if way == "mod" else size
            else:  # so many times as many, in so many parts
                size = self.arithmetic(f"operator.{way}", self.arithmetic("operator.mul", size, value), n)
        return size

    def arithmetic(self, target: str, *operands: Any) -> dict[str, str]:
        """Return a node that is a number; where it is spoilt, one of its operands isn't what it should be."""
        given = list(operands)
        if self.draw.random() < 0.15 * self.odds:
            odd = (*_INTEGERS, *map(self.tagged, _FLOATS), 0, None, True, "x", {"node": self.draw.choice(self.usable)})
            given[self.draw.randrange(2)] = self.draw.choice(odd)
        name = f"m{len(self.nodes)}"
        self.nodes.append([name, "call", target, given, {}])
        return {"node": name}

    def value(self, part: Any) -> Any:
        if isinstance(part, list):
            return [self.value(own) for own in part]
        if isinstance(part, dict) and "t" in part:
            return {"node": self.tensor(*part["t"])}
        return part

    def tensor(self, shape: list[int], dtype: str, least: int = 0, largest: int = 1) -> str:
        """Return the name of a tensor: a new one mostly, with sizes, type and values that may not fit."""
        if self.draw.random() < 0.1:
            return self.draw.choice(self.usable)
        if self.draw.random() < 0.25 * self.odds:
            shape = self.resized(list(shape))
        if self.draw.random() < 0.08 * self.odds:
            dtype = self.draw.choice(_TYPES)
        name = f"s{len(self.states)}"
        self.tensors[name] = self.filled(shape, getattr(torch, dtype), least, largest)
        self.states.append([name, "buffer", name, [], {}])
        return name

    def resized(self, shape: list[int]) -> list[int]:
        if not shape or self.draw.random() < 0.2:
            return [*shape, self.draw.choice((0, 1, 2, 5))] if self.draw.random() < 0.5 else shape[1:]
        place = self.draw.randrange(len(shape))
        shape[place] = self.draw.choice((0, 1, shape[place] + 1, max(shape[place] - 1, 0), shape[place] * 5, 300))
        return shape if math.prod(shape) <= 2**18 else [1] * len(shape)

    def filled(self, shape: list[int], dtype: torch.dtype, least: int, largest: int) -> Tensor:
        made = guarded(shape, dtype, at_end=self.draw.random() < 0.8)
        if dtype == torch.bool:
            made.copy_(torch.randint(0, 2, shape, generator=self.values))
        elif dtype.is_floating_point or dtype.is_complex:
            made.copy_(torch.randn(shape, generator=self.values))
        else:
            made.copy_(torch.randint(least, max(largest, least) + 1, shape, generator=self.values))
        if made.numel() and dtype != torch.bool and self.draw.random() < 0.4 * self.odds:
            bounds = torch.iinfo(dtype) if not (dtype.is_floating_point or dtype.is_complex) else torch.finfo(dtype)
            odd = [bounds.min, bounds.max, -1 if bounds.min < 0 else 1, 0]
            odd += (
                [largest + 1]
                if isinstance(bounds, torch.iinfo) and largest < bounds.max
                else list(_FLOATS)
                if isinstance(bounds, torch.finfo)
                else []
            )
            value = self.draw.choice(odd)
            if isinstance(value, float) and math.isfinite(value):
                value = max(min(value, bounds.max), bounds.min)
            made.view(-1)[:: self.draw.choice((1, 3))] = value
        return made

    def spoilt(self, value: Any) -> Any:
        """Return a value in place of another that may be of another type, size or meaning."""
        if self.draw.random() < 0.1:
            return self.draw.choice(
                (
                    None,
                    True,
                    3,
                    0.5,
                    "x",
                    [],
                    [1],
                    {"dtype": "float64"},
                    {"node": self.draw.choice(self.usable)},
                    {"float": "nan"},
                )
            )
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return self.draw.choice((*_INTEGERS, value + 1, value - 1, value * 2))
        if isinstance(value, float):
            return self.tagged(self.draw.choice(_FLOATS))
        if isinstance(value, str):
            return self.draw.choice(("", "x", "none", "tanh", "mean", "sum", "prod", "floor", "trunc"))
        if isinstance(value, list) and value:
            if self.draw.random() < 0.3:
                return value[1:] if self.draw.random() < 0.5 else [*value, self.draw.choice(value)]
            place = self.draw.randrange(len(value))
            return [self.spoilt(part) if number == place else part for number, part in enumerate(value)]
        if isinstance(value, dict) and "node" in value and self.draw.random() < 0.8:
            own = self.tensors.get(value["node"])
            shape, dtype = (
                (list(own.shape), str(own.dtype).removeprefix("torch.")) if own is not None else ([2, 3], "float32")
            )
            return {"node": self.tensor(self.resized(shape), dtype, 0, 2)}
        return self.draw.choice((value, None, {"dtype": self.draw.choice(_TYPES)}, self.draw.choice(_INTEGERS)))

    @staticmethod
    def tagged(value: float) -> Any:
        return value if math.isfinite(value) else {"float": str(value)}


def forged_graph(seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a parsed ``graph.json`` and its tensors."""
    return _Forger(seed).write()


# --- memory with an end ------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def guarded(shape: list[int], dtype: torch.dtype, *, at_end: bool = True) -> Tensor:
    """Return a tensor of zeros, right before (or after) a page that can't be touched; it is never given back."""
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes == 0:
        return torch.zeros(shape, dtype=dtype)
    n_pages = -(-n_bytes // _PAGE)
    start = _libc.mmap(
        None, (n_pages + 2) * _PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    for page in (start, start + (n_pages + 1) * _PAGE):
        if _libc.mprotect(page, _PAGE, 0):
            raise OSError(ctypes.get_errno(), "a page can't be protected")
    first = start + _PAGE + (n_pages * _PAGE - n_bytes if at_end else 0)
    return torch.frombuffer((ctypes.c_char * n_bytes).from_address(first), dtype=dtype).view(shape)


# --- children ----------------------------------------------------------------------------------


def _outcome(seed: int, tree: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Read, follow and run one graph, and say what came of it."""
    try:
        graph = read_graph(tree, tensors, most_nodes=LIMITS.n_nodes)
    except BundleError:
        return "refused when read"
    given = guarded(list(_INPUT), torch.float32)
    given.copy_(torch.randn(_INPUT, generator=torch.Generator().manual_seed(seed)))
    try:
        expected, _ = follow(graph, [given], LIMITS)
    except BundleError:
        return "refused when followed"
    graph.guard = Guard(LIMITS)
    try:
        made = graph(given)
    except PrunusError as error:
        return "out of memory" if "allocate memory" in str(error) else "failed when it ran"
    if (made.shape, made.dtype) != (expected[0].shape, expected[0].dtype):
        return "another shape"
    float(
        torch.view_as_real(made.resolve_conj()).sum() if made.is_complex() else made.double().sum()
    )  # all of it can be read
    return "ran"


def _child(seeds: list[int], report: int) -> None:
    """Run graphs until one ends the process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE
    resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_BYTES, used + MOST_BYTES))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    torch.set_num_threads(1)
    for seed in seeds:
        tree, tensors = forged_graph(seed)
        called = " ".join(node[2] for node in tree["nodes"] if node[1] == "call")
        os.write(report, f"{seed} {called}\n".encode())
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            said = _outcome(seed, tree, tensors)
        except MemoryError:
            said = "out of memory"
        except Exception as error:
            said = f"raised {type(error).__name__}"
        os.write(report, f"{said}\n".encode())


def outcomes(seeds: list[int], *, each: int = 200) -> Iterator[tuple[int, str, list[str]]]:
    """Run the graphs of these seeds in children, ``each`` at most in one; give seed, what came of it, and the operations."""
    _calls()
    left = list(seeds)
    while left:
        own = left[:each]
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _child(own, writer)
            finally:
                os._exit(0)
        os.close(writer)
        lines: list[str] = []
        with os.fdopen(reader) as pipe:
            while select.select([pipe], [], [], 20 * MOST_SECONDS)[0]:
                line = pipe.readline()
                if not line:
                    break
                lines.append(line.strip())
            else:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        end = (
            "hung"
            if died in (signal.SIGPROF, signal.SIGKILL)
            else f"crashed with {signal.Signals(died).name}"
            if died
            else "ended"
        )
        for seed, called, said in itertools.zip_longest(
            own[: (len(lines) + 1) // 2], lines[::2], lines[1::2], fillvalue=end
        ):
            yield seed, said, called.split()[1:]
        left = left[max((len(lines) + 1) // 2, 1) :]
