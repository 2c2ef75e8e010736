"""What does another config build with the weights of a sliced model, as ``from_pretrained`` would?"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from prunus.apply.classes.config_settings import at, changed
from prunus.apply.classes.configs import NoDraws
from prunus.core.errors import raise_if_out_of_memory
from prunus.core.runtime import seeded
from prunus.graph import AxisGraph, Joint, Setting

__all__ = ["built_smaller", "cut_config", "with_share"]

_CARRIED = ("generation_config", "name_or_path")
"""What a model of transformers holds beside its config and its tensors, which its folder has, too."""


def with_share(config: Any, settings: Iterable[Setting], share: Fraction) -> Any:
    """Return a copy of ``config`` with a share of what it says in each of these settings."""
    for owner, name, place, _ in settings:
        held = vars(at(config, owner))[name]
        value = held if place is None else held[place]
        left = value * share
        config = changed(config, (owner, name, place), int(left) if type(value) is int else float(left))
    return config


def cut_config(config: Any, graph: AxisGraph, counts: Mapping[str, int]) -> Any | None:
    """Return what says that groups keep ``counts`` units; None where no setting does.

    Args:
        config: of the whole model.
        counts: by group; groups that aren't named stay whole.
    """
    sizes = {group.name: group.size for group in graph.groups}
    left = {name: Fraction(n, sizes[name]) for name, n in counts.items() if n != sizes[name]}
    for owner, name, place, value in {setting: None for joint in graph.joints for setting in joint.said}:
        config = changed(config, (owner, name, place), value)
    for joint in graph.joints:
        share = _share(joint, left)
        if share is None:
            return None
        if share != 1:
            config = with_share(config, joint.settings, share)
            left = {name: each for name, each in left.items() if name not in joint.groups}
    return None if left else config


def _share(joint: Joint, left: Mapping[str, Fraction]) -> Fraction | None:
    """Return the share that all groups of a joint keep; None where they don't keep the same, in whole steps."""
    shares = {left.get(name, Fraction(1)) for name in joint.groups}
    (share, *others) = shares
    return None if others or (share * joint.n_steps).denominator != 1 else share


def built_smaller(sliced: nn.Module, config: Any) -> nn.Module | None:
    """Return what ``config`` builds, with the tensors of ``sliced``; None where they don't fit.

    A constructor makes constants anew, so buffers must come out as they are.
    """
    device = next(sliced.parameters()).device
    try:
        with seeded(0, "built again"), NoDraws(), torch.device("meta" if device.type == "meta" else "cpu"):
            built: nn.Module = type(sliced)(copy.deepcopy(config)).to(device)
        for name, value in built.named_parameters():
            value.data = value.data.to(sliced.get_parameter(name).dtype)
        built.load_state_dict(sliced.state_dict(), strict=False)
    except (
        Exception
    ) as error:  # a size that doesn't fit, or whatever a constructor raises at a config that it doesn't like
        raise_if_out_of_memory(error)
        return None
    here, there = dict(sliced.named_buffers()), dict(built.named_buffers())
    if any(name not in there or not _same(value, there[name]) for name, value in here.items()):
        return None
    if dict(built.named_parameters()).keys() != dict(sliced.named_parameters()).keys():
        return None
    for name, value in built.named_parameters():
        value.requires_grad_(sliced.get_parameter(name).requires_grad)
    modes = {name: module.training for name, module in sliced.named_modules()}
    for name, module in built.named_modules():
        module.training = modes.get(name, sliced.training)
    for name in _CARRIED:
        if name in vars(sliced):
            setattr(built, name, copy.deepcopy(vars(sliced)[name]))
    return built


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and (one.is_meta or torch.equal(one, other))
