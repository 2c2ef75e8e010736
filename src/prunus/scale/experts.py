"""Which parameter holds a matrix for each expert, and what are the rows that each of them is multiplied with?

Mixtures of transformers stack their experts in one parameter, ``(experts, outputs, inputs)`` or ``(experts, inputs, outputs)``, and
no layer holds it. Found by watching the products that a forward pass runs: an operand that lies in the parameter's memory is
one expert (at an offset) or all of them, and its strides say which dimension is summed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.recover import Stacked

__all__ = ["Products", "stacked_in"]

See = Callable[[nn.Parameter, int, int, Tensor], None]
"""Takes a parameter, the dimension that is summed over, an expert's number and its rows of inputs, ``(rows, fan_in)``."""

_aten = torch.ops.aten


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tell ``see`` about every product of a block of code with a matrix that lies in one of ``weights``."""

    def __init__(self, weights: Sequence[nn.Parameter], see: See) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = {weight.untyped_storage().data_ptr(): weight for weight in weights}
        self.see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and look at its operands."""
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "_grouped_mm", "grouped_mm_fallback"):
            self._look(args[0], args[1], args[2] if len(args) > 2 else (kwargs or {}).get("offs"))
        elif name in ("addmm", "baddbmm"):
            self._look(args[1], args[2], None)
        elif name == "linear":
            self._look(args[0].reshape(-1, args[0].shape[-1]), args[1].mT, None)
        return func(*args, **(kwargs or {}))

    def _look(self, left: Tensor, right: Tensor, ends: Tensor | None) -> None:
        for rows, matrix in ((left, right), (right.mT, left.mT)):
            weight = self.weights.get(matrix.untyped_storage().data_ptr())
            if weight is None or matrix.dim() < 2:
                continue
            summed = next((dim for dim in (1, 2) if _runs_along(matrix, -2, weight, dim)), None)
            if summed is None or not _runs_along(matrix, -1, weight, 3 - summed):
                continue
            if matrix.dim() == 2:
                offset, each = matrix.storage_offset() - weight.storage_offset(), weight.stride(0)
                if offset % each == 0:
                    self.see(weight, summed, offset // each, rows)
            elif matrix.shape[0] == weight.shape[0]:
                for expert, mine in enumerate(_stretches(rows, ends)):
                    self.see(weight, summed, expert, mine)


def _runs_along(matrix: Tensor, dim: int, weight: Tensor, along: int) -> bool:
    return (matrix.shape[dim], matrix.stride(dim)) == (weight.shape[along], weight.stride(along))


def _stretches(rows: Tensor, ends: Tensor | None) -> Sequence[Tensor]:
    """Return each expert's rows: its own matrix of them, or those up to its end."""
    if ends is None:
        return rows.unbind()
    stops = ends.tolist()
    return [rows[start:stop] for start, stop in zip([0, *stops[:-1]], stops, strict=True)]


def stacked_in(weights: Mapping[str, nn.Parameter], run: Callable[[], object]) -> dict[str, Stacked]:
    """Return those of ``weights`` that ``run`` multiplies with, expert by expert, always summing over the same dimension."""
    summed: dict[int, set[int]] = {}

    def see(weight: nn.Parameter, dim: int, expert: int, rows: Tensor) -> None:
        summed.setdefault(id(weight), set()).add(dim)

    with Products(list(weights.values()), see):
        run()
    return {
        name: Stacked(weight, dims.pop())
        for name, weight in weights.items()
        if len(dims := set(summed.get(id(weight), ()))) == 1
    }
