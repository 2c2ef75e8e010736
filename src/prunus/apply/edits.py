"""What must be changed in a freshly built model so that the weights of the pruned one fit it?

A pruned model is the dense one with smaller tensors and a few changed numbers (``out_channels``, ``normalized_shape``); edits are
just those, as data. So a bundle needs no pickled module: build the dense structure, apply the edits, load the weights.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, Union

import torch
from torch import Tensor, fx, nn

from prunus.apply.classes.entry_removal import keep_entries
from prunus.apply.repair import SelectInputs
from prunus.core.errors import BundleError
from prunus.graph.tracing.observe import is_config
from prunus.graph.tracing.states import duplicate

__all__ = ["Edits", "Plain", "diff", "is_plain", "materialize", "rebuild"]

Plain: TypeAlias = Union[bool, int, float, str, "list[Plain]", "tuple[Plain, ...]", None]

# What every module has (training, _parameters, hooks, ...) is no setting of the model.
_OWN = frozenset(vars(nn.Module()))
_LARGEST = 2**62


@dataclass(frozen=True)
class Edits:
    """The difference between a dense model and a pruned one.

    ``shapes`` maps the name of a parameter or buffer to its new shape; ``added`` the name of a parameter that the dense model
    could have but hasn't (a layer's bias that is None) to its shape; ``attributes`` maps a module's path ("" is the model itself)
    to the plain values that changed; ``kept_inputs`` are the input features that stay (None: all, nothing is selected).
    ``entries`` maps the path of a container that lost modules to those that stay, outermost containers first: the paths of inner
    ones are as they are after that.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    added: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, Plain]] = field(default_factory=dict)
    kept_inputs: tuple[int, ...] | None = None
    entries: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a tuple is written as a list and gets its kind back from the module.

        >>> Edits({"0.weight": (2, 3)}, attributes={"0": {"out_features": 2}}).to_dict()
        {'shapes': {'0.weight': [2, 3]}, 'added': {}, 'attributes': {'0': {'out_features': 2}}, 'kept_inputs': None, 'entries': {}}
        """
        return {
            "shapes": {name: list(shape) for name, shape in sorted(self.shapes.items())},
            "added": {name: list(shape) for name, shape in sorted(self.added.items())},
            "attributes": {
                path: {name: _listed(value) for name, value in sorted(values.items())}
                for path, values in sorted(self.attributes.items())
            },
            "kept_inputs": None if self.kept_inputs is None else list(self.kept_inputs),
            "entries": {path: list(kept) for path, kept in sorted(self.entries.items(), key=_depth)},
        }

    @classmethod
    def from_dict(cls, value: Any) -> Edits:
        """Return the edits that ``to_dict`` wrote.

        Raises:
            BundleError: the value is anything else; sizes and features must be non-negative integers.
        """
        if not isinstance(value, Mapping) or set(value) != {"shapes", "added", "attributes", "kept_inputs", "entries"}:
            got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise BundleError(
                f"edits must be a mapping with shapes, added, attributes, kept_inputs and entries: got {got}"
            )
        shapes, added = (
            {name: _sizes(shape, f"the shape of {name!r}") for name, shape in _items(value[key], key)}
            for key in ("shapes", "added")
        )
        attributes: dict[str, dict[str, Plain]] = {}
        for path, values in _items(value["attributes"], "attributes"):
            attributes[path] = dict(_items(values, f"attributes of {path!r}"))
            for name, setting in attributes[path].items():
                if not is_plain(setting):
                    raise BundleError(
                        f"edits: {path}.{name} must be a finite number, a text, true, false, null or a list: got {setting!r}"
                    )
        kept = value["kept_inputs"]
        if kept is not None:
            kept = _rising(kept, "kept_inputs")
            if not kept:
                raise BundleError("edits: kept_inputs must name at least one feature: got none")
        entries = {
            path: _rising(numbers, f"entries of {path!r}") for path, numbers in _items(value["entries"], "entries")
        }
        return cls(shapes, added, attributes, kept, entries)


def diff(dense: nn.Module, pruned: nn.Module) -> Edits:
    """Return what turns the structure of ``dense`` into that of ``pruned``; values of weights don't matter.

    Raises:
        BundleError: the two differ in more than sizes and plain settings (other modules, other tensors, another graph).
    """
    kept = None
    if isinstance(pruned, SelectInputs) and not isinstance(dense, SelectInputs):
        kept = tuple(int(number) for number in pruned.kept)
        pruned = pruned.inner
    if isinstance(pruned, fx.GraphModule) and getattr(dense, "code", None) != pruned.code:
        raise BundleError(
            "a model that was pruned as a graph can't be bundled yet (its forward has sizes written into it): "
            "read sizes from the tensors in forward, so that the model itself can be made smaller"
        )
    entries = {path: module.kept_entries for path, module in pruned.named_modules() if "kept_entries" in vars(module)}
    dense = _with_entries(dense, entries)
    before, after = _modules(dense), _modules(pruned)
    if list(before) != list(after):
        odd = sorted(set(before) ^ set(after))[:3] or "another order"
        raise BundleError(f"the pruned model must have the modules of the dense one: got a difference at {odd}")
    attributes = {}
    for path, module in before.items():
        # Parametrized modules have a class of their own each, made on the spot.
        if (type(module).__module__, type(module).__qualname__) != (
            type(after[path]).__module__,
            type(after[path]).__qualname__,
        ):
            raise BundleError(
                f"the pruned model's module {path!r} must be a {type(module).__name__}: got {type(after[path]).__name__}"
            )
        if changed := _changed(path, module, after[path]):
            attributes[path] = changed
    added = _added(dense, pruned)
    return Edits(_changed_shapes(dense, pruned, added), added, attributes, kept, entries)


def _with_entries(dense: nn.Module, entries: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """Return a copy of ``dense`` with those entries alone in its containers; ``dense`` itself where nothing leaves."""
    if not entries:
        return dense
    model = duplicate(dense)
    for path, kept in sorted(entries.items(), key=_depth):
        try:
            length = len(model.get_submodule(path)._modules)
        except AttributeError as error:
            raise BundleError(f"edits: the model has no container {path!r}; was the builder changed since?") from error
        if any(number >= length for number in kept):
            raise BundleError(f"edits: {path!r} has {length} entries: got {max(kept)}; was the builder changed since?")
        keep_entries(model, path, kept)
    return model


def rebuild(dense: nn.Module, edits: Edits) -> nn.Module:
    """Return a copy of ``dense`` with ``edits`` applied: resized tensors are zeros of their old dtype, tied ones stay tied.

    Fill it with ``load_state_dict``. ``dense`` may lie on the meta device; then so does the copy.

    Raises:
        BundleError: the edits don't fit: an unknown module, tensor or setting, a size that grows, a value of another type.
    """
    model = _with_entries(dense, edits.entries) if edits.entries else duplicate(dense)
    slots = {name: slot for slot, _ in _slots(model).values() for name in slot}
    tensors = dict(_named(model))
    for name, shape in edits.shapes.items():
        if name not in tensors:
            raise BundleError(f"edits: the model has no parameter or buffer {name!r}; was the builder changed since?")
        old = tensors[name]
        if len(shape) != old.ndim or any(new > size for new, size in zip(shape, old.shape, strict=True)):
            raise BundleError(
                f"edits: pruning can only make {name!r} smaller than {tuple(old.shape)}: got the shape {tuple(shape)}"
            )
        _put(model, slots[name], torch.zeros(shape, dtype=old.dtype, device=old.device), old)
    for name, shape in edits.added.items():
        _add(model, name, shape)
    modules = _modules(model)
    for path, values in edits.attributes.items():
        if path not in modules:
            raise BundleError(f"edits: the model has no module {path!r}; was the builder changed since?")
        for name, value in values.items():
            _set(path, modules[path], name, value)
    if edits.kept_inputs is not None:
        return SelectInputs(model, torch.tensor(edits.kept_inputs, dtype=torch.int64))
    return model


def materialize(model: nn.Module) -> None:
    """Give every tensor of ``model`` that lies on the meta device zeros on the CPU, in place; tied ones stay tied."""
    for names, tensor in _slots(model).values():
        if tensor.is_meta:
            _put(model, names, torch.zeros(tensor.shape, dtype=tensor.dtype), tensor)


def is_plain(value: object) -> bool:
    """Return whether ``value`` is a setting that edits can hold: a finite number, a text, None, or lists and tuples of them."""
    if isinstance(value, (list, tuple)):
        return all(is_plain(part) for part in value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and abs(value) < _LARGEST)


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    return dict(model.named_modules())


def _changed(path: str, before: nn.Module, after: nn.Module) -> dict[str, Plain]:
    """Return the settings that differ between two modules of one type."""
    old, new = ({k: v for k, v in vars(m).items() if k not in _OWN} | _config_values(m) for m in (before, after))
    changed: dict[str, Plain] = {}
    for name in sorted(old.keys() | new.keys()):
        if name in old and name in new and _same(old[name], new[name]):
            continue
        if name not in old or name not in new or not (is_plain(old[name]) and is_plain(new[name])):
            raise BundleError(
                f"the pruned model's setting {path}.{name} differs from the dense one's and is no plain value: "
                f"got {type(new.get(name)).__name__}; keep tensors in buffers and structure in modules"
            )
        changed[name] = new[name]
    return changed


def _config_values(module: nn.Module) -> dict[str, Any]:
    """Return the plain values of the configs that a module holds, and of the configs in those, as ``attribute.name``."""
    found: dict[str, Any] = {}
    pending = [(attribute, held) for attribute, held in vars(module).items() if is_config(held)]
    while pending:
        attribute, held = pending.pop()
        for name, value in vars(held).items():
            if is_config(value):
                pending.append((f"{attribute}.{name}", value))
            elif is_plain(value):
                found[f"{attribute}.{name}"] = value
    return found


def _same(old: object, new: object) -> bool:
    """Return whether two settings agree; of objects that aren't plain, tensors outside buffers are compared and no others."""
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        return old is new or (old.shape == new.shape and old.dtype == new.dtype and torch.equal(old.cpu(), new.cpu()))
    if is_plain(old) or is_plain(new):
        return type(old) is type(new) and old == new
    return True


