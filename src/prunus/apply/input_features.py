"""How is an input feature that is always the same cut out of a model for real?

A constant input is a bias: what the first layer makes of it is added to that layer's bias, and its columns go. The smaller model
still takes the whole input and picks the columns itself, so nothing around it changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunus.core.errors import ModelError, ShapeError, raise_if_out_of_memory
from prunus.core.runtime import device_of
from prunus.graph.tracing.states import duplicate

if TYPE_CHECKING:
    from prunus.graph import Member

__all__ = ["SelectInputs", "replace_features"]

_PROBES = 16
_TOLERANCE = 1e-4


class SelectInputs(nn.Module):
    """Give only some columns of the input to a model.

    >>> SelectInputs(nn.Identity(), torch.tensor([2, 0]))(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[3., 1.]])
    """

    kept: Tensor

    def __init__(self, inner: nn.Module, kept: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("kept", kept.to(torch.int64))

    def forward(self, inputs: Tensor) -> Any:
        """Return what the inner model makes of the kept columns of ``inputs``, ``(batch, features)``."""
        return self.inner(inputs.index_select(1, self.kept))


def replace_features(model: nn.Module, members: Sequence[Member], kept: Tensor, fill: Tensor) -> nn.Module:
    """Return a smaller model that equals ``model`` on inputs whose other columns are replaced by ``fill``.

    The columns may pass through anything that keeps them apart (dropout, activation, batch norm with its running statistics) before
    they meet a linear layer. That is checked, not assumed: on random probes each dropped column must reach the linear layers as
    a constant, and the smaller model's outputs must agree with the filled ones.

    Args:
        model: not changed.
        members: where the input's columns are found in the model: the members of the frozen axis ``input 0, dim 1``.
        kept: numbers of the columns that stay, ascending.
        fill: the value of every column, as the model sees it.

    Shapes:
        ``kept`` is ``(kept,)`` int64, ``fill`` is ``(features,)``.

    Raises:
        ShapeError: ``kept`` isn't an ascending list of columns, or ``fill`` doesn't fit ``members``.
        ModelError: the columns don't go to linear layers, are mixed before them, or the model has their number built in.
    """
    keep = _checked_columns(kept, fill, members)
    if bool(keep.all()):
        return model
    inner = duplicate(model)
    readers = _readers(inner, members)
    device = device_of(model)
    fill = fill.to(device)
    probes = fill + torch.randn(_PROBES, len(fill), generator=torch.Generator().manual_seed(0)).to(fill)
    filled = torch.where(keep.to(device), probes, fill)
    with _evaluating(model), _evaluating(inner), torch.no_grad():
        expected = _tensor(model(filled))
        for name, constant in _constants(inner, readers, keep, filled).items():
            _add_to_bias(readers[name][0], constant)
        _cut(inner, members, keep)
        narrow = SelectInputs(inner, torch.nonzero(keep).flatten().to(device))
        try:
            actual = _tensor(narrow(probes))
        except RuntimeError as error:
            raise_if_out_of_memory(error)
            raise ModelError(
                f"input features can't be cut: the model has their number ({len(fill)}) built in ({str(error).splitlines()[0]})"
            ) from error
    scale = max(1.0, float(expected.abs().max()))
    if actual.shape != expected.shape or not float((actual - expected).abs().max()) <= _TOLERANCE * scale:
        raise ModelError(
            "input features can't be cut: without them the model's outputs differ from those with the features replaced "
            "by constants, so they are read somewhere else than in a linear layer; leave out the section features"
        )
    return narrow.train(model.training)


def _checked_columns(kept: Tensor, fill: Tensor, members: Sequence[Member]) -> Tensor:
    n = len(fill)
    ascending = kept.ndim == 1 and kept.numel() > 0 and bool((kept.diff() > 0).all())
    if fill.ndim != 1 or not ascending or int(kept[0]) < 0 or int(kept[-1]) >= n:
        raise ShapeError(
            f"kept must be at least one of the {n} column numbers, ascending: got {kept.tolist()} with fill {tuple(fill.shape)}"
        )
    if not members:
        raise ModelError(
            "input features can't be cut: no parameter was found that reads them column by column; the model must begin with "
            "a linear layer (conv layers read neighbourhoods, not columns); leave out the section features"
        )
    for member in members:
        if len(member.index) != n:
            raise ShapeError(
                f"fill must have one value per column of {member.tensor!r}: got {n} for {len(member.index)}"
            )
    keep = torch.zeros(n, dtype=torch.bool)
    keep[kept.cpu()] = True
    return keep


def _readers(model: nn.Module, members: Sequence[Member]) -> dict[str, tuple[nn.Linear, Tensor]]:
    """Return the linear layers that read the columns, each with the positions of every column in its input."""
    readers = {}
    modules = dict(model.named_modules())
    for member in members:
        owner = modules.get(member.tensor.rpartition(".")[0])
        if isinstance(owner, nn.Linear):
            if member.dim == 1:
                readers[member.tensor.rpartition(".")[0]] = (owner, member.index.cpu())
        elif member.is_parameter and model.get_parameter(member.tensor).ndim > 1:
            raise ModelError(
                f"input features can't be cut: they are read by {member.tensor!r} of a {type(owner).__name__}, "
                "expected linear layers only; leave out the section features"
            )
    if not readers:
        raise ModelError(
            "input features can't be cut: no linear layer reads them directly; leave out the section features"
        )
    return readers


def _constants(
    model: nn.Module, readers: Mapping[str, tuple[nn.Linear, Tensor]], keep: Tensor, filled: Tensor
) -> dict[str, Tensor]:
    """Return, per linear layer, its input with zeros everywhere but at the dropped columns, which must be constant."""
    seen: dict[str, list[Tensor]] = {name: [] for name in readers}

    def remember(name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            given = arguments[0] if arguments else keywords["input"]
            seen[name].append(given.detach().reshape(-1, given.shape[-1]))

        return hook

    handles = [
        layer.register_forward_pre_hook(remember(name), with_kwargs=True) for name, (layer, _) in readers.items()
    ]
    try:
        model(filled)
    finally:
        for handle in handles:
            handle.remove()
    constants = {}
    for name, (_, index) in readers.items():
        if not seen[name]:
            raise ModelError(f"input features can't be cut: the linear layer {name!r} that reads them did not run")
        rows = torch.cat(seen[name])
        gone = index[~keep].flatten().to(rows.device)
        values = rows[:, gone]
        if not bool(torch.isclose(values, values[:1], rtol=1e-5, atol=1e-6).all()):
            raise ModelError(
                f"input features can't be cut: before the linear layer {name!r} the columns are mixed (a layer norm, a sum), "
                "so a column that is constant in the input isn't constant there; leave out the section features"
            )
        constants[name] = torch.zeros_like(rows[0]).index_copy_(0, gone, values[0])
    return constants


def _add_to_bias(layer: nn.Linear, constant: Tensor) -> None:
    """Add to the bias what ``constant`` inputs give; a layer without a bias gets one."""
    effect = (layer.weight.double() @ constant.double()).to(layer.weight.dtype)
    if layer.bias is None:
        layer.bias = nn.Parameter(effect, requires_grad=layer.weight.requires_grad)
    else:
        layer.bias.add_(effect)


def _cut(model: nn.Module, members: Sequence[Member], keep: Tensor) -> None:
    """Take the dropped columns out of every tensor that has them, and mend the layers' attributes."""
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    left: dict[tuple[str, int], Tensor] = {}
    for member in members:
        size = tensors[member.tensor].shape[member.dim]
        positions = left.setdefault((member.tensor, member.dim), torch.ones(size, dtype=torch.bool))
        positions[member.index[~keep].flatten().cpu()] = False
    new: dict[int, Tensor] = {}
    for (name, dim), positions in left.items():
        old = tensors[name]
        now = new.get(id(old), old)
        cut = now.detach().index_select(dim, torch.nonzero(positions).flatten().to(now.device)).contiguous()
        new[id(old)] = nn.Parameter(cut, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else cut
    for module in model.modules():
        changed = False
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and id(tensor) in new:
                    held[name] = new[id(tensor)]  # type: ignore[assignment]
                    changed = True
        if changed:
            _mend(module)


def _mend(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        for tensor in (module.weight, module.running_mean):
            if tensor is not None:
                module.num_features = len(tensor)


def _tensor(outputs: Any) -> Tensor:
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model must return one tensor of outputs: got {type(outputs).__name__}")
    return outputs


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training
