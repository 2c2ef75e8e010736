"""How large must a result in an ONNX graph at least be, before anything runs?

Small lists of numbers (shapes, repeats, trip counts) are followed from where they are written to where they are read: exactly, or
as the least that they can be. What depends on an input counts as 1. So a file that says how large it wants to be is known by that;
one that hides it behind what it computes from its inputs isn't, and is for limits on the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunus.core.errors import WeightsError

__all__ = ["Known", "check_result", "known_result"]

_MOST_VALUES, _MOST_STEPS = 2**28, 2**20
_BEYOND = 2.0**62


@dataclass(frozen=True)
class Known:
    """Numbers of which these are the least possible ones, and the very ones if they are ``exact``."""

    values: tuple[float, ...]
    exact: bool = True

    @property
    def product(self) -> float:
        """Return the product, where what isn't known counts as 1."""
        return math.prod(max(value, 1) for value in self.values)


Inputs = Sequence[Known | None]


def check_result(operation: str, inputs: Inputs, attributes: Mapping[str, Known]) -> None:
    """Raise if a result is larger than any model's, or a loop longer.

    Raises:
        WeightsError: it names the operation and how much it asks for.
    """
    asked = _asked(operation, [*inputs, None, None, None, None], attributes)
    if asked > _MOST_VALUES:
        raise WeightsError(f"the operation {operation} asks for {asked:.3g} values")
    trips = inputs[0] if operation == "Loop" and inputs else None
    if trips is not None and trips.values and _MOST_STEPS < trips.values[0] < 2**62:
        raise WeightsError(f"a loop asks for {trips.values[0]:.3g} rounds")


def _asked(operation: str, inputs: Inputs, attributes: Mapping[str, Known]) -> float:
    """Return how many values the result of an operation has at least."""
    shape_at = {
        "ConstantOfShape": 0,
        "Expand": 1,
        "Tile": 1,
        "Reshape": 1,
        "Upsample": 1,
        "CenterCropPad": 1,
        "MaxUnpool": 2,
    }
    if operation in shape_at:
        shape = inputs[shape_at[operation]] or attributes.get("scales")
        return 0 if shape is None else shape.product
    if operation in ("RandomNormal", "RandomUniform", "Bernoulli", "Multinomial"):
        shape = attributes.get("shape") or attributes.get("sample_size")
        return 0 if shape is None else shape.product
    if operation == "Range":
        start, limit, delta = inputs[:3]
        if start and limit and delta and start.exact and delta.exact and delta.values[:1] not in ((), (0,)):
            return max((limit.values[0] - start.values[0]) / delta.values[0], 0) if limit.values and start.values else 0
        return 0
    if operation == "Pad":
        pads = inputs[1] or attributes.get("pads")
        return 0 if pads is None else max(pads.values, default=0)
    if operation == "Resize":
        sizes, scales = inputs[3], inputs[2] or attributes.get("scales")
        return max(known.product for known in (sizes, scales) if known is not None) if sizes or scales else 0
    if operation == "OneHot":
        return 0 if inputs[1] is None else inputs[1].product
    if operation in ("HannWindow", "HammingWindow", "BlackmanWindow", "DFT"):
        length = inputs[1 if operation == "DFT" else 0]
        return 0 if length is None else length.product
    return 0


def known_result(operation: str, inputs: Inputs, attributes: Mapping[str, Known]) -> Known | None:
    """Return what is known of the result of an operation on numbers; None of what isn't followed."""
    first = inputs[0] if inputs else None
    if operation == "Constant":
        return next(iter(attributes.values()), None)
    if operation in ("Shape", "Size"):
        return None if operation == "Shape" else Known((1,), exact=False)
    if operation in ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Abs", "Ceil"):
        return first
    if operation == "ReduceProd" and first is not None:
        return Known((math.prod(first.values),), first.exact)
    if operation == "Concat":
        parts = [part or Known((1,), exact=False) for part in inputs]
        return Known(tuple(v for part in parts for v in part.values), all(part.exact for part in parts))
    if operation in ("Add", "Mul", "Max", "Pow", "Sum", "Sub", "Div") and len(inputs) == 2:
        return _pointwise(operation, *inputs)
    if operation == "Gather" and first is not None:
        places = inputs[1]
        if (
            places is not None
            and places.exact
            and all(-len(first.values) <= p < len(first.values) for p in places.values)
        ):
            return Known(tuple(first.values[int(place)] for place in places.values), first.exact)
    return None


def _pointwise(operation: str, one: Known | None, other: Known | None) -> Known | None:
    if one is None and other is None:
        return None
    one, other = (each or Known((1,), exact=False) for each in (one, other))
    exact = one.exact and other.exact
    n = max(len(one.values), len(other.values))
    if not one.values or not other.values or n % len(one.values) or n % len(other.values):
        return None
    if not exact and (operation in ("Sub", "Div", "Pow") or min(*one.values, *other.values) < 0):
        return None  # what isn't known may make it smaller
    pairs = list(zip(one.values * (n // len(one.values)), other.values * (n // len(other.values)), strict=True))
    return Known(tuple(_of_two(operation, a, b) for a, b in pairs), exact)


def _of_two(operation: str, a: float, b: float) -> float:
    a, b = (max(min(value, _BEYOND), -_BEYOND) for value in (a, b))
    if operation == "Pow":
        return _BEYOND if a > 1 and b * math.log2(a) > 62 else 0 if a == 0 and b < 0 else float(abs(a) ** b)
    if operation == "Div":
        return a // b if b else _BEYOND
    return {"Add": a + b, "Sum": a + b, "Mul": a * b, "Max": max(a, b), "Sub": a - b}[operation]