def _set(path: str, module: nn.Module, name: str, value: Plain) -> None:
    *holders, own = name.split(".")
    if holders:
        config: Any = module
        for holder in holders:
            config = vars(config).get(holder)
            if not is_config(config):
                raise BundleError(f"edits: {path}.{name} is in no config of the model; was the builder changed since?")
        if not is_plain(vars(config).get(own, object())):
            raise BundleError(f"edits: {path} has no plain setting {name!r}; was the builder changed since?")
        vars(config)[own] = _as_kind_of(vars(config)[own], value, f"{path}.{name}")
        return
    known = vars(module)
    if name in _OWN or name not in known or not is_plain(known[name]):
        raise BundleError(
            f"edits: the {type(module).__name__} at {path!r} has no plain setting {name!r}; was the builder changed since?"
        )
    setattr(module, name, _as_kind_of(known[name], value, f"{path}.{name}"))


def _as_kind_of(old: Any, value: Any, where: str) -> Any:
    """Return ``value`` in the type of ``old``: JSON has lists for tuples."""
    if isinstance(old, (list, tuple)) and isinstance(value, (list, tuple)):
        inner = [_as_kind_of(old[min(i, len(old) - 1)], part, where) if old else part for i, part in enumerate(value)]
        return type(old)(inner) if type(old) in (list, tuple, torch.Size) else tuple(inner)
    if old is None or value is None or type(old) is type(value):
        return value
    if type(old) is float and type(value) is int:
        return float(value)
    raise BundleError(f"edits: {where} must be of type {type(old).__name__}, like {old!r}: got {value!r}")


