"""Which slices of which parameters must go together?

One group per unfrozen leaf axis that reaches a parameter. What is frozen is listed with the reason, in the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prunus.graph import rules  # noqa: F401 - registers the rules
from prunus.graph.grouping.joints import Joint
from prunus.graph.grouping.kinds import Kind, kinds_of
from prunus.graph.grouping.members import Member
from prunus.graph.grouping.reach import freeze_beside, freeze_unreached
from prunus.graph.grouping.stacks import find_blocks, find_experts
from prunus.graph.grouping.training_couplings import learn_from_training
from prunus.graph.solver.axes import Atom, find, leaves
from prunus.graph.solver.axis_positions import positions
from prunus.graph.solver.solve import Solver
from prunus.graph.tracing.garbage import settled
from prunus.graph.tracing.trace import trace

__all__ = ["AxisGraph", "Frozen", "Group", "Solution", "analyze", "parameters_per_unit"]


@dataclass(frozen=True)
class Group:
    """Units that can only leave together: ``size`` of them, in every member.

    ``kind`` says what a unit is. A block or an expert is (also) an entry of each of ``containers``: unit ``u`` is entry
    ``entries[u]``. At least ``min_units`` must stay (an input takes so many experts), and a number that ``multiple`` divides
    (a kernel wants it).
    """

    name: str
    size: int
    members: tuple[Member, ...]
    kind: Kind = "channel"
    containers: tuple[str, ...] = ()
    entries: tuple[int, ...] = ()
    min_units: int = 1
    multiple: int = 1

    def parameters(self, model: nn.Module) -> Iterator[str]:
        """Yield the names of all parameters that a unit has a part in."""
        yield from (member.tensor for member in self.members if member.is_parameter)
        for name, _ in model.named_parameters():
            if any(
                name.startswith(f"{path}.{entry}.".removeprefix("."))
                for path in self.containers
                for entry in self.entries
            ):
                yield name


@dataclass(frozen=True)
class Frozen:
    """An axis of parameters that can't be pruned, and why."""

    name: str
    size: int
    members: tuple[Member, ...]
    reason: str


@dataclass(frozen=True)
class Solution:
    """How the groups were found: the trace with an axis for every dimension of every value, and each group's leaf axis.

    ``tied`` are the other axes that lose units with a group's, and how many for each of its own.
    """

    solver: Solver
    leaf: Mapping[str, Atom]
    tied: Mapping[str, tuple[tuple[Atom, int], ...]] = field(default_factory=dict)

    def axes_of(self, name: str) -> dict[Atom, int]:
        """Return the leaf axes that a group cuts, and how many units of each go with one of its own."""
        return {find(leaf): each for leaf, each in ((self.leaf[name], 1), *self.tied.get(name, ()))}

    def sizes(self, counts: Mapping[str, int]) -> dict[Atom, int]:
        """Return the size of every axis that is cut when groups keep so many units, by name."""
        left: dict[Atom, int] = {}
        for name, n in counts.items():
            for leaf, each in self.axes_of(name).items():
                left[leaf] = left.get(leaf, leaf.size) - each * (self.leaf[name].size - n)
        return left


@dataclass(frozen=True)
class AxisGraph:
    """All axes of a model: those that can be pruned, and those that can't. ``stacks`` are whole modules: blocks and experts.

    ``joints`` say which groups may only be cut together, each to the same share; a group is in one of them at most.
    """

    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    notes: tuple[str, ...] = ()
    stacks: tuple[Group, ...] = ()
    solution: Solution | None = field(default=None, repr=False, compare=False)
    joints: tuple[Joint, ...] = ()

    def joint_of(self, name: str) -> str:
        """Return what the joint of a group is called; empty where it is in none."""
        return next((joint.name for joint in self.joints if name in joint.groups), "")

    def group(self, name: str) -> Group:
        """Return the group of that name."""
        return next(group for group in (*self.groups, *self.stacks) if group.name == name)


