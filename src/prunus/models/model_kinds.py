"""Which kinds of model can be trained, cut and measured, and what is to be done about the others?"""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from prunus.core.errors import ModelError

__all__ = ["check_kind"]


def check_kind(model: nn.Module, *, any_precision: bool = False) -> None:
    """Refuse a model whose weights have no values, aren't single-precision numbers (unless ``any_precision``), or are packed.

    Raises:
        ModelError: it says which part is of what kind, and what to do.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"expected a model, an nn.Module: got {type(model).__name__}; build the model and load its weights (load_state_dict)"
        )
    for name, module in model.named_modules():
        if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            _refuse_quantized(f"the module {name!r} is a quantised {type(module).__name__}")
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        if is_lazy(tensor):
            raise ModelError(
                f"{name} has no shape yet (a lazy layer that saw no input): run the model once on an example, then hand it over"
            )
        if tensor.is_quantized:
            _refuse_quantized(f"{name} is {tensor.dtype}")
        if tensor.is_meta:
            raise ModelError(
                f"{name} has no values (it is on the meta device): load the weights first, or ask prunus.analyze what it could lose"
            )
    kinds = Counter(parameter.dtype for _, parameter in model.named_parameters())
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point() and not parameter.is_complex():
            _refuse_quantized(f"the parameter {name} holds {parameter.dtype}")
        other = parameter.dtype in (torch.bfloat16, torch.float16, torch.float64) and not any_precision
        if other or parameter.itemsize == 1:
            raise ModelError(
                f"the model's weights are {', '.join(str(kind) for kind in kinds)} ({name}): inputs, training and measuring are "
                "float32; hand over model.float(), and convert what comes out (train.precision: bfloat16 trains in that)"
            )


def _refuse_quantized(what: str) -> None:
    raise ModelError(
        f"{what}: packed weights can't be trained or cut; prune the float model first, then quantise the result"
    )


def kept_evaluating(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the outermost parts in evaluation mode inside of others in training mode: somebody put them there.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> kept_evaluating(model), kept_evaluating(model.eval())
    ((), ())
    >>> _ = model.train()[1].eval()
    >>> kept_evaluating(model)
    ('1',)
    """
    modes = {name: module.training for name, module in model.named_modules()}
    return tuple(name for name, mode in modes.items() if name and not mode and modes[name.rpartition(".")[0]])
