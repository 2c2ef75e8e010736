"""What do a model's layers read, one layer after the other, while the layers before are being changed?

Each layer is seen when all before it are done: so it makes good what they couldn't.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunus.recover.layer_inputs import (
    Moments,
    input_rows,
    is_matrix_layer,
    matrices,
    observed,
    output_rows,
    set_matrices,
)

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["compensate", "layers_in_order", "moments_in_order"]


Update = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.no_grad()
def layers_in_order(model: nn.Module, examples: Examples) -> dict[str, nn.Module]:
    """Return the linear and convolutional layers that are called, by name, in the order of their first calls."""
    names = {module: name for name, module in model.named_modules() if is_matrix_layer(module)}
    found: dict[str, nn.Module] = {}

    def see(module: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        found.setdefault(names[module], module)

    model.eval()
    with observed(list(names), see):
        model(next(iter(examples.batches(2))).inputs)
    return found


def moments_in_order(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    examples: Examples,
    *,
    reference: nn.Module | None = None,
    kept: Mapping[str, Tensor] | None = None,
    folded: Mapping[str, Tensor] | None = None,
    batch_size: int = 256,
) -> Iterator[tuple[str, nn.Module, Moments]]:
    """Yield each layer with the moments of its inputs, as the model stands when the layer's turn comes.

    Args:
        layers: in the order of their calls; change them between the turns.
        examples: the calibration set.
        reference: another model with layers of these names; then the moments hold what the outputs lack against its outputs, too.
        kept: which of the reference's outputs a layer still has, by the layer's name; without an entry all of them.
        folded: by what a layer's outputs were multiplied after the cut, by the layer's name; without an entry by 1.
    """
    model.eval()
    for name, layer in layers.items():
        moments = Moments.of(layer)
        for batch in examples.batches(batch_size):
            calls = _calls(model, layer, batch.inputs)
            wanted = [] if reference is None else _calls(reference.eval(), reference.get_submodule(name), batch.inputs)
            for place, (inputs, outputs) in enumerate(calls):
                residual = None
                if reference is not None:
                    target = wanted[place][1]
                    if kept is not None and name in kept:
                        dim = 1 if hasattr(layer, "kernel_size") else -1
                        target = target.index_select(dim, kept[name].to(target.device))
                    if folded is not None and name in folded:
                        shape = [-1] + [1] * (target.dim() - 2 if hasattr(layer, "kernel_size") else 0)
                        target = target * folded[name].reshape(shape).to(target)
                    residual = output_rows(layer, target - outputs)
                moments.add(input_rows(layer, inputs), residual)
        yield name, layer, moments


@torch.no_grad()
def compensate(
    model: nn.Module, masks: Mapping[str, Tensor], examples: Examples, update: Update, *, batch_size: int = 256
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
def _calls(model: nn.Module, layer: nn.Module, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return what the layer read and gave in one forward pass."""
    seen: list[tuple[Tensor, Tensor]] = []
    with observed([layer], lambda module, given, result: seen.append((given, result))):
        model(inputs)
    return seen
