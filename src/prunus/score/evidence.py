"""What do the weights and the calibration examples say?

Everything that criteria ask for is gathered in one pass: the model stands in evaluation mode, nothing of it changes, and
gradients are means over examples, so that the batch size doesn't matter.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunus.core.errors import DataError, ModelError, RunError, near
from prunus.score.criteria import Need

if TYPE_CHECKING:
    from prunus.data import Batch, Examples

    Loss = Callable[[Tensor, Batch], Tensor]

__all__ = ["Evidence", "gather"]


@dataclass(frozen=True)
class Evidence:
    """What was gathered, by parameter name.

    Shapes:
        ``weight[name]`` and ``gradient[name]`` have the parameter's shape. Weights are views of the model's, not copies.
    """

    weight: Mapping[str, Tensor]
    gradient: Mapping[str, Tensor] = field(default_factory=dict)


def gather(
    model: nn.Module,
    names: Sequence[str],
    examples: Examples,
    loss: Loss,
    needs: Collection[Need],
    batch_size: int = 256,
) -> Evidence:
    """Return the weights of the parameters ``names``, and the mean gradient of ``loss`` if ``needs`` names it.

    Args:
        model: left as it was: mode, gradients and ``requires_grad`` too.
        names: as in ``model.named_parameters()``.
        examples: the calibration set.
        loss: ``(outputs, batch) -> scalar``, a mean over the batch.
        needs: of a criterion, or of several together.
        batch_size: how many examples go through the model at once; the result doesn't depend on it.

    Raises:
        ModelError: an unknown name, or a loss that has no gradient.
        DataError: gradients are needed and there are no examples.
        RunError: the loss isn't finite.
    """
    known = dict(model.named_parameters())
    for name in names:
        if name not in known:
            raise ModelError(f"the model has no parameter {name!r}; {near(name, known)}")
    parameters = {name: known[name] for name in names}
    weight = {name: parameter.detach() for name, parameter in parameters.items()}
    if "gradient" not in needs or not parameters:
        return Evidence(weight)
    return Evidence(weight, _mean_gradient(model, parameters, examples, loss, batch_size))


def _mean_gradient(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], examples: Examples, loss: Loss, batch_size: int
) -> dict[str, Tensor]:
    if len(examples) == 0:
        raise DataError("gradients need calibration examples: got none; raise data.split.calibration")
    wanted = tuple(parameters.values())
    # At least single precision: many small batches must not be lost in the rounding of one large sum.
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in wanted]
    reached = [False] * len(wanted)
    with _ready_for_gradients(model, wanted):
        for batch in examples.batches(batch_size):
            value = _checked(loss(model(batch.inputs), batch), batch)
            for i, gradient in enumerate(torch.autograd.grad(value, wanted, allow_unused=True)):
                if gradient is not None:  # a parameter that the outputs don't read doesn't move the loss
                    reached[i] = True
                    sums[i].add_(gradient, alpha=len(batch.targets))
    if not any(reached):
        raise ModelError(
            f"the loss has no gradient with respect to any of {len(wanted)} parameters ({next(iter(parameters))!r}, ...): "
            "the outputs must be computed from them by differentiable operations"
        )
    return {name: total.div_(len(examples)) for name, total in zip(parameters, sums, strict=True)}


def _checked(value: Tensor, batch: Batch) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value).__name__)
        raise ModelError(f"the loss must be one number, the mean over the batch: got {got}")
    if not value.requires_grad:
        raise ModelError(
            "the loss has no gradient: it was computed under no_grad, detached, or by an operation like argmax that isn't "
            "differentiable; use a criterion that needs no gradient, such as magnitude_l2, or another loss"
        )
    if not torch.isfinite(value.detach()).all():
        first = int(batch.index[0]) if len(batch.index) else 0
        raise RunError(
            f"the loss on the calibration batch that starts at example {first} must be finite: got {value.item()}; "
            "look for NaN in the weights or inputs"
        )
    return value.reshape(())


@contextmanager
def _ready_for_gradients(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Put the model in evaluation mode and let gradients flow to ``parameters``; restore everything after it."""
    modes = {module: module.training for module in model.modules()}
    required = [parameter.requires_grad for parameter in parameters]
    # cuDNN computes no gradient of a recurrent layer in evaluation mode; the plain kernels do.
    recurrent = any(isinstance(module, nn.RNNBase) for module in modes)
    try:
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(True)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent):
            yield
    finally:
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
        for module, training in modes.items():
            module.training = training
