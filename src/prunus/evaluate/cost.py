"""What does a model cost: parameters, multiplications, memory?

MACs explain; they are no claim about speed. Speed is measured in ``latency``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["Cost", "measure_cost"]


@dataclass(frozen=True)
class Cost:
    """Sizes of one model; ``macs`` are multiply-adds of matrix products, convolutions and attention, for one example."""

    parameters: int
    nonzero_parameters: int
    macs: int
    memory_bytes: int

    def to_dict(self) -> dict[str, int]:
        """Return plain values for JSON."""
        return asdict(self)


def measure_cost(model: nn.Module, inputs: tuple[Any, ...]) -> Cost:
    """Return what ``model`` costs, counted while it runs once on ``inputs`` (whose first dimension is the batch)."""
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        # The fused attention fast path hides its products from the counter.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes.items():
            module.training = training
    batch = next((len(value) for value in inputs if isinstance(value, Tensor) and value.dim()), 1)
    return Cost(
        sum(p.numel() for p in parameters),
        sum(int(torch.count_nonzero(p)) for p in parameters),
        counter.get_total_flops() // (2 * batch),
        sum(t.numel() * t.element_size() for t in tensors),
    )
