"""Which examples share a budget, and how many of each class must stay?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunus.core.errors import RecipeError, RunError
from prunus.core.runtime import generator
from prunus.core.types import Bools, Floats, Stratum
from prunus.score.examples.example_criteria import example_criteria

if TYPE_CHECKING:
    from prunus.data import Examples

__all__ = ["example_strata"]


def example_strata(
    criterion: str,
    evidence: Mapping[str, Tensor],
    examples: Examples,
    *,
    class_floor: float = 0.0,
    keep_fraction: float | None = None,
    cutoff: float | None = None,
    judged: Bools | None = None,
    seed: int = 0,
    by_class: bool = False,
) -> list[Stratum]:
    """Return one stratum per class (one in all where examples have no class); a unit is the position of an example.

    Args:
        criterion: a name in ``example_criteria``.
        evidence: what :meth:`ExampleRecorder.tensors` gave.
        examples: their targets and class names.
        class_floor: every class keeps at least this share of its fair part, which is the share of all judged examples that stays,
            and one example at least; 0: a class may vanish.
        keep_fraction: that share; with a ``cutoff`` it is the share that reaches it. Without either the fair part is everything.
        cutoff: see ``keep_fraction``.
        judged: which examples may go; the others are in no stratum.
        seed: for ``random``.
        by_class: the criterion sees the examples of one class at a time, as what covers a class must; then saliencies of two
            classes don't compare.

    Raises:
        RecipeError: an unknown criterion, or a floor outside [0, 1].
        RunError: the evidence lacks what the criterion reads, or is of another number of examples.
    """
    chosen = example_criteria[criterion]
    if not 0 <= class_floor <= 1:
        raise RecipeError(f"class_floor must be in [0, 1], a share of each class's fair part: got {class_floor!r}")
    n = len(examples)
    given = dict(evidence)
    if "noise" in chosen.needs:
        given["noise"] = torch.rand(n, generator=generator(seed, "score", "examples", criterion))
    for need in chosen.needs:
        if need not in given or len(given[need]) != n:
            got = f"{len(given[need])} of them" if need in given else f"only {', '.join(sorted(given)) or 'nothing'}"
            raise RunError(f"example criterion {criterion!r} needs {need!r} for {n} examples: got {got}")
    classes = _classes(examples)
    saliency = np.zeros(n)
    for rows in [np.flatnonzero(member) for _, member in classes] if by_class else [np.arange(n)]:
        own = {need: given[need][torch.from_numpy(rows)] for need in chosen.needs}
        if not by_class or len(rows) > 1:  # one alone is compared with nothing
            saliency[rows] = chosen(own).detach().cpu().double().numpy()
    open_ = np.ones(n, np.bool_) if judged is None else judged
    share = _fair_share(saliency[open_], keep_fraction, cutoff)
    strata = []
    for name, member in classes:
        units = np.flatnonzero(member & open_).astype(np.int64)
        if len(units):
            # Not rounded up: a floor must not ask for more than the fair part itself. But a floor is one example at least:
            # of a small class its share may be none, and a class without an example can't be learnt.
            floor = max(int(class_floor * share * len(units)), int(class_floor > 0))
            strata.append(Stratum(name, saliency[units], units, min_units=floor))
    return strata


def _fair_share(saliency: Floats, keep_fraction: float | None, cutoff: float | None) -> float:
    if keep_fraction is not None:
        return keep_fraction
    if cutoff is None or not len(saliency):
        return 1.0
    return float((saliency >= cutoff).mean())


def _classes(examples: Examples) -> list[tuple[str, Bools]]:
    if not examples.task.exclusive:
        return [("all", np.ones(len(examples), np.bool_))]
    targets, names = examples.targets.cpu().numpy(), examples.class_names
    numbers = np.unique(targets).tolist()
    return [(names[number] if number < len(names) else str(number), targets == number) for number in numbers]
