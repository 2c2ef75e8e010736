"""How does training close gates, so that whole units leave by themselves (L0)?

Every unit has a gate z in [0, 1] that multiplies it. A gate is random while it is trained, in a way that has a gradient and is
often exactly 0 or 1 (hard concrete), and the penalty is the expected number of open gates. Between steps the model holds gated
weights; a step restores the weights themselves, carries the gradient through the gates, and gates anew. So the model's classes
never know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.core.errors import ModelError
from prunus.core.runtime import generator
from prunus.recover.sparsity.penalty import Penalty

if TYPE_CHECKING:
    from prunus.graph import Group

__all__ = ["HardConcrete"]

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
OPEN_AT_FIRST = 2.0
"""The start of log alpha: a gate that is closed in about 7 % of the draws."""
FASTER = 10.0
"""Gates learn with so many times the learning rate of the weights: from open to closed is far for a short training."""


@dataclass(frozen=True)
class _Gated:
    """A tensor, and for each of its numbers along ``dim`` (None: for each) the number of the gate; -1 has none."""

    weight: nn.Parameter
    dim: int | None
    gate: Tensor

    def spread(self, gates: Tensor) -> Tensor:
        """Return what the tensor is multiplied with."""
        found = torch.where(self.gate >= 0, gates[self.gate.clamp_min(0)], 1).to(self.weight.dtype)
        if self.dim is None:
            return found.view(self.weight.shape)
        shape = [1] * self.weight.dim()
        shape[self.dim] = -1
        return found.view(shape)

    def collect(self, gradient: Tensor, gates: Tensor) -> None:
        """Add the derivative by each gate: the sum of weight times gradient over what it multiplies."""
        product = (gradient * self.weight).double()
        if self.dim is not None:
            product = product.movedim(self.dim, 0).flatten(1).sum(dim=1) if product.dim() > 1 else product
        has = self.gate >= 0
        gates.index_add_(0, self.gate[has], product.flatten()[has].to(gates.dtype))


class HardConcrete(Penalty):
    """Gates on the units of ``groups`` (on the weights that read them), or, without groups, on single weights.

    After the training :meth:`finish` leaves the gates' most likely values in the weights: a closed unit is zero in all its members.

    Memory:
        A copy of what is gated, and three numbers per gate.
    References:
        Louizos et al., ICLR 2018, arXiv:1712.01312 (the distribution, its constants and the penalty). Gates multiply what reads a
        unit, not what makes it: a normalisation in between would undo the gate.
    """

    resumable = False

    def __init__(
        self, model: nn.Module, names: Sequence[str], groups: Sequence[Group], strength: float, *, seed: int = 0
    ) -> None:
        known = dict(model.named_parameters())
        self.strength = strength
        self._gated: list[_Gated] = []
        self._members: list[_Gated] = []
        n_gates = 0
        for group in groups:
            members = [m for m in group.members if m.is_parameter]
            readers = [m for m in members if m.dim > 0] or members
            for member in members:
                weight = known[member.tensor]
                gate = torch.full((weight.shape[member.dim],), -1, dtype=torch.int64, device=weight.device)
                units = torch.arange(group.size, device=weight.device).unsqueeze(1).expand(member.index.shape)
                gate[member.index.to(weight.device)] = units + n_gates
                gated = _Gated(weight, member.dim, gate)
                self._members.append(gated)
                if any(member is reader for reader in readers):
                    self._gated.append(gated)
            n_gates += group.size
        for name in () if groups else names:
            weight = known[name]
            numbers = torch.arange(weight.numel(), device=weight.device) + n_gates
            self._gated.append(_Gated(weight, None, numbers))
            n_gates += weight.numel()
        if not n_gates:
            raise ModelError("an L0 penalty needs at least one gate: got no weights and no groups; exclude less")
        device = self._gated[0].weight.device
        self.log_alpha = nn.Parameter(torch.full((n_gates,), OPEN_AT_FIRST, device=device))
        self._adam = torch.optim.Adam([self.log_alpha])
        self._draws = generator(seed, "recover", "hard concrete")
        self._own: list[tuple[nn.Parameter, Tensor]] = []
        self._noisy: Tensor = self.log_alpha

    @property
    def gates(self) -> Tensor:
        """The most likely value of each gate."""
        return self._stretched(torch.sigmoid(self.log_alpha.detach()))

    @property
    def expected_open(self) -> Tensor:
        """The probability of each gate to be other than zero; its sum is what is penalised."""
        return torch.sigmoid(self.log_alpha - TEMPERATURE * math.log(-LOW / HIGH))

    def attach(self, optimizer: Optimizer) -> None:
        """Gate the model from now on, and at each of ``optimizer``'s steps: give this to ``train`` as ``on_optimizer``."""
        self._gate()
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(lambda owner, args, kwargs: self._gate())

    def step(self, learning_rate: float) -> None:
        """Move the gates by their gradient and the penalty's."""
        (self.strength * self.expected_open.sum()).backward()  # type: ignore[no-untyped-call]
        self._adam.param_groups[0]["lr"] = FASTER * learning_rate
        self._adam.step()
        self._adam.zero_grad()

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the weights times their gates' most likely values."""
        self._restore()
        gates = self.gates
        for gated in self._gated:
            gated.weight.mul_(gated.spread(gates))
        for member in self._members:
            member.weight.mul_(member.spread((gates > 0).to(gates.dtype)))

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._restore()
        slope = torch.zeros_like(self._noisy)
        # First all slopes by the gates, with the gradients as they came; a weight may lie under two gates.
        factors: dict[nn.Parameter, list[tuple[_Gated, Tensor]]] = {}
        for gated in self._gated:
            if gated.weight.grad is not None:
                factor = gated.spread(self._noisy.detach())
                factors.setdefault(gated.weight, []).append((gated, factor))
        for weight, held in factors.items():
            assert weight.grad is not None
            for number, (gated, _) in enumerate(held):
                gradient = weight.grad
                for other, (_, factor) in enumerate(held):
                    if other != number:
                        gradient = gradient * factor
                gated.collect(gradient, slope)
        for weight, held in factors.items():
            assert weight.grad is not None
            for _, factor in held:
                weight.grad.mul_(factor)
        with torch.enable_grad():
            self._noisy.backward(slope)  # type: ignore[no-untyped-call]
            self.step(float(optimizer.param_groups[0]["lr"]))

    def _gate(self) -> None:
        """Draw the gates, and multiply the weights by them."""
        u = torch.rand(self.log_alpha.shape, generator=self._draws).clamp(1e-6, 1 - 1e-6).to(self.log_alpha.device)
        with torch.enable_grad():
            self._noisy = self._stretched(torch.sigmoid((u.log() - (-u).log1p() + self.log_alpha) / TEMPERATURE))
        with torch.no_grad():
            weights = {id(gated.weight): gated.weight for gated in self._gated}
            self._own = [(weight, weight.detach().clone()) for weight in weights.values()]
            for gated in self._gated:
                gated.weight.mul_(gated.spread(self._noisy.detach()))

    @torch.no_grad()
    def _restore(self) -> None:
        for weight, own in self._own:
            weight.copy_(own)
        self._own = []

    @staticmethod
    def _stretched(share: Tensor) -> Tensor:
        return (share * (HIGH - LOW) + LOW).clamp(0, 1)
