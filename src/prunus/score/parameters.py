"""Which parameters of a model may be pruned, and which of them are the scales of its normalisation layers?"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from prunus.score.effective import side_parameters

__all__ = ["norm_scales", "prunable_weights"]

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_TABLES = (nn.Embedding, nn.EmbeddingBag)


def prunable_weights(model: nn.Module, exclude: Sequence[str] = ()) -> list[str]:
    """Return the names of the parameters whose single weights may be set to zero, in the model's order.

    These are all floating-point parameters with at least two dimensions (linear, convolution, attention and recurrent weights,
    a user's own matrices), except: embeddings, which are tables to look up in and not maps; normalisation scales; broadcast
    tables (three or more dimensions, the first of size 1, held by no layer of torch's own), which are position or class tokens;
    and the lengths of ``weight_norm``, which belong to whole rows. Biases and scales have one dimension and stay: they are few
    and matter much.

    Args:
        model: not changed.
        exclude: patterns (fnmatch) of parameter or module names that stay as they are.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    >>> prunable_weights(net), prunable_weights(net, ["2"])
    (['0.weight', '2.weight'], ['0.weight'])
    """
    barred = {
        id(parameter)
        for name, owner, parameter in _owned(model)
        if _is_barred(owner, parameter) or _matches(name, exclude)
    }
    barred |= side_parameters(model)
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and parameter.is_floating_point() and id(parameter) not in barred
    ]


def norm_scales(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that scale channels in normalisation layers.

    >>> sorted(norm_scales(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))))
    ['1.weight']
    """
    scales = {
        id(parameter)
        for name, owner, parameter in _owned(model)
        if isinstance(owner, _NORMS) and parameter.dim() == 1 and name.rpartition(".")[2] == "weight"
    }
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in scales)


def _owned(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Yield every parameter with each of its names and the module that holds it under that name."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{prefix}.{name}" if prefix else name, module, parameter


def _is_barred(owner: nn.Module, parameter: nn.Parameter) -> bool:
    if isinstance(owner, (*_TABLES, *_NORMS)):
        return True
    own = type(owner).__module__.startswith("torch.nn.")
    return not own and parameter.dim() >= 3 and parameter.shape[0] == 1


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(each, pattern) for each in (name, name.rpartition(".")[0]) for pattern in patterns)
