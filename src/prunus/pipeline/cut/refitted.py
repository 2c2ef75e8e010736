"""What would a model answer without some units, once the layers that read them are fitted to what is left? Tried without cutting.

Zeros alone say little where much goes: every way looks broken, and an adjustment later makes good most of it for one and little for
another. With the second moments that were gathered anyway the readers are refitted in closed form, each on the inputs of the whole
model, for as long as the trial lasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from prunus.core.types import Bools
from prunus.graph import Group
from prunus.pipeline.cut.sensitivity import without
from prunus.pipeline.cut.unit_places import slices_at
from prunus.recover import reconstruct
from prunus.score import Evidence, Read, layers_reading

__all__ = ["refitted"]


@contextmanager
@torch.no_grad()
def refitted(model: nn.Module, groups: Sequence[Group], gone: Mapping[str, Bools], evidence: Evidence | None) -> Iterator[None]:
    """Set the units of ``gone`` to zero for a block and refit their readers; afterwards every number is what it was.

    Args:
        gone: which units go, by group; others stay whole.
        evidence: second moments and means of the readers' inputs; a reader without any keeps its weights, and all do with None.
    """
    cut = [(group, gone[group.name]) for group in groups if group.name in gone and gone[group.name].any()]
    places = [place for group, units in cut for place in slices_at(model, group, units)]
    readers: dict[str, tuple[Read, torch.Tensor]] = {}
    for group, units in cut if evidence is not None else ():
        assert evidence is not None
        for read in layers_reading(evidence, [member for member in group.members if member.is_parameter]):
            _, left = readers.setdefault(read.name, (read, torch.ones(read.weight.shape[1], dtype=torch.bool)))
            left[read.columns[torch.from_numpy(units)].flatten()] = False
    biases = {name: model.get_parameter(name) for name, _ in model.named_parameters() if name.endswith("bias")}
    parameters = dict(model.named_parameters())
    held = {name: parameters[name] for name in readers} | {
        bias: biases[bias] for bias in map(_bias_of, readers) if bias in biases
    }
    before = {name: parameter.detach().clone() for name, parameter in held.items()}
    try:
        for name, (read, left) in readers.items():
            bias = biases.get(_bias_of(name))
            centred = bias is not None and len(bias) == len(read.weight)
            gram = read.gram - torch.outer(read.mean, read.mean) if centred else read.gram
            weight = torch.zeros_like(read.weight)
            cross = read.weight[:, ~left] @ gram[~left][:, left]
            weight[:, left] = read.weight[:, left] + reconstruct(cross, gram[left][:, left])
            if centred and bias is not None:
                bias += (read.weight - weight) @ read.mean
            parameters[name].copy_(read.shaped(weight, parameters[name]))
        with without(places):
            yield
    finally:
        for name, values in before.items():
            held[name].copy_(values)


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"
