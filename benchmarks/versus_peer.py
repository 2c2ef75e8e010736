"""What does torch-pruning make of a model, wired as its own examples do it, and what did it leave of each layer?

``prune_timm_vit.py`` has two modes: every width with one ratio (``uniform``), and the inner widths alone (``bottleneck``: what
leads back to the residual stream is left whole). ``reproduce/main.py --global-pruning`` ranks all channels of a convolutional net
at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

MODES = {"resnet": ("global",), "vit": ("uniform", "bottleneck")}
STEPS = 7


def nearest_ratio(cut: Callable[[float], Any], share_of: Callable[[Any], float], share: float) -> float:
    """Return the ratio at which a cut leaves the cost nearest to ``share``, by bisection."""
    low, high, best = 0.0, 1.0, (float("inf"), 0.0)
    for _ in range(STEPS):
        ratio = (low + high) / 2
        left = share_of(cut(ratio))
        best = min(best, (abs(left / share - 1), ratio))
        low, high = (ratio, high) if left > share else (low, ratio)
    return best[1]


def gathered(model: Any, calibration: Any) -> list[Any]:
    """Return the gradients of the loss on the calibration examples, as the examples of torch-pruning sum them up."""
    from torch.nn.functional import cross_entropy

    model = copy.deepcopy(model)
    for batch in calibration.batches(64):
        cross_entropy(model(batch.inputs), batch.targets).backward()
    return [parameter.grad for parameter in model.parameters()]


def peer_cut(
    dense: Any,
    calibration: Any,
    criterion: str,
    mode: str,
    ratio: float,
    gradients: list[Any] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Return what torch-pruning leaves of ``dense``, and which outputs of each layer those are."""
    import torch
    import torch_pruning

    model = copy.deepcopy(dense).eval()
    taylor = criterion == "taylor"
    importance = (
        torch_pruning.importance.GroupTaylorImportance if taylor else torch_pruning.importance.GroupMagnitudeImportance
    )
    heads = [m for m in model.modules() if hasattr(m, "qkv")]
    ignored = [model.head if heads else model.fc]
    if mode == "bottleneck":
        ignored += [m.fc2 for m in model.modules() if hasattr(m, "fc2")]
    pruner = torch_pruning.pruner.MetaPruner(
        model,
        next(iter(calibration.batches(1))).inputs,
        importance=importance() if taylor else importance(p=2),
        global_pruning=mode == "global",
        pruning_ratio=ratio,
        ignored_layers=ignored,
        num_heads={m.qkv: m.num_heads for m in heads},
    )
    if taylor:
        for parameter, gradient in zip(model.parameters(), gradients or gathered(model, calibration), strict=True):
            parameter.grad = gradient.clone()
    kept = _kept_outputs(model, pruner.step(interactive=True))
    for m in heads:
        m.num_heads = pruner.num_heads[m.qkv]
        m.head_dim = m.qkv.out_features // (3 * m.num_heads)
        m.attn_dim = m.qkv.out_features // 3
    model.zero_grad()
    with torch.no_grad():
        model(next(iter(calibration.batches(2))).inputs)
    return model, kept


def _kept_outputs(model: Any, groups: Any) -> dict[str, Any]:
    """Carry out a step and return, by layer, which of the outputs it had at first it still has."""
    import torch
    from torch import nn
    from torch_pruning import function

    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm2d
    names = {module: name for name, module in model.named_modules() if isinstance(module, kinds)}
    kept = {name: torch.arange(model.get_submodule(name).weight.shape[0]) for name in names.values()}
    makes = (
        function.prune_conv_out_channels,
        function.prune_linear_out_channels,
        function.prune_batchnorm_out_channels,
    )
    for group in groups:
        gone: dict[str, Any] = {}
        for dependency, positions in group:
            if dependency.handler in makes and dependency.target.module in names:
                gone.setdefault(names[dependency.target.module], set()).update(positions)
        group.prune()
        for name, positions in gone.items():
            stays = [place for place in range(len(kept[name])) if place not in positions]
            kept[name] = kept[name][stays]
    sizes = {name: model.get_submodule(name).weight.shape[0] for name in kept}
    assert all(len(kept[name]) == size for name, size in sizes.items()), "an output went without being seen"
    return kept


def adjusted(model: Any, dense: Any, calibration: Any, kept: Mapping[str, Any], kinds: tuple[str, ...]) -> Any:
    """Return a model of torch-pruning's with the adjustment that prunus offers for its own cuts."""
    from prunus.recover import adjust

    adjust(model, copy.deepcopy(dense), calibration, kinds, kept=dict(kept))
    return model
