"""How do weights get from a file into a model without running code, and all or nothing?

The file is read and checked in full before the first number of the model changes. ``.safetensors`` is the format of choice; a
``.pt`` is followed as data and never unpickled, after its declared sizes were checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prunus.core.errors import WeightsError, near, raise_if_out_of_memory
from prunus.core.recipes.named_places import check_weights
from prunus.models.pickle_file import read_checkpoint
from prunus.models.safetensors_file import read_safetensors

__all__ = ["fit_state", "load_weights"]

PREFIXES = ("module.", "model.", "_orig_mod.", "net.")
SHOWN = 5


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the weights in a ``.safetensors`` or ``.pt`` file into ``model``; on any error the model stays as it was.

    Raises:
        WeightsError: the file is missing, damaged, would run code, or its tensors don't fit the model.
    """
    path = Path(path)
    check_weights(path)
    if path.suffix == ".safetensors":
        state = read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        state = read_checkpoint(path)
    else:
        raise WeightsError(
            f"{path}: expected a file that ends in .safetensors or .pt, got {path.suffix or 'no ending'!r}"
        )
    fitted = fit_state(model, state, where=str(path))
    with torch.no_grad():
        for target, value in fitted:
            target.copy_(value)


def fit_state(model: nn.Module, state: Mapping[str, Tensor], *, where: str) -> list[tuple[Tensor, Tensor]]:
    """Return (tensor of the model, its new value) pairs, all of them checked; nothing is changed yet.

    Raises:
        WeightsError: missing or extra names, another shape or number type, NaN or infinity.
    """
    wanted = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    _check_names(wanted, state, where)
    pairs: list[tuple[Tensor, Tensor]] = []
    first_of: dict[int, tuple[str, Tensor]] = {}
    for name, value in state.items():
        target = wanted[name]
        if value.shape != target.shape:
            raise WeightsError(
                f"{where}: {name!r} has the wrong shape: expected {tuple(target.shape)}, got {tuple(value.shape)}; "
                "build the model that the weights were saved from"
            )
        _check_kind(name, value, target, where)
        _check_finite(name, value, where)
        other, twin = first_of.setdefault(id(target), (name, value))
        if other != name and not torch.equal(twin, value):
            raise WeightsError(f"{where}: {other!r} and {name!r} are one tensor in the model, got two different values")
        pairs.append((target, value))
    return pairs


def _check_names(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    there = {id(value) for name, value in wanted.items() if name in state}
    # A tensor that the model knows by two names may be saved under one of them.
    missing = [name for name, value in wanted.items() if name not in state and id(value) not in there]
    extra = [name for name in state if name not in wanted]
    if not missing and not extra:
        return
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if extra:
        problems.append(f"{len(extra)} too many ({_some(extra)})")
    hint = _prefix_hint(wanted, state)
    if hint is None:
        first = (extra or missing)[0]
        others = missing if extra else list(wanted)
        close = near(first, others) if others else ""
        hint = (
            f"{first!r}: {close}"
            if close.startswith("did you mean")
            else "build the model that the weights were saved from"
        )
    raise WeightsError(f"{where}: the names don't fit the model: {', '.join(problems)}; {hint}")


def _prefix_hint(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    for prefix in PREFIXES:
        stripped = {name.removeprefix(prefix) for name in state}
        if state and all(name.startswith(prefix) for name in state) and stripped & set(wanted):
            return (
                f"every name in the file starts with {prefix!r}, which wrappers add: save the inner model, or strip it"
            )
        if (
            wanted
            and all(name.startswith(prefix) for name in wanted)
            and {prefix + name for name in state} & set(wanted)
        ):
            return f"every name in the model starts with {prefix!r}, the file's don't: load into the inner model"
    return None


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")


def _check_kind(name: str, value: Tensor, target: Tensor, where: str) -> None:
    """Only a number type that loses nothing on the way may differ: float16 into float32, not the reverse."""
    if value.dtype == target.dtype:
        return
    both_floating = value.is_floating_point() and target.is_floating_point()
    both_whole = not any(t.is_floating_point() or t.is_complex() or t.dtype == torch.bool for t in (value, target))
    try:
        widens = torch.promote_types(value.dtype, target.dtype) == target.dtype
    except RuntimeError as error:  # types without a promotion rule, such as 8-bit floats
        raise_if_out_of_memory(error)
        widens = False
    if not (widens and (both_floating or both_whole)):
        raise WeightsError(
            f"{where}: {name!r} has the wrong number type: expected {_type(target)}, got {_type(value)}, which would not keep "
            "its values; save it in the model's own type"
        )


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_finite(name: str, value: Tensor, where: str) -> None:
    if not (value.is_floating_point() or value.is_complex()):
        return
    checked = value if value.element_size() > 1 else value.float()
    n_nan, n_infinite = int(checked.isnan().sum()), int(checked.isinf().sum())
    if n_nan or n_infinite:
        raise WeightsError(
            f"{where}: {name!r} has {n_nan} NaN and {n_infinite} infinite values of {value.numel()}; "
            "these weights are spoilt, use an earlier checkpoint"
        )
