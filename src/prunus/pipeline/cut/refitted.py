"""What do the layers that read some units make of the others, once they are fitted to do without them?

Second moments of a layer's inputs say in closed form which weights on the inputs that stay give what all gave. As a trial, with the
units set to zero, it tells how good a choice can become: zeros alone say little where much goes, since every way looks broken, and
an adjustment later makes good most of it for one and little for another. Around a cut it gives the smaller model such weights, also
where no layer's call could be refitted later (the projections inside of torch's attention).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from prunus.core.errors import RunError
from prunus.core.types import Bools
from prunus.graph import Group
from prunus.pipeline.cut.sensitivity import without
from prunus.pipeline.cut.unit_places import slices_at
from prunus.recover import reconstruct
from prunus.score import Evidence, Read, layers_reading

__all__ = ["refitted"]


@contextmanager
@torch.no_grad()
def refitted(
    model: nn.Module,
    groups: Sequence[Group],
    gone: Mapping[str, Bools],
    evidence: Evidence | None,
    *,
    zeroed: bool = True,
) -> Iterator[None]:
    """Refit the readers of the units that go, for a block; afterwards every number is what it was.

    Args:
        gone: which units go, by group; others stay whole.
        evidence: second moments and means of the readers' inputs; a reader without any keeps its weights, and all do with None.
        zeroed: set the units to zero, too: a trial, before anything is cut.
    """
    cut = [(group, gone[group.name]) for group in groups if group.name in gone and gone[group.name].any()]
    left: dict[str, tuple[Read, Tensor]] = {}
    shared = _shared(model)
    for group, units in cut if evidence is not None else ():
        assert evidence is not None
        for read in layers_reading(evidence, [member for member in group.members if member.is_parameter]):
            if read.name in shared:
                continue
            _, stays = left.setdefault(read.name, (read, torch.ones(read.weight.shape[1], dtype=torch.bool)))
            stays[read.columns[torch.from_numpy(units)].flatten()] = False
    parameters = dict(model.named_parameters())
    bias_of = {name: f"{name.removesuffix('weight')}bias" for name in left}
    before = {name: parameters[name].detach().clone() for name in (*left, *bias_of.values()) if name in parameters}
    places = [place for group, units in cut for place in slices_at(model, group, units)] if zeroed else []
    try:
        for name, (read, stays) in left.items():
            _refit(parameters[name], parameters.get(bias_of[name]), read, stays)
        with without(places) if places else nullcontext():
            yield
    finally:
        for name, values in before.items():
            parameters[name].copy_(values)


def _shared(model: nn.Module) -> set[str]:
    """Return the names of the weights that do something else, too: they are tied, or looked up."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name for key, tied in names.items() if len(tied) > 1 or key in looked_up for name in tied}


def _refit(parameter: nn.Parameter, bias: nn.Parameter | None, read: Read, stays: Tensor) -> None:
    """Write the weights on the inputs that stay; what the means lack goes to the bias, where there is one for each output."""
    shifts = bias is not None and bias.shape == (len(read.weight),)
    gram = read.gram - torch.outer(read.mean, read.mean) if shifts else read.gram
    old = read.weight.to(gram.dtype)  # the moments have more digits than half precision
    weight = old.clone()
    cross = weight[:, ~stays] @ gram[~stays][:, stays]
    try:
        weight[:, stays] += reconstruct(cross, gram[stays][:, stays])
    except RunError:  # inputs that hardly move around a large mean: rounding is all that their moments hold
        return
    if shifts and bias is not None:
        lacking = old - weight
        lacking[:, ~stays] = old[:, ~stays]
        bias.add_(lacking @ read.mean.to(gram.dtype))
    parameter.copy_(read.shaped(weight, parameter))
