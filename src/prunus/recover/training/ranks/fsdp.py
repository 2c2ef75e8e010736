"""How is a model trained that each process holds a part of only (FSDP2)?

A copy is sharded in place: the outermost blocks of lists and sequences each for themselves, the rest at the root. Rank 0 gets the
whole state after every epoch, in the model that was handed over; so whoever looks on, keeps or decides sees a plain model.

References:
    ``torch.distributed.fsdp.fully_shard``; Zhao et al., VLDB 2023, arXiv:2304.11277.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.core.errors import ModelError, RecipeError
from prunus.core.recipes.recipe import Train
from prunus.core.runtime import device_of
from prunus.core.structures.tensor_parts import is_sharded, local, part_like
from prunus.recover.training.ranks.together import Together

if TYPE_CHECKING:
    from prunus.recover.training.ranks.meeting import Meeting

__all__ = ["Sharded", "blocks_of", "check_shards"]

_LISTS = (nn.ModuleList, nn.Sequential)


class Sharded(Together):
    """One of several processes that hold a part of the model each."""

    sharded = True

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(meeting)
        self.scale = float(self.n_ranks)  # gradients come as the mean over the processes
        self._own: list[nn.Parameter] = []
        self._whole: dict[int, nn.Parameter] = {}

    def shard(self, model: nn.Module) -> None:
        """Leave a part of every parameter here, in place.

        Raises:
            ModelError: the model can't be sharded.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device_of(model).type, (self.n_ranks,))
        kinds = {parameter.dtype for parameter in model.parameters()}
        if len(kinds) > 1:
            raise ModelError(
                f"runtime.sharding fsdp needs parameters of one type: got {', '.join(sorted(map(str, kinds)))}; use ddp"
            )
        for block in blocks_of(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def parts(self, parameters: Sequence[nn.Parameter]) -> Sequence[nn.Parameter]:
        """Return plain tensors that share the memory of what lies here: an optimizer goes number by number."""
        self._own = [nn.Parameter(local(parameter).detach()) for parameter in parameters]
        self._whole = dict(zip(map(id, self._own), parameters, strict=True))
        return self._own

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Hand the gradients on, which the backward pass added up."""
        for own in self._own:
            sharded = self._whole[id(own)]
            own.grad = None if sharded.grad is None else local(sharded.grad)
            sharded.grad = None

    def gather(self, model: nn.Module, optimizer: Optimizer | None, average: dict[str, Any]) -> dict[str, Any]:
        """Return the whole state on rank 0, on the CPU; the others take part and get nothing that is of use."""
        found: dict[str, Any] = {"model": {name: self._kept(value) for name, value in model.state_dict().items()}}
        if average:
            wholes = [self._joined(part, own) for part, own in zip(average["averages"], self._own, strict=True)]
            average = {**average, "averages": wholes}
        found["average"] = average
        found["optimizer"] = None
        if optimizer is not None:
            state = optimizer.state_dict()
            moved = _moved_by(optimizer)
            entries = {
                number: {
                    key: self._joined(value, moved[number]) if _is_part(value, moved[number]) else value
                    for key, value in entry.items()
                }
                for number, entry in state["state"].items()
            }
            found["optimizer"] = {**state, "state": entries}
        return found

    def spread(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """Return of a whole state what belongs to the parts that lie here."""
        average = state["average"]
        if average:
            pairs = zip(average["averages"], self._own, strict=True)
            average = {**average, "averages": [part_like(whole, self._whole[id(own)]) for whole, own in pairs]}
        kept = state["optimizer"]
        if kept is not None:
            moved = [self._whole[id(own)] for own in _moved_by(optimizer)]
            entries = {
                number: {
                    key: part_like(value, moved[number]) if _is_part(value, moved[number]) else value
                    for key, value in entry.items()
                }
                for number, entry in kept["state"].items()
            }
            kept = {**kept, "state": entries}
        return {**state, "average": average, "optimizer": kept}

    def _joined(self, part: Tensor, own: nn.Parameter) -> Tensor | None:
        from torch.distributed.tensor import DTensor

        like: Any = self._whole[id(own)]
        whole = DTensor.from_local(
            part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        found: Tensor | None = self._kept(whole)
        return found

    def _kept(self, value: Any) -> Any:
        if not is_sharded(value):
            return value
        whole: Tensor = value.full_tensor()
        return whole.cpu() if self.rank == 0 else None


def _moved_by(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return the parameters in the order in which an optimizer's state counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _is_part(value: Any, own: Tensor) -> bool:
    """Return whether a value of an optimizer's state has a number for each of a parameter's."""
    return isinstance(value, Tensor) and value.dim() > 0 and value.shape == own.shape


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the outermost entries of lists and sequences with parameters that nothing outside of them shares."""
    uses = Counter(
        id(value) for module in model.modules() for value in module._parameters.values() if value is not None
    )
    found: list[nn.Module] = []
    inside: set[int] = set()
    for container in model.modules():
        if id(container) in inside or not isinstance(container, _LISTS):
            continue
        for child in container.children():
            own = Counter(
                id(value) for module in child.modules() for value in module._parameters.values() if value is not None
            )
            if own and all(uses[name] == n for name, n in own.items()) and not isinstance(child, nn.ModuleList):
                found.append(child)
                inside |= {id(module) for module in child.modules()}
    return found


def check_shards(config: Train, on_optimizer: Any, stage: str) -> None:
    """Refuse what needs whole parameters beside the step.

    Raises:
        RecipeError: it names what, and what to do.
    """
    if config.precision == "float16":
        raise RecipeError(f"{stage}: runtime.sharding fsdp doesn't scale losses: got precision float16; use bfloat16")
    owner = getattr(on_optimizer, "__self__", on_optimizer)
    if on_optimizer is not None and not getattr(owner, "shards", False):
        raise RecipeError(
            f"{stage}: {type(owner).__name__} looks at whole parameters, of which runtime.sharding fsdp leaves a part on each "
            "rank: use sharding: ddp"
        )
