"""What do a model's layers read, one layer after the other, while the layers before are being changed?

Each layer is seen when all before it are done: so it makes good what they couldn't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunus.core.calls import call
from prunus.recover.refit.formula import adds_its_bias, multiplies
from prunus.recover.refit.layer_inputs import (
    Moments,
    channel_dim,
    is_matrix_layer,
    matrices,
    observed,
    rows_in_parts,
    set_matrices,
)
from prunus.recover.refit.run_to_layer import Memory, Replay, Run, replayable

if TYPE_CHECKING:
    from prunus.data import Batch, Batched

__all__ = ["CallsDifferError", "Look", "compensate", "layers_in_order", "look", "moments_in_order", "pairs"]


Update = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Look:
    """How a layer was called: the shapes of its outputs, and what it was seen to compute, the same in every call."""

    module: nn.Module
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    multiplies: bool = True
    adds_its_bias: bool = True


class CallsDifferError(Exception):
    """A layer of the smaller model wasn't called as its counterpart was (a router chose differently, say)."""


@torch.no_grad()
def look(model: nn.Module, examples: Batched) -> dict[str, Look]:
    """Return the linear, convolutional, recurrent and batch norm layers that two examples call, in the order of their calls."""
    kinds = (nn.modules.conv._ConvNd, _BatchNorm)
    names = {m: name for name, m in model.named_modules() if is_matrix_layer(m) or isinstance(m, kinds)}
    found: dict[str, Look] = {}
    trying = False

    def see(module: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        nonlocal trying
        if trying:  # the layer's own trial isn't a call
            return
        seen = found.setdefault(names[module], Look(module))
        seen.shapes.append(tuple(outputs.shape))
        seen.multiplies = seen.multiplies and multiplies(module, inputs, outputs)
        trying = True
        seen.adds_its_bias = seen.adds_its_bias and adds_its_bias(module, inputs, outputs)
        trying = False

    def see_recurrent(module: Any, given: Any, outputs: Any) -> None:
        found.setdefault(named[module], Look(module, multiplies=False, adds_its_bias=False))

    named = {m: name for name, m in model.named_modules() if isinstance(m, nn.RNNBase)}
    handles = [module.register_forward_hook(see_recurrent) for module in named]
    model.eval()
    try:
        with observed(list(names), see):
            call(model, next(iter(examples.batches(2))).inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def layers_in_order(model: nn.Module, examples: Batched) -> dict[str, nn.Module]:
    """Return the layers that multiply their inputs with their weight, by name, in the order of their first calls."""
    return {name: seen.module for name, seen in look(model, examples).items() if seen.multiplies}


@torch.no_grad()
def moments_in_order(
    model: nn.Module, layers: Mapping[str, nn.Module], examples: Batched, *, batch_size: int = 256
) -> Iterator[tuple[str, nn.Module, Moments]]:
    """Yield each layer with the moments of its inputs, as the model stands when the layer's turn comes.

    Args:
        layers: in the order of their calls; change them between the turns.
        examples: the calibration set.
    """
    left = list(layers.values())
    replay = Replay(model, replayable(model, next(iter(examples.batches(2))).inputs), Memory()) if left else None
    for place, (name, layer) in enumerate(layers.items()):
        assert replay is not None
        moments, run = Moments.of(layer), replay.up_to(layer, left[place:])
        for batch in examples.batches(batch_size):
            for inputs, _ in _calls(run, layer, batch):
                for rows, _ in rows_in_parts(layer, inputs):
                    moments.add(rows)
        yield name, layer, moments


@dataclass(frozen=True)
class Pair:
    """One call of a layer and of its counterpart: what both read and gave, the counterpart's as far as it is left."""

    inputs: Tensor
    outputs: Tensor
    old_inputs: Tensor
    wanted: Tensor


@torch.no_grad()
def pairs(
    runs: tuple[Run, Run],
    layers: tuple[nn.Module, nn.Module],
    examples: Batched,
    *,
    kept: Tensor | None = None,
    folded: Tensor | None = None,
    batch_size: int = 256,
) -> Iterator[Pair]:
    """Yield every call of a layer in both models: the one that was cut, and the one before the cut.

    Args:
        runs: what runs each model on a batch, at least as far as the layer.
        layers: the layer in each of them.
        kept: which of the old outputs are left; None: all.
        folded: by what the outputs that are left were multiplied after the cut; None: by 1.

    Raises:
        CallsDifferError: the calls don't match.
    """
    for batch in examples.batches(batch_size):
        calls, before = (_calls(run, layer, batch) for run, layer in zip(runs, layers, strict=True))
        if len(calls) != len(before):
            raise CallsDifferError
        for (inputs, outputs), (old_inputs, wanted) in zip(calls, before, strict=True):
            place = channel_dim(layers[0], wanted.dim())
            if kept is not None:
                wanted = wanted.index_select(place, kept.to(wanted.device))
            if folded is not None:
                wanted = wanted * folded.reshape([-1] + [1] * (wanted.dim() - 1 - place)).to(wanted)
            if wanted.shape != outputs.shape:
                raise CallsDifferError
            yield Pair(inputs, outputs, old_inputs, wanted)


@torch.no_grad()
def compensate(
    model: nn.Module, masks: Mapping[str, Tensor], examples: Batched, update: Update, *, batch_size: int = 256
) -> list[str]:
    """Let the weights that stay make good what goes, layer by layer; return the weights for which it couldn't be done.

    Args:
        masks: True where a weight stays, by parameter name; the weights that go are set to zero by the caller.
        update: ``(weight, gram, mask) -> new weight`` of one matrix.
    """
    called = layers_in_order(model, examples)
    layers = {name: layer for name, layer in called.items() if f"{name}.weight".removeprefix(".") in masks}
    for name, layer, moments in moments_in_order(model, layers, examples, batch_size=batch_size):
        mask = matrices(layer, masks[f"{name}.weight".removeprefix(".")])
        new = [update(*parts) for parts in zip(matrices(layer), moments.mean_gram, mask, strict=True)]
        set_matrices(layer, torch.stack(new))
    done = {f"{name}.weight".removeprefix(".") for name in layers}
    return [name for name in masks if name not in done]


@torch.no_grad()
def _calls(run: Run, layer: nn.Module, batch: Batch) -> Sequence[tuple[Tensor, Tensor]]:
    """Return what the layer read and gave in one forward pass, as it was then: what follows may write over it."""
    seen: list[tuple[Tensor, Tensor]] = []
    with observed([layer], lambda module, given, result: seen.append((given.clone(), result.clone()))):
        run(batch)
    return seen
