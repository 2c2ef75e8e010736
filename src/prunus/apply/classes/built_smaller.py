"""What does another config build with the weights of a sliced model, as ``from_pretrained`` would?"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from torch import nn

from prunus.apply.classes.config_settings import at, changed
from prunus.apply.classes.configs import built_again
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
    """Return what ``config`` builds, with the tensors of ``sliced`` and all else that it holds; None where they don't fit."""
    built = built_again(sliced, config)
    if built is None:
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
