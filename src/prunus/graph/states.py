"""What are a model's tensors called, and how does it run on others in their place?

A tied tensor has one name: the first. A module that is registered under two names is one module: torch's own functional call
swaps its tensors twice and restores the wrong ones, so this is done here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

__all__ = ["canonical_states", "running_on"]


def canonical_states(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters, then buffers, by their first name; a tied tensor comes once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@contextmanager
def running_on(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Let ``model`` hold ``values`` (by canonical name) for a block, wherever the tensors of that name are tied."""
    new = {id(tensor): values[name] for name, tensor in canonical_states(model).items() if name in values}
    held: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    try:
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None and id(tensor) in new:
                        held.append((tensors, name, tensor))  # type: ignore[arg-type]
        for tensors, name, tensor in held:
            tensors[name] = new[id(tensor)]
        yield
    finally:
        for tensors, name, tensor in held:
            tensors[name] = tensor
