"""May an ONNX file be handed to a runtime, or is it made to read other files, run foreign code or take all memory?

It is read as bytes, before any library parses it: no tensor is built, and of other files only the size is looked at. What no file
of prunus's own exports has, and a runtime would follow, is refused: custom operators, data outside of the folder, tensors whose
size isn't that of their values, functions that call themselves, graphs in graphs in graphs, and results (``onnx_sizes``) that are
larger than any model's. A loop that never ends can't be told from one that does.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from prunus.core.errors import WeightsError
from prunus.core.files.onnx_sizes import Known, check_result, known_result
from prunus.core.files.protobuf_wire import BYTES, Fields, signed, varints
from prunus.core.text import plain

__all__ = ["check_onnx"]

_MOST_BYTES, _MOST_NODES, _MOST_FIELDS, _DEEPEST = 2**31, 50_000, 2_000_000, 6
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_READS_FILES = ("EPContext",)
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
_BITS |= dict.fromkeys((17, 18, 19, 20, 24), 8) | dict.fromkeys((21, 22, 23), 4) | dict.fromkeys((25, 26), 2)
"""By TensorProto's data type; text (8) has none."""
_STRING = 8
_SMALL = 64
"""Whole numbers of so few values may be a shape, and are followed."""


@dataclass
class _Graph:
    """What was found in one graph or function: how many nodes it has itself, and which functions they call how often."""

    n_nodes: int = 0
    calls: dict[tuple[str, str], int] = field(default_factory=dict)


def check_onnx(content: bytes, *, where: str = "the ONNX file", folder: Path | None = None) -> None:
    """Raise unless the file is one that a runtime may load.

    Args:
        where: what the file is called, for messages.
        folder: where it lies, if tensors may lie in other files beside it; without one, none may.

    Raises:
        WeightsError: it says what is wrong, in one line.
    """
    try:
        _Check(folder).model(content)
    except WeightsError as error:
        raise WeightsError(f"{where} is refused: {plain(str(error))}; get it anew from who made it") from error


