"""What goes into the weights of a model, and what comes out of them?

A :class:`WeightWatch` looks at every tensor operation of a forward pass and knows a weight by its memory, not by the layer that
holds it: linear layers, convolutions, attention's packed projections and a user's own ``x @ w`` are all the same case. It keeps
sums over examples and positions, never the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.score.criteria.criterion import OUTPUT_NEEDS, Need
from prunus.score.evidence.pieces import Sums, named, under
from prunus.score.evidence.statistics import Grams, Moments, Norms

__all__ = ["WeightWatch"]

_NONLINEAR = frozenset(
    (
        *(
            "relu",
            "relu6",
            "leaky_relu",
            "elu",
            "celu",
            "selu",
            "gelu",
            "silu",
            "mish",
            "softplus",
            "threshold",
            "clamp",
        ),
        *(
            "sigmoid",
            "tanh",
            "hardtanh",
            "hardswish",
            "hardsigmoid",
            "log_sigmoid_forward",
            "_prelu_kernel",
            "clamp_min",
        ),
    )
)
# What normalises each channel by itself; pointwise operations are known by ATen's own tag.
_NORMS = frozenset(
    (
        *("native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit"),
        *("_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm"),
    )
)


@dataclass
class _Output:
    """A weight's output on its way to a nonlinearity: as it was ``made``, and what pointwise operations have made of it ``now``."""

    name: str
    rows: slice
    made: tuple[Tensor, int]
    now: tuple[Tensor, int]


