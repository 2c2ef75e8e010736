"""How do the largest model and the smaller ones inside it learn at once?

A smaller size has no matrices but slices of the largest's, taken anew at each step, so that its gradients reach them; what is left
to itself are its vectors: norms, whose statistics differ with the width, and biases, which would cost as many bytes as positions.

References:
    Yu et al., Slimmable neural networks, ICLR 2019, arXiv:1812.08928 (norms of their own for each width). There each step adds up
    the gradients of all widths; here they take turns, which gives the weights as many more steps for the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from prunus.core.calls import arguments
from prunus.recover.training.turns import InTurns

__all__ = ["SharedSizes", "Taken", "sliced"]

Taken = Mapping[str, tuple[Tensor | None, ...]]
"""By a parameter's name: which positions of the largest model's it is made of, along each dimension (None: all)."""


class SharedSizes(InTurns):
    """The largest model, and smaller ones that take their weights from it; calling it is calling the largest.

    Turns go by the steps of an optimizer, however many batches one is worth: the first is the largest's.

    Args:
        largest: holds the weights.
        smaller: models of other widths, with what each takes; their other parameters are their own.
    """

    def __init__(self, largest: nn.Module, smaller: Sequence[tuple[nn.Module, Taken]]) -> None:
        super().__init__()
        self.largest = largest
        self.smaller = nn.ModuleList(model for model, _ in smaller)
        self._taken = [dict(taken) for _, taken in smaller]
        for model, taken in zip(self.smaller, self._taken, strict=True):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name not in taken and parameter.requires_grad)

    @property
    def n_turns(self) -> int:
        """How many sizes there are, with the largest."""
        return 1 + len(self.smaller)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return the largest model's answer."""
        return self.largest(*inputs, **named)

    def answer(self, size: int, inputs: Any) -> Any:
        """Return what a size answers, 0 the largest; gradients go to the weights that are shared."""
        given, named = arguments(inputs if isinstance(inputs, (tuple, Mapping)) else (inputs,))
        if size == 0:
            return self.largest(*given, **named)
        return functional_call(self.smaller[size - 1], self.weights(size), given, dict(named))

    def weights(self, size: int) -> dict[str, Tensor]:
        """Return the weights that a smaller size takes from the largest, as they are now."""
        held = dict(self.largest.named_parameters())
        return {name: sliced(held[name], places) for name, places in self._taken[size - 1].items()}

    @torch.no_grad()
    def hand_out(self) -> list[nn.Module]:
        """Return all sizes, the largest first, each with the weights that it has now; they go on learning together."""
        for size, model in enumerate(self.smaller, start=1):
            parameters = dict(model.named_parameters())
            for name, value in self.weights(size).items():
                parameters[name].copy_(value)
        return [self.largest, *self.smaller]

    def settle(self) -> None:
        """Give every smaller model, for itself, the weights that it takes: they learn together no more."""
        learn = {name: value.requires_grad for name, value in self.largest.named_parameters()}
        self.hand_out()
        for model, taken in zip(self.smaller, self._taken, strict=True):
            for name, parameter in model.named_parameters():
                if name in taken:
                    parameter.requires_grad_(learn[name])


def sliced(value: Tensor, places: Sequence[Tensor | None]) -> Tensor:
    """Return the positions of a tensor along each of its dimensions.

    >>> sliced(torch.arange(6).view(2, 3), (None, torch.tensor([0, 2]))).tolist()
    [[0, 2], [3, 5]]
    """
    for dim, index in enumerate(places):
        if index is not None:
            value = value.index_select(dim, index.to(value.device))
    return value