@settled()
def analyze(model: nn.Module, inputs: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> AxisGraph:
    """Return what hangs together in ``model``, found by tracing one forward pass on fake tensors.

    Args:
        inputs: positional inputs of the forward; only their shapes matter, and a batch of two or more tells more than one.
        kwargs: keyword inputs.

    Raises:
        ModelError: the forward fails on these inputs.
    """
    traced = trace(model, inputs, kwargs)
    solver = Solver(traced)
    solver.solve()
    solvers = (solver, *learn_from_training(model, inputs, kwargs, solver))
    parameters = {name for name, _ in model.named_parameters()}
    unread = [name for name in freeze_unreached(solvers) if name in parameters]
    for name in unread:
        freeze_beside(solver, name)
    found: dict[Atom, list[Member]] = {}
    squared: set[Atom] = set()
    for name, axes in solver.states.items():
        if name not in parameters and not any(_reached(a, found) for a in axes):
            continue
        for dim, atom in enumerate(axes):
            if atom.size == 1:
                continue
            for leaf, index in positions(atom).items():
                found.setdefault(leaf, []).append(Member(name, dim, index, name in parameters))
                if len(torch.unique(index)) != index.numel():
                    squared.add(leaf)
    for leaf in squared:
        leaf.reason = leaf.reason or "it meets itself in one dimension"
    inputs_of = {
        leaf: f"input {i}, dim {d}"
        for i, axes in enumerate(solver.inputs)
        for d, a in enumerate(axes)
        for leaf in leaves(a)
    }
    names = _Names()
    kinds = kinds_of(solver, {leaf: members for leaf, members in found.items() if not leaf.reason})
    multiples = {leaf: n for atom, n in solver.multiples for leaf in leaves(atom)}
    groups, frozen = [], []
    leaf_of: dict[str, Atom] = {}
    reached = {
        leaf: tuple(members)
        for leaf, members in found.items()
        if leaf.size > 1 and any(member.is_parameter for member in members)
    }
    # What can be pruned has the plain names.
    for leaf, members in sorted(reached.items(), key=lambda item: bool(item[0].reason)):
        name = (inputs_of.get(leaf) if leaf.reason else None) or names.of(members)
        if leaf.reason:
            frozen.append(Frozen(name, leaf.size, members, leaf.reason))
        else:
            leaf_of[name] = leaf
            groups.append(Group(name, leaf.size, members, kinds[leaf], multiple=multiples.get(leaf, 1)))
    notes = (
        *traced.notes,
        *(f"no rule for the operation {name}: its axes are frozen" for name in sorted(solver.unknown)),
        *(
            f"the example never reached {name}: it stays whole, and so does what it may hang together with"
            for name in unread
        ),
        *(f"the rule for {name} can't read one of its calls: its axes are frozen" for name in sorted(solver.unread)),
    )
    stacks = (*_block_groups(model, solver), *_expert_groups(model, solver, found))
    return AxisGraph(tuple(groups), tuple(frozen), notes, stacks, Solution(solver, leaf_of))


def _block_groups(model: nn.Module, solver: Solver) -> Iterator[Group]:
    for path, entries in find_blocks(model, solver):
        whole = len(entries) == len(model.get_submodule(path))  # type: ignore[arg-type]
        if not whole or len(entries) > 1:
            yield Group(f"{path or 'model'} (blocks)", len(entries), (), "block", (path,), entries, int(whole))


def _expert_groups(model: nn.Module, solver: Solver, found: Mapping[Atom, list[Member]]) -> Iterator[Group]:
    parameters = {name for name, _ in model.named_parameters()}
    for path, size, lists, tensors, many in find_experts(model, solver, found):
        each = torch.arange(size).unsqueeze(1)
        members = tuple(Member(name, 0, each, name in parameters) for name in tensors)
        yield Group(f"{path or 'model'} (experts)", size, members, "expert", lists, tuple(range(size)), many)


def _reached(atom: Atom, found: Mapping[Atom, object]) -> bool:
    return any(leaf in found for leaf in leaves(atom))


class _Names:
    """Name a group after the layer that makes it: the first whose output dimension it is."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}

    def of(self, members: Sequence[Member]) -> str:
        made = [m for m in members if m.is_parameter and m.dim == 0] or [m for m in members if m.is_parameter]
        name = made[0].tensor.rpartition(".")[0] or made[0].tensor
        n = self.taken[name] = self.taken.get(name, 0) + 1
        return name if n == 1 else f"{name}#{n}"


def parameters_per_unit(group: Group, model: nn.Module) -> int:
    """Return how many parameters go with one unit."""
    sizes = dict(model.named_parameters())
    return sum(
        member.index.shape[1] * (sizes[member.tensor].numel() // sizes[member.tensor].shape[member.dim])
        for member in group.members
        if member.is_parameter
    )