class WeightWatch(TorchDispatchMode):
    """Add up what ``needs`` names for the weights in ``parameters``; use it as a context around each forward pass."""

    def __init__(self, parameters: Mapping[str, Tensor], needs: Collection[Need]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights: dict[int, list[tuple[str, Tensor]]] = {}
        for name, parameter in parameters.items():
            if parameter.dim() > 1 and parameter.is_contiguous():
                self._weights.setdefault(_memory(parameter), []).append((name, parameter.detach()))
        self._norms = Norms() if "input_norm" in needs else None
        self._grams = Grams() if "inverse_gram" in needs else None
        self._moments = Moments(OUTPUT_NEEDS & set(needs)) if OUTPUT_NEEDS & set(needs) else None
        self._pending: dict[int, list[_Output]] = {}
        # Functions, not methods: a watch that held itself would hold its sums until Python looks for garbage.
        self._kind: dict[Any, Callable[..., Any] | None] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at it."""
        kwargs = kwargs or {}
        if func not in self._kind:
            self._kind[func] = self._looker(func)
        look = self._kind[func]
        if look is WeightWatch._follow:
            return self._follow(func, args, kwargs)
        out = func(*args, **kwargs)
        if look is not None:
            look(self, args, out)
        return out

    def __exit__(self, *problem: Any) -> Any:
        """Take the outputs that no nonlinearity followed as they were made."""
        pending, self._pending = self._pending, {}
        if problem[0] is None:
            for output in (output for held in pending.values() for output in held):
                self._record(output, made=True)
        return super().__exit__(*problem)  # type: ignore[no-untyped-call]

    def results(self, damping: float) -> dict[Need, dict[str, Tensor]]:
        """Return everything that was added up: by need and weight, each so that it broadcasts against the weight."""
        found: dict[Need, dict[str, Tensor]] = {}
        if self._norms is not None:
            found["input_norm"] = self._norms.results()
        if self._grams is not None:
            found["inverse_gram"] = self._grams.inverse_diagonals(damping)
        if self._moments is not None:
            found.update(self._moments.results())
        return found

    def sums(self) -> Sums:
        """Return everything that was added up, before any of it became a result."""
        return {name: value for what, one in self._counted() for name, value in named(what, one.sums()).items()}

    def join(self, sums: Sums) -> None:
        """Add what another watch has added up; its tensors are taken over."""
        for what, one in self._counted():
            one.join(under(what, sums))

    def _counted(self) -> list[tuple[str, Norms | Grams | Moments]]:
        held = (("norms", self._norms), ("grams", self._grams), ("moments", self._moments))
        return [(what, one) for what, one in held if one is not None]

    def grams(self) -> dict[str, Tensor]:
        """Return the mean outer products of each weight's inputs."""
        return {} if self._grams is None else self._grams.results()

    def means(self) -> dict[str, Tensor]:
        """Return the mean of each weight's inputs, where their outer products were asked for."""
        return {} if self._grams is None else self._grams.means()

    def _looker(self, func: Any) -> Callable[..., Any] | None:
        name = func.overloadpacket.__name__ if isinstance(func, torch._ops.OpOverload) else ""
        plain = name.rstrip("_") if not name.startswith("_") else name
        if name in ("mm", "addmm"):
            return WeightWatch._product
        if name == "convolution":
            return WeightWatch._convolution
        if self._moments is not None and (plain in _NONLINEAR or name in _NORMS or torch.Tag.pointwise in func.tags):
            return WeightWatch._follow
        return None

    def _product(self, args: Any, out: Tensor) -> None:
        """A matrix product in which one side is a weight, as it is, transposed, or some of its rows."""
        left, right = args[-2:]
        for given, weight, made, axis in ((left, right, out, 1), (right.t(), left.t(), out, 0)):
            for name, parameter in self._weights.get(_memory(weight), ()):
                found = _contracted(weight, parameter)
                if found is not None:
                    dim, rows = found
                    self._input(name, given, dim, parameter)
                    self._start(name, rows, made, axis, 1 - dim, parameter)
                    return

    def _convolution(self, args: Any, out: Tensor) -> None:
        given, weight, _, stride, padding, dilation, transposed, _, groups = args
        for name, parameter in self._weights.get(_memory(weight), ()):
            if parameter.shape == weight.shape:
                if self._norms is not None:
                    self._norms.add(name, given, 1, *_channels(parameter, groups, transposed))
                if self._grams is not None and not transposed:
                    self._grams.add_patches(name, given, parameter, stride, padding, dilation, groups)
                if not transposed or groups == 1:
                    self._start(name, slice(None), out, 1, 1 if transposed else 0, parameter)
                return

    def _input(self, name: str, given: Tensor, dim: int, parameter: Tensor) -> None:
        shape = tuple(n if d == dim else 1 for d, n in enumerate(parameter.shape))
        if self._norms is not None:
            self._norms.add(name, given, given.dim() - 1, shape, None)
        if self._grams is not None:
            self._grams.add(name, given, shape)

    def _start(self, name: str, rows: slice, made: Tensor, axis: int, dim: int, parameter: Tensor) -> None:
        if self._moments is not None:
            self._moments.expect(name, dim, parameter)
            output = _Output(name, rows, (made, axis), (made, axis))
            self._pending.setdefault(_memory(made), []).append(output)

    def _follow(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Go along with an operation on outputs that are waited for; behind a nonlinearity they are read."""
        followed: list[tuple[_Output, Tensor, int]] = []
        name = func.overloadpacket.__name__
        # An operation on each channel by itself follows its first operand only, one that joins two follows both.
        for value in args[:1] if name in _NORMS else args:
            if isinstance(value, Tensor):
                for output in self._pending.get(_memory(value), ()):
                    axis = _same_axis(value, *output.now)
                    if axis is not None:
                        followed.append((output, value, axis))
        changes = func._schema.is_mutable
        nonlinear = name.rstrip("_") in _NONLINEAR or name in _NONLINEAR
        if followed and changes and not nonlinear:
            for output, value, _ in followed:
                self._read_before(output, value)
        out = func(*args, **kwargs)
        result = out[0] if isinstance(out, tuple | list) else out
        for output, value, axis in followed:
            if isinstance(result, Tensor) and result.shape == value.shape:
                self._forget(output)
                output.now = (result, axis)
                if nonlinear:
                    self._record(output, made=False)
                else:
                    self._pending.setdefault(_memory(result), []).append(output)
        return out

    def _read_before(self, output: _Output, value: Tensor) -> None:
        """An output that is about to be overwritten is kept as it was made."""
        made, axis = output.made
        if _memory(made) == _memory(value):
            output.made = (made.clone(), axis)

    def _forget(self, output: _Output) -> None:
        for held in self._pending.values():
            held[:] = [other for other in held if other is not output]

    def _record(self, output: _Output, *, made: bool) -> None:
        assert self._moments is not None
        values, axis = output.made if made else output.now
        self._moments.add(output.name, values, axis, output.rows)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _contracted(operand: Tensor, parameter: Tensor) -> tuple[int, slice] | None:
    """Return over which dimension of ``parameter`` the product ``x @ operand`` sums, and which of its rows it reads."""
    if parameter.dim() != 2:
        return None
    n_rows, n_columns = parameter.shape
    offset = int(operand.storage_offset()) - int(parameter.storage_offset())
    first, rest = divmod(offset, n_columns)
    turned = operand.t()
    if turned.shape[1] == n_columns and rest == 0 and 0 <= first <= n_rows - turned.shape[0] and turned.is_contiguous():
        return 1, slice(first, first + turned.shape[0])
    if operand.shape == parameter.shape and offset == 0 and operand.is_contiguous():
        return 0, slice(None)
    return None


def _channels(
    parameter: Tensor, groups: int, transposed: bool
) -> tuple[tuple[int, ...], Callable[[Tensor], Tensor] | None]:
    """Return the shape in which a convolution's input channels broadcast against its weight, and how to bring them there."""
    ones = (1,) * (parameter.dim() - 2)
    if transposed:
        return (parameter.shape[0], 1, *ones), None
    if groups == 1:
        return (1, parameter.shape[1], *ones), None
    each = parameter.shape[0] // groups
    return (
        (parameter.shape[0], parameter.shape[1], *ones),
        lambda values: values.view(groups, -1).repeat_interleave(each, dim=0),
    )


def _same_axis(value: Tensor, now: Tensor, axis: int) -> int | None:
    """Return which dimension of ``value`` (a view of ``now``) is ``now``'s dimension ``axis``."""
    if value.shape == now.shape and value.stride() == now.stride():
        return axis
    size, stride = now.shape[axis], now.stride(axis)
    fits = (d for d in range(value.dim()) if value.shape[d] == size and value.stride(d) == stride)
    return next(fits, None) if value.numel() == now.numel() else None
