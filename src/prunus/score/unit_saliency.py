"""What is a unit of the model, and what is its saliency?

For granularity *weight* a unit is one number of one parameter, and each parameter is a stratum. For all others a unit is what
a group drops together (slices of coupled axes, whole blocks or experts), and each group is a stratum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from prunus.core.errors import ModelError, RecipeError
from prunus.core.runtime import generator
from prunus.core.types import Floats, Ints, Stratum
from prunus.score.criteria.criterion import INPUT_NEEDS, OUTPUT_NEEDS, Criterion, Need, check_criterion, criteria
from prunus.score.elimination import eliminate
from prunus.score.evidence.gather import Evidence
from prunus.score.readers import layers_reading

if TYPE_CHECKING:
    from prunus.graph import Group, Member

__all__ = ["Reduce", "block_paths", "score_groups", "score_weights", "unit_rows"]

Reduce = Literal["sum", "mean", "max", "first"]
_REDUCE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(dim=0),
    "mean": lambda scores: scores.mean(dim=0),
    "max": lambda scores: scores.amax(dim=0),
    "first": lambda scores: scores[0],
}
_FALLBACK = "magnitude_l2"
_LACKS = {
    "norm_scales": "normalisation scale",
    "layers": "layer whose inputs were seen",
    "readers": "layer whose inputs were seen",
    "makers": "layer whose outputs were seen",
}


def score_weights(
    evidence: Evidence,
    names: Sequence[str],
    criterion: str,
    *,
    seed: int = 0,
    note: Callable[[str], None] | None = None,
) -> list[Stratum]:
    """Return one stratum per parameter; a unit is a flat index into it, and its row that of a criterion that compares by rows.

    Args:
        evidence: of each of ``names``.
        criterion: a name in ``criteria``.
        seed: for ``random``.
        note: told when a parameter had to be judged by another criterion, as its inputs were not seen.

    Raises:
        RecipeError: an unknown criterion, or one that judges channels only.
        ModelError: the evidence lacks a parameter.
    """
    chosen = check_criterion(criterion, "weight")
    strata = []
    for name in names:
        formula = chosen
        if not _is_known(chosen, evidence, name):
            formula = criteria[_FALLBACK]
            _tell(note, name, chosen)
        tensors = {need: tensor.reshape(-1, 1) for need, tensor in _tensors(formula, evidence, name).items()}
        n_units = _tensor(evidence, "weight", name).numel()
        row = _rows(evidence, name) if formula.compare == "row" else None
        strata.append(Stratum(name, _to_numpy(_score(formula, tensors, n_units, seed, name)), row=row))
    return strata


def block_paths(groups: Sequence[Group]) -> list[str]:
    """Return the paths of the modules that are units of ``groups``."""
    return [_path(path, entry) for group in groups for path in group.containers for entry in group.entries]


def _path(container: str, entry: int) -> str:
    return f"{container}.{entry}".removeprefix(".")


def _rows(evidence: Evidence, name: str) -> Ints:
    """Return the row of each single weight: the number of the output that it leads to."""
    shape, norms = _tensor(evidence, "weight", name).shape, _tensor(evidence, "input_norm", name).shape
    dim = 1 if norms[1] == 1 < shape[1] and norms[0] > 1 else 0
    view = [n if d == dim else 1 for d, n in enumerate(shape)]
    rows: Ints = torch.arange(shape[dim]).view(view).expand(shape).reshape(-1).numpy()
    return rows


def score_groups(
    groups: Sequence[Group],
    evidence: Evidence,
    criterion: str,
    *,
    reduce: Reduce = "sum",
    norm_scales: Collection[str] = (),
    seed: int = 0,
    note: Callable[[str], None] | None = None,
) -> list[Stratum]:
    """Return one stratum per group; a unit's ``cost`` is the number of parameters that go with it.

    Args:
        groups: of axes, or of whole modules.
        evidence: of every parameter that is a member of a group, or lies in one of its modules.
        criterion: a name in ``criteria``. It judges each member (each parameter of a module) by itself.
        reduce: how the saliencies of a unit in all the members become one: their sum, mean or maximum, or that of the first member
            alone that makes the axis.
        norm_scales: names of the parameters that are scales of normalisation layers (``bn_scale`` reads only those; a group that
            has none is judged by ``magnitude_l2`` instead).
        seed: for ``random``.
        note: told when a group had to be judged by another criterion.

    Raises:
        RecipeError: an unknown criterion or reduction.
        ModelError: the evidence lacks a parameter, or a group has none.
    """
    chosen = criteria[criterion]
    if reduce not in _REDUCE:
        raise RecipeError(f"reduce must be one of {', '.join(_REDUCE)}: got {reduce!r}")
    strata = []
    for group in groups:
        members = [member for member in group.members if member.is_parameter]
        inside, additive = _inside(group, evidence), False
        if not members and not any(inside):
            raise ModelError(f"group {group.name!r} has no parameter to judge it by: freeze it")
        if chosen.reads == "blocks":
            judged = chosen({"block_cosine": _of_blocks(evidence, group)})
        else:
            formula, read = chosen, _read(chosen, evidence, members, norm_scales)
            known = [[name for name in names if _is_known(chosen, evidence, name)] for names in inside]
            if not read and not (group.containers and all(known)):
                formula, read, known = criteria[_FALLBACK], members, inside
                _tell(note, group.name, chosen)
            if reduce == "first":
                read = sorted(read, key=lambda member: member.dim != 0)
            together = [one.reader for one in layers_reading(evidence, read)] if formula.joint else []
            additive = bool(together)
            judged = eliminate(together) if together else _judged(formula, evidence, group, read, known, reduce, seed)
        within = sum(_tensor(evidence, "weight", name).numel() for names in inside for name in names)
        cost = sum(_parameters_per_unit(evidence, member) for member in members) + within / group.size
        strata.append(Stratum(group.name, _to_numpy(judged), cost=cost, additive=additive))
    return strata


def _judged(
    formula: Criterion,
    evidence: Evidence,
    group: Group,
    read: Sequence[Member],
    inside: Sequence[Sequence[str]],
    reduce: Reduce,
    seed: int,
) -> Tensor:
    """Return one saliency per unit: of its slices in the members that are read, and of what lies inside where it is a module."""
    scores = [_member_score(formula, evidence, group, member, seed) for member in read]
    if not group.containers:
        return _REDUCE[reduce](torch.stack(scores))
    units = [
        torch.stack([*(s[unit] for s in scores), *_whole_scores(formula, evidence, names, seed)])
        for unit, names in enumerate(inside)
    ]
    return torch.stack([_REDUCE[reduce](unit) for unit in units])


def _read(
    chosen: Criterion, evidence: Evidence, members: Sequence[Member], norm_scales: Collection[str]
) -> list[Member]:
    """Return the members that a criterion looks at, and no others."""
    if chosen.reads == "parameters":
        return list(members)
    if chosen.reads == "norm_scales":
        return [member for member in members if member.tensor in norm_scales]
    seen = [member for member in members if _is_known(chosen, evidence, member.tensor)]
    if chosen.reads == "layers":
        return seen
    told_by = {"readers": INPUT_NEEDS, "makers": OUTPUT_NEEDS}[chosen.reads]
    return [member for member in seen if _runs_along([n for n in chosen.needs if n in told_by], evidence, member)]


def _runs_along(measured: Sequence[Need], evidence: Evidence, member: Member) -> bool:
    """Tell whether what was measured differs from unit to unit of this member."""
    size = _tensor(evidence, "weight", member.tensor).shape[member.dim]
    return all(_tensor(evidence, need, member.tensor).shape[member.dim] == size for need in measured)


def _is_known(chosen: Criterion, evidence: Evidence, name: str) -> bool:
    """Tell whether a layer's inputs and outputs were seen; what every parameter has must be there.

    Raises:
        ModelError: nothing of the kind was gathered.
    """
    if chosen.reads in ("parameters", "norm_scales"):
        return True
    return all(name in _held(evidence, need, name) for need in chosen.needs if need != "noise")


def _of_blocks(evidence: Evidence, group: Group) -> Tensor:
    held = _held(evidence, "block_cosine", group.name)
    paths = [_path(group.containers[0], entry) for entry in group.entries]
    lacking = [path for path in paths if path not in held]
    if lacking:
        raise ModelError(f"no block_cosine was gathered for {lacking[0]!r}: name it in gather(..., blocks=...)")
    return torch.stack([held[path] for path in paths])


def _tell(note: Callable[[str], None] | None, name: str, chosen: Criterion) -> None:
    if note is not None:
        note(f"{name}: has no {_LACKS[chosen.reads]} for {chosen.name}, so it is judged by {_FALLBACK}")


def unit_rows(tensor: Tensor, dim: int, index: Tensor) -> Tensor:
    """Return one row per unit: all the numbers of ``tensor`` at the unit's positions along ``dim``.

    Shapes:
        ``index`` is ``(units, positions)``; the result is ``(units, positions * numel / size(dim))``.

    >>> unit_rows(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), 1, torch.tensor([[0, 1], [2, 3]]))
    tensor([[1, 5, 2, 6],
            [3, 7, 4, 8]])
    """
    n_units = len(index)
    flat = index.reshape(-1).to(tensor.device)
    whole = torch.equal(flat, torch.arange(tensor.shape[dim], device=flat.device))
    chosen = tensor if whole else tensor.index_select(dim, flat)
    # Positions of a unit lie next to each other now, so they fold into the row.
    return chosen.movedim(dim, 0).reshape(n_units, -1)


def _inside(group: Group, evidence: Evidence) -> list[list[str]]:
    """Return, for each unit that is a module, the names of the parameters inside."""
    prefixes = [tuple(f"{path}.{entry}.".removeprefix(".") for path in group.containers) for entry in group.entries]
    return [[name for name in evidence.weight if name.startswith(prefix)] if prefix else [] for prefix in prefixes]


def _whole_scores(chosen: Criterion, evidence: Evidence, names: Sequence[str], seed: int) -> list[Tensor]:
    """Judge each of some parameters as one unit."""
    found = []
    for name in names:
        tensors = {need: tensor.reshape(1, -1) for need, tensor in _tensors(chosen, evidence, name).items()}
        found.append(_score(chosen, tensors, 1, seed, name).cpu()[0])
    return found


def _member_score(chosen: Criterion, evidence: Evidence, group: Group, member: Member, seed: int) -> Tensor:
    tensors = {
        need: unit_rows(tensor, member.dim, member.index)
        for need, tensor in _tensors(chosen, evidence, member.tensor).items()
    }
    return _score(chosen, tensors, group.size, seed, f"{group.name}/{member.tensor}/{member.dim}").cpu()


def _tensors(chosen: Criterion, evidence: Evidence, name: str) -> dict[Need, Tensor]:
    """Return all that a formula needs of one parameter, in one shape."""
    needs = [need for need in chosen.needs if need != "noise"]
    if not needs:
        return {}
    return dict(zip(needs, _broadcast([_tensor(evidence, need, name) for need in needs]), strict=True))


def _score(chosen: Criterion, tensors: dict[Need, Tensor], n_units: int, seed: int, name: str) -> Tensor:
    if "noise" in chosen.needs:
        tensors["noise"] = torch.rand(n_units, generator=generator(seed, "score", chosen.name, name))
    # Half precision has too few digits to rank by.
    ready: dict[Need, Tensor] = {
        need: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for need, tensor in tensors.items()
    }
    saliency = chosen(ready)
    assert saliency.shape == (n_units,), f"{chosen.name} gave {tuple(saliency.shape)} for {n_units} units of {name}"
    return saliency


def _broadcast(tensors: Sequence[Tensor]) -> list[Tensor]:
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    return [tensor.expand(shape) for tensor in tensors]


def _held(evidence: Evidence, need: Need, name: str) -> Mapping[str, Tensor]:
    held = evidence.of(need)
    if held is None:
        raise ModelError(f"no {need} was gathered for {name!r}: gather it with needs=({need!r},) first")
    return held


def _tensor(evidence: Evidence, need: Need, name: str) -> Tensor:
    held = _held(evidence, need, name)
    if name not in held:
        raise ModelError(f"no {need} was gathered for {name!r}: gather it with needs=({need!r},) first")
    return held[name]


def _parameters_per_unit(evidence: Evidence, member: Member) -> float:
    tensor = _tensor(evidence, "weight", member.tensor)
    return member.index.shape[1] * tensor.numel() / tensor.shape[member.dim]


def _to_numpy(saliency: Tensor) -> Floats:
    values: Floats = saliency.detach().cpu().double().numpy()
    return values