class _Check:
    """One reading of one file."""

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.fields = folder, Fields(_MOST_FIELDS)
        self.n_nodes = 0
        self.functions: dict[tuple[str, str], _Graph] = {}
        self.domains: set[str] = set()

    def model(self, content: bytes) -> None:
        """Check a ModelProto."""
        if len(content) >= _MOST_BYTES:
            raise WeightsError(f"an ONNX file holds less than {_MOST_BYTES} bytes, got {len(content)}")
        parts = list(self.fields.of(memoryview(content)))
        graphs = [_message(value) for number, _, value in parts if number == 7]
        if len(graphs) != 1:
            raise WeightsError(f"it is no ONNX file: it has {len(graphs)} graphs")
        if any(number == 20 for number, *_ in parts):
            raise WeightsError("it holds a training step")
        functions = [self._function(_message(value)) for number, _, value in parts if number == 25]
        for name, graph in functions:
            if name in self.functions:
                raise WeightsError(f"the function {name[1]!r} is there twice")
            self.functions[name] = graph
        own = {domain for domain, _ in self.functions}
        # What a file imports and doesn't call is nothing: optimisers list every domain that they know.
        main = _Graph()
        self._graph(graphs[0], main, 0, {})
        for domain in sorted(self.domains - own - set(_DOMAINS)):
            raise WeightsError(f"it needs custom operators, of the domain {domain!r}")
        self._expanded(main, ())

    def _expanded(
        self, graph: _Graph, above: tuple[tuple[str, str], ...], done: dict[tuple[str, str], int] | None = None
    ) -> int:
        """Return how many nodes there are once each call of a function is put in its place."""
        done = {} if done is None else done
        total = graph.n_nodes
        for name, times in graph.calls.items():
            if name not in self.functions:
                continue
            if name in above:
                raise WeightsError(f"the function {name[1]!r} calls itself")
            if len(above) > _DEEPEST:
                raise WeightsError(f"functions call functions more than {_DEEPEST} deep")
            if name not in done:
                done[name] = self._expanded(self.functions[name], (*above, name), done)
            total += times * done[name]
            if total > _MOST_NODES:
                raise WeightsError(f"it has more than {_MOST_NODES} operations, once its functions are put in place")
        return total

    def _function(self, message: memoryview) -> tuple[tuple[str, str], _Graph]:
        found, name, domain = _Graph(), "", ""
        for number, _, value in self.fields.of(message):
            if number == 1:
                name = _text(value)
            elif number == 10:
                domain = _text(value)
            elif number == 7:
                self._node(_message(value), found, 0, {})
            elif number == 11:
                self._attribute(_message(value), {}, found, 0, {})
        return (domain, name), found

    def _graph(self, message: memoryview, found: _Graph, depth: int, outer: dict[str, Known]) -> None:
        if depth > _DEEPEST:
            raise WeightsError(f"graphs lie in graphs more than {_DEEPEST} deep")
        known = dict(outer)
        parts = list(self.fields.of(message))
        for number, _, value in parts:
            if number == 5:
                name, values = self._tensor(_message(value))
                known.pop(name, None)
                if values is not None:
                    known[name] = values
            elif number == 15:
                raise WeightsError("it holds sparse tensors, whose size isn't that of their values")
        for number, _, value in parts:
            if number == 1:
                self._node(_message(value), found, depth, known)

    def _node(self, message: memoryview, found: _Graph, depth: int, known: dict[str, Known]) -> None:
        self.n_nodes += 1
        if self.n_nodes > _MOST_NODES:
            raise WeightsError(f"it has more than {_MOST_NODES} operations")
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[memoryview] = []
        operation = domain = ""
        for number, _, value in self.fields.of(message):
            if number in (1, 2):
                (inputs if number == 1 else outputs).append(_text(value))
            elif number == 4:
                operation = _text(value)
            elif number == 5:
                attributes.append(_message(value))
            elif number == 7:
                domain = _text(value)
        self.domains.add(domain)
        found.n_nodes += 1
        found.calls[domain, operation] = found.calls.get((domain, operation), 0) + 1
        if operation in _READS_FILES:
            raise WeightsError(f"the operation {operation} reads other files")
        given: dict[str, Known] = {}
        for attribute in attributes:
            self._attribute(attribute, given, found, depth, known)
        values = [known.get(name) for name in inputs]
        check_result(operation, values, given)
        made = known_result(operation, values, given)
        for name in outputs:
            known.pop(name, None)  # a name means what came last
        if made is not None and len(made.values) <= _SMALL and outputs:
            known[outputs[0]] = made

    def _attribute(
        self, message: memoryview, given: dict[str, Known], found: _Graph, depth: int, known: dict[str, Known]
    ) -> None:
        name, seen = "", set()
        numbers: list[float] = []
        for number, kind, value in self.fields.of(message):
            if number in (5, 6) and number in seen:
                raise WeightsError("an attribute holds two tensors or graphs where there is room for one")
            seen.add(number)
            if number == 1:
                name = _text(value)
            elif number == 3 and isinstance(value, int):
                numbers.append(signed(value))
            elif number == 8:
                numbers += varints(_message(value), _SMALL * 1000) if kind == BYTES else [signed(_number(value))]
            elif number in (5, 10):
                values = self._tensor(_message(value))[1]
                if values is not None and number == 5:
                    given[name or "value"] = values
            elif number in (6, 11):
                self._graph(_message(value), found, depth + 1, known)
            elif number in (22, 23):
                raise WeightsError("it holds sparse tensors, whose size isn't that of their values")
        if numbers and len(numbers) <= _SMALL:
            given[name] = Known(tuple(numbers))

    def _tensor(self, message: memoryview) -> tuple[str, Known | None]:
        """Check a TensorProto; return its name, and its values where they are few."""
        dims: list[int] = []
        external: dict[str, str] = {}
        held: list[tuple[int, int, memoryview | int]] = []
        kind = location = 0
        name = ""
        for number, wire, value in self.fields.of(message):
            if number == 1:
                dims += varints(_message(value), 64) if wire == BYTES else [signed(_number(value))]
            elif number == 2:
                kind = _number(value)
            elif number == 8:
                name = _text(value)
            elif number == 13:
                entry = {part: _text(text) for part, _, text in self.fields.of(_message(value))}
                external[entry.get(1, "")] = entry.get(2, "")
            elif number == 14:
                location = _number(value)
            elif number in (4, 5, 6, 7, 9, 10, 11):
                held.append((number, wire, value))
        if kind != _STRING and kind not in _BITS:
            raise WeightsError(f"the tensor {name!r} has the unknown type {kind}")
        if len(dims) > 64 or any(size < 0 for size in dims):
            raise WeightsError(f"the tensor {name!r} can't have the shape {dims[:8]}")
        n = math.prod(dims)
        if location or external:
            if held:
                raise WeightsError(f"the tensor {name!r} lies in the file and outside of it")
            self._outside(name, external, -(-n * _BITS.get(kind, 8) // 8))
            return name, None
        if len({number for number, *_ in held}) > 1:
            raise WeightsError(f"the tensor {name!r} holds its values twice")
        if not _fits(n, kind, held):
            raise WeightsError(f"the tensor {name!r} has the shape {dims}, {n} values, and holds others")
        return name, _values(n, kind, held)

    def _outside(self, name: str, entry: dict[str, str], size: int) -> None:
        """Check that external data lie in a plain file of the folder."""
        location = entry.get("location", "")
        if self.folder is None:
            raise WeightsError(f"the tensor {name!r} lies in another file, {location!r}: all has to be in one")
        parts = PurePosixPath(location).parts
        if (
            not parts
            or location.startswith(("/", "~"))
            or "\\" in location
            or ":" in location
            or ".." in parts
            or "\0" in location
        ):
            raise WeightsError(f"the tensor {name!r} lies outside of the file's folder, in {location!r}")
        path = self.folder
        for part in parts:
            path = path / part
            mode = os.lstat(path).st_mode if os.path.lexists(path) else 0
            if not (stat.S_ISREG(mode) if part is parts[-1] else stat.S_ISDIR(mode)):
                raise WeightsError(f"the tensor {name!r} lies in {location!r}, which is no plain file of the folder")
        try:
            offset, length = (int(entry.get(key) or other) for key, other in (("offset", "0"), ("length", str(size))))
        except ValueError:
            raise WeightsError(f"the tensor {name!r} has a place in {location!r} that is no number") from None
        there = path.stat().st_size
        if offset < 0 or length != size or offset + length > there:
            raise WeightsError(
                f"the tensor {name!r} of {size} bytes claims {length} bytes from byte {offset} of {location!r}, which has {there}"
            )


def _fits(n: int, kind: int, held: Sequence[tuple[int, int, memoryview | int]]) -> bool:
    """Tell whether the fields of a tensor hold so many values of its type."""
    bits = _BITS.get(kind)
    if held and held[0][0] == 9:
        return bits is not None and sum(len(_message(value)) for *_, value in held) == -(-n * bits // 8)
    got = sum(_n_values(number, wire, value) for number, wire, value in held)
    if kind in (14, 15):
        return got == 2 * n
    return got == (-(-n * bits // 8) if bits is not None and bits < 8 else n)


def _n_values(number: int, wire: int, value: memoryview | int) -> int:
    """Return how many values a field of a tensor holds that isn't raw bytes."""
    if number == 6 or wire != BYTES or not isinstance(value, memoryview):
        return 1
    if number in (4, 10):
        return len(value) // (4 if number == 4 else 8)
    return int(np.count_nonzero(np.frombuffer(value, np.uint8) < 128))


def _values(n: int, kind: int, held: Sequence[tuple[int, int, memoryview | int]]) -> Known | None:
    """Return few numbers as they are; None of many, and of kinds that no size is made of."""
    if n > _SMALL or len(held) > _SMALL:
        return None
    types = {
        1: np.float32,
        6: np.int32,
        7: np.int64,
        11: np.float64,
        9: np.bool_,
        3: np.int8,
        2: np.uint8,
        12: np.uint32,
    }
    if held and held[0][0] == 9 and kind in types and isinstance(held[0][2], memoryview):
        return Known(tuple(np.frombuffer(held[0][2], types[kind]).tolist()))
    if held and held[0][0] in (4, 10) and isinstance(held[0][2], memoryview):
        joined = b"".join(bytes(part) for _, _, part in held if isinstance(part, memoryview))
        return Known(tuple(np.frombuffer(joined, "<f4" if held[0][0] == 4 else "<f8").tolist()))
    if held and held[0][0] in (5, 7) and kind in (2, 3, 4, 5, 6, 7, 9):
        found: list[int] = []
        for _, _, part in held:
            found += varints(part, _SMALL) if isinstance(part, memoryview) else [signed(part)]
        return Known(tuple(found))
    return Known(()) if n == 0 else None


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise WeightsError("it is no ONNX file: a number is where a message should be")
    return value


def _number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise WeightsError("it is no ONNX file: a message is where a number should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)[:1000]).decode("utf-8", "replace")
