"""Are a model's numbers numbers? Asked before anything is measured with them, so that the answer names what is spoilt."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from prunus.core.errors import ModelError

__all__ = ["check_values"]


def check_values(model: nn.Module) -> None:
    """Check that every parameter is finite; buffers may hold infinities, as attention masks do.

    Raises:
        ModelError: one isn't; the message names it.
    """
    for name, value in model.named_parameters():
        if is_lazy(value) or value.is_meta or not value.is_floating_point():
            continue
        values = value.detach() if value.element_size() > 1 else value.detach().float()
        if values.sum().isfinite():  # a tenth of the time, and only an overflow hides that all are finite
            continue
        n_bad = int((~values.isfinite()).sum())
        if n_bad:
            raise ModelError(
                f"the model's parameter {name!r} is NaN or infinite in {n_bad} of {value.numel()} values: these weights are "
                "spoilt, use an earlier checkpoint"
            )
