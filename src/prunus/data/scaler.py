"""How are inputs brought to mean 0 and deviation 1, knowing the training examples only?

A table is scaled per feature, images per channel, and two-dimensional inputs as a whole. A feature that never changes
gets deviation 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prunus.core.errors import DataError
from prunus.data.sources.source import CHUNK_ROWS, Source, chunks

__all__ = ["Scaler"]


@dataclass(frozen=True, eq=False)
class Scaler:
    """Subtract ``mean`` and divide by ``deviation``.

    ``wide`` scalers were fitted on inputs that float32 can't tell apart: they take float64 as it is, others round it first.

    Shapes:
        Both broadcast against one input: ``(features,)``, ``(channels, 1, 1)``, ``(1, 1)`` or ``()``.

    >>> Scaler(torch.tensor([1.0]), torch.tensor([2.0]))(torch.tensor([[5.0]]))
    tensor([[2.]])
    """

    mean: Tensor
    deviation: Tensor
    wide: bool = False

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the scaled inputs, ``(n, *input_shape)``, float32 if they came as float64; ids (int64) as they are."""
        if inputs.dtype == torch.int64:
            return inputs
        if inputs.dtype == torch.float64 and not self.wide:
            inputs = inputs.float()
        scaled = (inputs - self.mean.to(inputs.device)) / self.deviation.to(inputs.device)
        return scaled.float() if scaled.dtype == torch.float64 else scaled

    def undo(self, values: Tensor) -> Tensor:
        """Return scaled values as they were before; ids (int64) were never scaled."""
        if values.dtype == torch.int64:
            return values
        return values * self.deviation.to(values.device) + self.mean.to(values.device)

    @property
    def scales(self) -> bool:
        """Whether it changes anything."""
        return bool((self.mean != 0).any() or (self.deviation != 1).any())

    @classmethod
    def fit_values(cls, values: Tensor) -> Scaler:
        """Return the scaler of single numbers, ``(n,)``; numbers that are all the same get deviation 1."""
        deviation = values.double().std(correction=0)
        return cls(values.double().mean().float(), deviation.float() if float(deviation) > 0 else torch.ones(()))

    @classmethod
    def identity(cls) -> Scaler:
        """Return the scaler that changes nothing."""
        return cls(torch.zeros(()), torch.ones(()))

    @classmethod
    def given(
        cls, shape: Sequence[int], *, scale: float = 1.0, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> Scaler:
        """Return the scaler that divides by ``scale``, subtracts ``mean`` and divides by ``std``: as image models state theirs.

        Args:
            shape: of one input. ``mean`` and ``std`` have one number, or one per channel ``(C, H, W)`` or feature ``(F,)``.

        Raises:
            DataError: there are neither one nor as many numbers.
        """
        n = shape[0] if len(shape) in (1, 3) else 1

        def wide(name: str, values: Sequence[float] | None, default: float) -> Tensor:
            numbers = torch.tensor([default] if values is None else list(values), dtype=torch.float64)
            if len(numbers) not in (1, n):
                what = {1: "features", 3: "channels"}.get(len(shape), "inputs")
                raise DataError(
                    f"data.{name}: expected 1 number or {n}, one for each of the {what}: got {len(numbers)}"
                )
            numbers = numbers.float()
            return numbers.squeeze(0) if len(numbers) == 1 else numbers.reshape(-1, *[1] * (len(shape) - 1))

        # Rounded once, as a product: x / 255 is the nearest number to the quotient, and so is (x - 0) / 255.
        return cls(wide("mean", mean, 0.0) * scale, wide("std", std, 1.0) * scale)

    @classmethod
    def fit(cls, source: Source, rows: Tensor, *, chunk_rows: int = CHUNK_ROWS) -> Scaler:
        """Return the scaler of some rows, from one pass in double precision (population deviation)."""
        shape = tuple(source.input_shape)
        over = tuple(range(1, len(shape))) if len(shape) != 2 else (0, 1)
        statistics = torch.zeros(shape, dtype=torch.float64).sum(over, keepdim=True) if over else torch.zeros(shape)
        mean = torch.zeros_like(statistics, dtype=torch.float64)
        squares, low, high = torch.zeros_like(mean), torch.full_like(mean, torch.inf), torch.full_like(mean, -torch.inf)
        axes = (0, *(axis + 1 for axis in over))
        count, wide = 0.0, False
        for _, values in chunks(source, rows, chunk_rows):
            wide = wide or values.dtype == torch.float64
            part = values.double()
            n = part.numel() / max(mean.numel(), 1)
            part_mean = part.mean(axes, keepdim=True)
            part_squares = (part - part_mean).square().sum(axes, keepdim=True)[0]
            delta = part_mean[0] - mean
            # Chan et al.'s merge of two means and sums of squares: no large numbers are subtracted from each other.
            mean = mean + delta * n / (count + n)
            squares = squares + part_squares + delta.square() * count * n / (count + n)
            count += n
            low, high = (
                torch.minimum(low, part.amin(axes, keepdim=True)[0]),
                torch.maximum(high, part.amax(axes, keepdim=True)[0]),
            )
        constant = low == high
        deviation = (squares / max(count, 1.0)).sqrt().float()
        # A deviation that float32 can't hold is as good as none.
        return cls(
            mean.float(),
            torch.where(
                constant | (deviation < torch.finfo(torch.float32).tiny), torch.ones_like(deviation), deviation
            ),
            wide,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; they read back exactly."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()} | (
            {"wide": True} if self.wide else {}
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Scaler:
        """Return the scaler that ``to_dict`` wrote.

        Raises:
            DataError: a value is missing, isn't finite, or the deviation isn't positive.
        """
        try:
            mean, deviation = (torch.tensor(values[key], dtype=torch.float32) for key in ("mean", "deviation"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a scaler has numbers for mean and deviation, got {_shown(values)}") from error
        if (
            mean.shape != deviation.shape
            or not mean.isfinite().all()
            or not (deviation.isfinite() & (deviation > 0)).all()
        ):
            raise DataError(f"a scaler has a finite mean and a positive deviation of one shape, got {_shown(values)}")
        return cls(mean, deviation, values.get("wide") is True)


def _shown(values: Mapping[str, Any] | Sequence[Any]) -> str:
    text = repr(values)
    return text if len(text) <= 80 else f"{text[:77]}..."
