"""How does a small model learn what the big one computes on its way, not only what it answers?

Teacher and student are compared where modules of the same name give outputs: after residual blocks, or after layers where there are
no blocks. Widths may differ, since units left: then not the numbers are compared but how alike the examples of a batch look.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunus.core.calls import arguments, call, n_examples
from prunus.core.errors import RecipeError, near

__all__ = ["FeatureMatch", "check_modules", "feature_distance", "match_features"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class FeatureMatch:
    """Pairs of modules (student's name, teacher's name) whose outputs are to become alike.

    Inside :meth:`attached` both models' last outputs are remembered; :meth:`distance` compares them.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, pairs: Sequence[tuple[str, str]]) -> None:
        self.student, self.teacher, self.pairs = student, teacher, tuple(pairs)
        self._of_student: dict[str, Tensor] = {}
        self._of_teacher: dict[str, Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Remember outputs inside the block."""
        with ExitStack() as stack:
            stack.callback(self._of_student.clear)
            stack.callback(self._of_teacher.clear)
            for mine, its in self.pairs:
                for model, name, kept in (
                    (self.student, mine, self._of_student),
                    (self.teacher, its, self._of_teacher),
                ):
                    handle = model.get_submodule(name).register_forward_hook(partial(_keep_output, kept, name))
                    stack.callback(handle.remove)
            yield

    def distance(self) -> Tensor:
        """Return the mean distance over the pairs, of the last batch that both models saw; in [0, ...), 0 where they agree."""
        distances = [
            feature_distance(self._of_student[mine], self._of_teacher[its].detach()) for mine, its in self.pairs
        ]
        self._of_student.clear()
        self._of_teacher.clear()
        return torch.stack(distances).mean()

    def seen(self) -> list[tuple[str, str]]:
        """Return the pairs that gave one row per example, as many in both models."""
        mine, its = self._of_student, self._of_teacher
        return [
            (one, other)
            for one, other in self.pairs
            if one in mine and other in its and len(mine[one]) == len(its[other])
        ]


def match_features(
    student: nn.Module, teacher: nn.Module, inputs: Any, patterns: Sequence[str] = ()
) -> FeatureMatch | None:
    """Return what to compare: modules that are in both models under one name; None when there are none.

    Without ``patterns`` these are the blocks (modules with parts of their own, in a list or sequence), or else all layers with
    weights but the last. Where a list lost some of its blocks, its numbers mean others: then its last block alone is compared.

    Args:
        inputs: some examples, to see which modules run and give one tensor with a row per example.

    Raises:
        RecipeError: a pattern fits no module of the teacher.
    """
    check_modules(teacher, patterns)
    if patterns:
        candidates = [
            name
            for name, _ in student.named_modules()
            if any(fnmatch.fnmatchcase(name.removeprefix("inner."), pattern) for pattern in patterns)
        ]
    else:
        candidates = _blocks(student) or _layers(student)[:-1]
    pairs = [(name, other) for name in candidates if name and (other := _counterpart(name, student, teacher))]
    match = FeatureMatch(student, teacher, pairs)
    modes = {module: module.training for model in (student, teacher) for module in model.modules()}
    try:
        with torch.no_grad(), match.attached():
            call(student.eval(), inputs)
            call(teacher.eval(), inputs)
            seen = [pair for pair in match.seen() if len(match._of_student[pair[0]]) == n_examples(arguments(inputs))]
    finally:
        for module, training in modes.items():
            module.training = training
    return FeatureMatch(student, teacher, seen) if seen else None


def check_modules(teacher: nn.Module, patterns: Sequence[str]) -> None:
    """Refuse a pattern that fits no module of ``teacher``.

    Raises:
        RecipeError: it names the pattern and the nearest module.
    """
    names = [name for name, _ in teacher.named_modules() if name]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise RecipeError(
                f"recovery.distil.modules: {pattern!r} fits no module of the dense model; {near(pattern, names[:60])}"
            )


def feature_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return how far two features of the same examples are apart.

    Of one shape: the squared error relative to the teacher's mean square. Else: the rows of both Gram matrices over the batch
    (which examples look alike?), normalised, and the mean squared distance of the rows, in [0, 4].

    Shapes:
        Both are ``(n, ...)``.
    References:
        Romero et al., ICLR 2015, arXiv:1412.6550 (same shape; no regressor is needed). Tung and Mori, ICCV 2019, arXiv:1907.09682
        (Gram matrices; they divide by n², here it is the mean over the rows, so that the batch size doesn't change the weight).

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> feature_distance(2 * x, x), feature_distance(torch.tensor([[3.0], [0.0]]), x)
    (tensor(1.), tensor(0.5000))
    """
    student, teacher = student.float().flatten(start_dim=1), teacher.float().flatten(start_dim=1)
    if student.shape == teacher.shape:
        return (student - teacher).square().mean() / teacher.square().mean().clamp_min(1e-12)
    return (_alike(student) - _alike(teacher)).square().sum(dim=1).mean()


def _alike(features: Tensor) -> Tensor:
    return nn.functional.normalize(features @ features.T, dim=1)


def _keep_output(kept: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    if isinstance(output, Mapping):
        output = tuple(output.values())
    first = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(first, Tensor) and first.ndim > 1 and first.is_floating_point():
        kept[name] = first


def _blocks(model: nn.Module) -> list[str]:
    """Return the outermost modules with parts and parameters of their own that stand in a list or sequence."""
    found: list[str] = []
    for path, container in model.named_modules():
        if not isinstance(container, _CONTAINERS) or any(path.startswith(f"{name}.") for name in found):
            continue
        for entry, child in container.named_children():
            whole = any(True for _ in child.children()) and any(True for _ in child.parameters())
            if whole and type(child) not in _CONTAINERS:
                found.append(f"{path}.{entry}".removeprefix("."))
    return found


def _layers(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    ]


def _counterpart(name: str, student: nn.Module, teacher: nn.Module) -> str:
    """Return the name of the teacher's module for that of the student's, or "" when there is none."""
    if name == "inner" or name.startswith("inner."):  # a model whose input features were cut wraps the other
        try:
            teacher.get_submodule("inner")
        except AttributeError:
            student, name = student.get_submodule("inner"), name.removeprefix("inner").removeprefix(".")
    path: list[str] = []
    mine, its = student, teacher
    for part in name.split(".") if name else []:
        here, there = dict(mine.named_children()), dict(its.named_children())
        other = part
        if part.isdecimal() and len(here) != len(there):
            if part != list(here)[-1] or not there:
                return ""
            other = list(there)[-1]
        if part not in here or other not in there:
            return ""
        mine, its = here[part], there[other]
        path.append(other)
    return ".".join(path)
