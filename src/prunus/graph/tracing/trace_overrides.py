"""Which operations are traced as something else, and put back afterwards?

torch's shape function of ``_grouped_mm`` (experts that lie stacked in one weight) takes half precision only, the operation every
precision. And a recurrent layer unrolls into one set of operations for each position, for one length only; as one operation it
is traced at once, and the traced computation takes every length. torch's shape function of a batch norm does its arithmetic, step
by step, and resampling takes no symbols for sizes. A stand-in has the operation's signature, but only shapes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

__all__ = ["StandIns", "decompositions", "put_back"]

_NAME = "prunus_stand_in"
_GROUPED = "grouped_mm(Tensor self, Tensor mat2, Tensor? offs, Tensor? bias, ScalarType? out_dtype) -> Tensor"
_SETTINGS = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first"
)
_NORM = (
    "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, "
    "float momentum, float eps) -> (Tensor, Tensor, Tensor)"
)
_ORIGINALS = {"grouped_mm": "_grouped_mm.default", "batch_norm": "native_batch_norm.default"}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_ORIGINALS |= {name: f"{name}.input" for name in _RECURRENT}
_SMOOTH = ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d")
_RESAMPLED = (
    *_SMOOTH,
    *(f"_{name}_aa" for name in _SMOOTH if name.endswith("2d")),
    *(f"{name}{n}d" for name in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
)
_ORIGINALS |= {name: f"{name}.default" for name in _RESAMPLED}


@functools.cache
def _operations() -> Any:
    """Return the namespace of the stand-ins; it lives as long as the process."""
    library = torch.library.Library(_NAME, "DEF")  # type: ignore[no-untyped-call]
    shapes: dict[str, tuple[str, Callable[..., Any]]] = {
        "grouped_mm": (_GROUPED, _product),
        "batch_norm": (_NORM, _normalized),
        "lstm": (f"lstm(Tensor input, Tensor[] hx, {_SETTINGS}) -> (Tensor, Tensor, Tensor)", _sequence),
    }
    for name in ("gru", "rnn_tanh", "rnn_relu"):
        shapes[name] = (f"{name}(Tensor input, Tensor hx, {_SETTINGS}) -> (Tensor, Tensor)", _sequence)
    for name in _RESAMPLED:
        corners = "" if "nearest" in name else "bool align_corners, "
        scales = ", ".join(f"float? scale_{dim}" for dim in range(int(name.removesuffix("_aa")[-2])))
        shapes[name] = (f"{name}(Tensor input, SymInt[] output_size, {corners}{scales}) -> Tensor", _of_size)
    for name, (schema, shape) in shapes.items():
        library.define(schema)  # type: ignore[no-untyped-call]
        library.impl(name, shape, "Meta")  # type: ignore[no-untyped-call]
    namespace = getattr(torch.ops, _NAME)
    namespace.library = library  # what it defines goes when it goes
    return namespace


def _product(left: Tensor, right: Tensor, ends: Any = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """Rows in stretches against stacked matrices, as experts are."""
    return left.new_empty((*left.shape[:-1], right.shape[-1]), dtype=out_dtype or left.dtype)


def _normalized(given: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The result, and no statistics: evaluation keeps none."""
    return torch.empty_like(given), given.new_empty(0), given.new_empty(0)


def _sequence(given: Tensor, states: Tensor | Sequence[Tensor], params: Sequence[Tensor], *settings: Any) -> Any:
    """A result for every position, and the states after the last one."""
    held = [states] if isinstance(states, Tensor) else list(states)
    directions = 2 if settings[4] else 1
    result = given.new_empty((*given.shape[:-1], directions * held[0].shape[-1]))
    return result, *(torch.empty_like(state) for state in held)


def _of_size(given: Tensor, size: Sequence[int], *settings: Any) -> Tensor:
    """As many channels, of another size."""
    return given.new_empty((*given.shape[:2], *size))


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what the tracer should run in place of which operation."""
    stand_in = _operations().grouped_mm

    def grouped(left: Tensor, right: Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Any:
        return stand_in(left, right, offs, bias, out_dtype) if (left.dim(), right.dim()) == (2, 3) else NotImplemented

    return {torch.ops.aten._grouped_mm.default: grouped}


class StandIns(TorchFunctionMode):
    """Run whole recurrent layers and batch norms on fake tensors as one operation each."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the call where a stand-in takes it."""
        name = getattr(func, "__name__", "")
        if name in _RECURRENT and _is_plain(name, args):
            return getattr(_operations(), name)(*args)
        if func is nn.functional.batch_norm and isinstance(args[0], FakeTensor):
            return _batch_norm(*args, **(kwargs or {}))
        if func is nn.functional.interpolate and any(isinstance(size, torch.SymInt) for size in args[0].shape):
            return _resampled(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _is_plain(name: str, args: Sequence[Any]) -> bool:
    """Tell a layer over fake tensors from one over a packed sequence, whose second argument are batch sizes."""
    if len(args) != 9 or not isinstance(args[0], FakeTensor):
        return False
    return isinstance(args[1] if name == "lstm" else args[2], tuple | list)


def _batch_norm(
    given: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm``; in training, which looks at the batch, it keeps its own operations."""
    if training:
        return nn.functional.batch_norm(given, mean, variance, weight, bias, training, momentum, eps)
    made: Tensor = _operations().batch_norm(given, weight, bias, mean, variance, training, momentum, eps)[0]
    return made


def _resampled(
    given: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """``torch.nn.functional.interpolate`` by the operation that it comes to."""
    n_dims = given.dim() - 2
    if mode == "area":
        return nn.functional.interpolate(given, size, scale_factor, mode, align_corners, recompute_scale_factor)
    scales: list[float | None] = [None] * n_dims
    if size is not None:
        sizes = list(size) if isinstance(size, tuple | list) else [size] * n_dims
    else:
        factors = list(scale_factor) if isinstance(scale_factor, tuple | list) else [scale_factor] * n_dims
        sizes = [
            old * int(factor) if float(factor).is_integer() else math.floor(old * factor)
            for old, factor in zip(given.shape[2:], factors, strict=True)
        ]
        scales = scales if recompute_scale_factor else [float(factor) for factor in factors]
    kinds = {"nearest": "upsample_nearest", "nearest-exact": "_upsample_nearest_exact"}
    name = f"{kinds.get(mode, f'upsample_{mode}')}{n_dims}d"
    settings = [] if mode in kinds else [bool(align_corners)]
    made: Tensor = getattr(_operations(), f"_{name}_aa" if antialias else name)(given, sizes, *settings, *scales)
    return made


def put_back(graph_module: fx.GraphModule) -> None:
    """Write the operations themselves into a trace that was made with stand-ins."""
    stand_ins = [
        node
        for node in graph_module.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == _NAME
    ]
    for node in stand_ins:
        packet, _, overload = _ORIGINALS[node.target.overloadpacket.__name__].partition(".")
        node.target = getattr(getattr(torch.ops.aten, packet), overload)
    if stand_ins:
        graph_module.recompile()
