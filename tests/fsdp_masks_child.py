"""One of two processes that train a masked model in parts for a hundred steps, and write what is left of the zeros.

Started as torchrun starts it, with a folder. ``WAYS`` are the masks of prunus and of ``torch.nn.utils.prune``, each before
``fully_shard`` and after it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import prune

from prunus.apply import Masks

STEPS, NAME = 100, "2.weight"
KEEP = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) >= 0.8


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3))


def shard(model: nn.Sequential) -> None:
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer)
    fully_shard(model)


def fit(model: nn.Module, guard: Callable[[torch.optim.Optimizer], None] = lambda _: None) -> None:
    """Take a hundred steps with all that brings a zero back: momentum, and other examples on each rank."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    guard(optimizer)
    draw = torch.Generator().manual_seed(dist.get_rank())
    inputs, targets = torch.randn(16, 4, generator=draw), torch.randint(0, 3, (16,), generator=draw)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def masks_first() -> nn.Module:
    model = net()
    masks = Masks(model, {NAME: KEEP})
    shard(model)
    fit(model, masks.guard)
    return model


def masks_then() -> nn.Module:
    model = net()
    shard(model)
    masks = Masks(model, {NAME: KEEP})
    fit(model, masks.guard)
    return model


def torch_first() -> nn.Module:
    model = net()
    prune.custom_from_mask(model[2], "weight", KEEP)
    shard(model)
    fit(model)
    return model


def torch_first_made_permanent_last() -> nn.Module:
    model = torch_first()
    prune.remove(model[2], "weight")
    return model


def torch_made_permanent_first() -> nn.Module:
    model = net()
    prune.custom_from_mask(model[2], "weight", KEEP)
    prune.remove(model[2], "weight")
    shard(model)
    fit(model)
    return model


def torch_then() -> nn.Module:
    model = net()
    shard(model)
    prune.custom_from_mask(model[2], "weight", KEEP)
    fit(model)
    return model


WAYS: dict[str, Callable[[], nn.Module]] = {
    "prunus, masks first": masks_first,
    "prunus, fully_shard first": masks_then,
    "torch, masks first": torch_first,
    "torch, masks first, made permanent at the end": torch_first_made_permanent_last,
    "torch, made permanent first": torch_made_permanent_first,
    "torch, fully_shard first": torch_then,
}


def whole(value: Any) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def looked_at(make: Callable[[], nn.Module]) -> dict[str, Any]:
    """Return what is left of the zeros, in the gathered state and in the part that lies here."""
    try:
        model = make()
    except (RuntimeError, TypeError) as error:
        return {"raised": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    gathered = {name: whole(value) for name, value in model.state_dict().items()}
    found: dict[str, Any] = {"names": sorted(name for name in gathered if name.startswith("2."))}
    if NAME in gathered:
        found["zeros"] = bool((gathered[NAME][~KEEP] == 0).all())
        found["the rest lives"] = bool(gathered[NAME][KEEP].all())
        held = model.get_parameter(NAME)
        rows = torch.arange(12).chunk(dist.get_world_size())[dist.get_rank()]
        found["zeros here"] = torch.equal(held.to_local() == 0, ~KEEP[rows])
        plain = net()
        plain.load_state_dict(gathered)
        inputs = torch.ones(2, 4)
        found["loads"] = torch.allclose(plain(inputs), model(inputs))
    else:
        layer = model.get_submodule("2")
        mask, original = gathered["2.weight_mask"], gathered["2.weight_orig"]
        found["stale"] = not torch.equal(layer.weight.detach(), mask * original)
        found["whole on each rank"] = list(layer.weight.shape)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {name: looked_at(make) for name, make in WAYS.items()}
    Path(sys.argv[1], f"rank {os.environ['RANK']}.json").write_text(json.dumps(found, indent=1))
    dist.destroy_process_group()