def _slots(model: nn.Module) -> dict[int, tuple[list[str], Tensor]]:
    """Return every parameter and buffer once, with all the names it goes by."""
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in _named(model):
        found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return found


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _put(model: nn.Module, names: Sequence[str], tensor: Tensor, old: Tensor) -> None:
    new = nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    for name in names:
        path, _, key = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, key, new)
        if tensor.shape != old.shape:  # a sliced buffer is saved with the weights, whatever it was before
            module._non_persistent_buffers_set.discard(key)


def _added(dense: nn.Module, pruned: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the parameters of ``pruned`` whose place in ``dense`` is registered but empty."""
    before = {name for name, _ in _named(dense)}
    found = {}
    for name, tensor in pruned.named_parameters(remove_duplicate=False):
        path, _, key = name.rpartition(".")
        if name not in before and key in dense.get_submodule(path)._parameters:
            found[name] = tuple(tensor.shape)
    return found


def _add(model: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Put zeros at ``name``, an empty place beside a parameter that says the type and bounds the size."""
    path, _, key = name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise BundleError(f"edits: the model has no module {path!r}; was the builder changed since?") from error
    beside = [parameter for parameter in module._parameters.values() if parameter is not None]
    if key not in module._parameters or module._parameters[key] is not None or not beside:
        raise BundleError(
            f"edits: the model has no empty place for a parameter {name!r}; was the builder changed since?"
        )
    like = max(beside, key=Tensor.numel)
    if math.prod(shape) > like.numel():
        raise BundleError(
            f"edits: {name!r} can't be larger than the {like.numel()} weights beside it: got {tuple(shape)}"
        )
    zeros = torch.zeros(shape, dtype=like.dtype, device=like.device)
    setattr(module, key, nn.Parameter(zeros, requires_grad=like.requires_grad))


def _changed_shapes(dense: nn.Module, pruned: nn.Module, added: Container[str]) -> dict[str, tuple[int, ...]]:
    before, after = _slots(dense), _slots(pruned)
    after = {key: (names, tensor) for key, (names, tensor) in after.items() if not all(name in added for name in names)}
    if sorted(names for names, _ in before.values()) != sorted(names for names, _ in after.values()):
        odd = {n for names, _ in before.values() for n in names} ^ {n for names, _ in after.values() for n in names}
        raise BundleError(
            "the pruned model must have the tensors of the dense one, tied alike: "
            f"got a difference at {sorted(odd)[:3] or 'a tied tensor'}"
        )
    old = {names[0]: tensor for names, tensor in before.values()}
    changed = {}
    for names, tensor in after.values():
        was = old[names[0]]
        if all(_is_made_by_forward(pruned, name) for name in names) and tensor.numel() > was.numel():
            continue  # a cache that the pruned model's first run filled
        if (
            tensor.dtype != was.dtype
            or tensor.ndim != was.ndim
            or any(n > s for n, s in zip(tensor.shape, was.shape, strict=True))
        ):
            raise BundleError(
                f"pruning can only make {names[0]!r} smaller than {was.dtype} {tuple(was.shape)}: "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
        if tensor.shape != was.shape:
            changed[names[0]] = tuple(tensor.shape)
    return changed


def _is_made_by_forward(model: nn.Module, name: str) -> bool:
    path, _, key = name.rpartition(".")
    return key in model.get_submodule(path)._non_persistent_buffers_set


def _listed(value: Plain) -> Plain:
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value


def _depth(item: tuple[str, Any]) -> tuple[int, str]:
    return item[0].count("."), item[0]


def _rising(value: Any, what: str) -> tuple[int, ...]:
    numbers = _sizes(value, what)
    if list(numbers) != sorted(set(numbers)):
        raise BundleError(f"edits: {what} must be rising numbers: got {list(numbers)[:9]}")
    return numbers


def _items(value: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise BundleError(f"edits: {what} must be a mapping with names as keys: got {type(value).__name__}")
    return list(value.items())


def _sizes(value: Any, what: str) -> tuple[int, ...]:
    good = isinstance(value, (list, tuple)) and all(type(size) is int and 0 <= size < _LARGEST for size in value)
    if not good:
        raise BundleError(f"edits: {what} must be a list of integers that are not negative: got {value!r}")
    return tuple(value)
