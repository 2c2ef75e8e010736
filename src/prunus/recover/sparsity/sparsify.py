"""How does training drive what isn't needed to exact zero?

A penalty with a kink at zero (L1, group lasso) is not left to gradients, which would only hover around zero: after each
optimizer step its proximal operator is applied in closed form, with the step's learning rate times the strength as threshold.

References:
    Parikh and Boyd, Proximal Algorithms, 2014 (chapter 6.5). Under AdamW the step isn't a plain gradient step, and the
    operator is applied in the plain metric all the same, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase

from prunus.core.errors import ModelError
from prunus.core.structures.tensor_parts import local
from prunus.recover.sparsity.gates import HardConcrete
from prunus.recover.sparsity.penalty import Penalty

if TYPE_CHECKING:
    from prunus.graph import Group

__all__ = ["ProximalGroup", "ProximalL1", "ProximalScale", "norm_scale_names", "sparsity_step"]

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def sparsity_step(
    model: nn.Module,
    *,
    kind: Literal["l1", "bn_scale", "l0"],
    names: Sequence[str] = (),
    groups: Sequence[Group] = (),
    strength: float,
    seed: int = 0,
) -> Penalty:
    """Return the penalty for ``kind``: on the scales of norm layers, or L1 or L0, by group if there are ``groups``, else by weight.

    ``seed`` is for the random gates of L0.

    Raises:
        ModelError: nothing to penalise.
    """
    if kind == "l0":
        return HardConcrete(model, names, groups, strength, seed=seed)
    if kind == "bn_scale":
        return ProximalScale(model, groups, strength)
    return ProximalGroup(model, groups, strength) if groups else ProximalL1(model, names, strength)


class ProximalL1(Penalty):
    """Soft-threshold single weights: ``w -> sign(w) max(|w| - t, 0)``, the proximal operator of ``t |w|``."""

    shards = True

    def __init__(self, model: nn.Module, names: Sequence[str], strength: float) -> None:
        self.model, self.names, self.strength = model, tuple(names), strength
        if not self.weights:
            raise ModelError("an L1 penalty needs at least one weight: got none; exclude less")

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is penalised, as it lies in the model now."""
        return [_parameter(self.model, name) for name in self.names]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every weight towards zero, and no further."""
        threshold = learning_rate * self.strength
        for weight in self.weights:
            own = local(weight)
            own.copy_(functional.softshrink(own, threshold))


class ProximalGroup(Penalty):
    """Soft-threshold whole units: the vector ``w`` of all weights of a unit becomes ``w max(0, 1 - t sqrt(n) / |w|)``.

    This is the proximal operator of ``t sqrt(n) |w|``, where ``n`` is the unit's number of weights, so that wide and narrow
    layers are treated alike. A weight that lies in two groups (the output of one layer and the input of the next) is shrunk
    for the one and then for the other, which is not the exact operator of the sum of both penalties.

    References:
        Yuan and Lin, JRSS B 2006 (the group lasso and its factor sqrt(n)).
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group], strength: float) -> None:
        self.strength = strength
        self.groups = [_Slices(model, group) for group in groups]
        if not any(group.members for group in self.groups):
            raise ModelError("a group penalty needs at least one group with parameters: got none; exclude less")

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Shrink the units' norms, and set the units whose norm is below the threshold to zero."""
        for group in self.groups:
            group.shrink(learning_rate * self.strength)


class _Slices:
    """The parameters of one group and where each unit lies in them."""

    def __init__(self, model: nn.Module, group: Group) -> None:
        self.size = group.size
        self.members: list[tuple[Tensor, int, Tensor]] = []
        n_weights = 0
        for member in group.members:
            if member.is_parameter:
                tensor = _parameter(model, member.tensor)
                self.members.append((tensor, member.dim, member.index.to(tensor.device)))
                n_weights += member.index.shape[1] * (tensor.numel() // tensor.shape[member.dim])
        self.factor = float(n_weights) ** 0.5

    def shrink(self, threshold: float) -> None:
        if not self.members:
            return
        squares = torch.zeros(self.size, device=self.members[0][0].device)
        for tensor, dim, index in self.members:
            per_position = (
                tensor.square().transpose(0, dim).flatten(start_dim=1).sum(dim=1)
                if tensor.ndim > 1
                else tensor.square()
            )
            squares += per_position[index].sum(dim=1)
        # A norm of zero stays zero whatever the factor is; the floor only avoids 0/0.
        scale = (1 - threshold * self.factor / squares.sqrt().clamp_min(1e-30)).clamp_min(0)
        for tensor, dim, index in self.members:
            along = torch.ones(tensor.shape[dim], device=tensor.device, dtype=tensor.dtype)
            along[index] = scale.to(tensor.dtype).unsqueeze(1).expand(index.shape)
            shape = [1] * tensor.ndim
            shape[dim] = -1
            tensor.mul_(along.view(shape))


class ProximalScale(Penalty):
    """Soft-threshold the scales (gammas) that norm layers give to the units of the groups.

    References:
        Liu et al., Network Slimming, ICCV 2017, arXiv:1708.06519. They take a subgradient step; this one is proximal, so scales
        become exactly zero.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Group], strength: float) -> None:
        self.strength = strength
        scales = norm_scale_names(model)
        found: dict[str, list[Tensor]] = {}
        for group in groups:
            for member in group.members:
                if member.tensor in scales:
                    found.setdefault(member.tensor, []).append(member.index.flatten())
        self.scales = [
            (_parameter(model, name), torch.unique(torch.cat(index))) for name, index in sorted(found.items())
        ]
        if not self.scales:
            raise ModelError(
                "a penalty on norm scales needs a batch, layer or group norm with a scale in a group that may be pruned: "
                "got none; use the criterion l1"
            )

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every scale towards zero, and no further."""
        threshold = learning_rate * self.strength
        for scale, index in self.scales:
            index = index.to(scale.device)
            scale[index] = functional.softshrink(scale[index], threshold)


def norm_scale_names(model: nn.Module) -> frozenset[str]:
    """Return the names of the scales of the model's norm layers, as ``named_parameters`` spells them.

    >>> sorted(norm_scale_names(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))))
    ['1.weight']
    """
    scales = {id(m.weight) for m in model.modules() if isinstance(m, _NORMS) and m.weight is not None}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in scales)


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    try:
        return model.get_parameter(name)
    except AttributeError as error:
        raise ModelError(
            f"the model has no parameter {name!r} to penalise: use the names of named_parameters()"
        ) from error
