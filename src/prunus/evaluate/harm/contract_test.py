"""Is a contract kept: the metric as a whole, and where it says so each class and each group of examples?

That no class loses more than a margin is shown by showing it of every class, each at the contract's own confidence. If a class does
lose more, its own test has to fail first, which it does but for the error that is allowed: so nothing is paid for the number of
classes (the intersection-union test; Berger, Technometrics 24:295-300, 1982). For the same reason the largest of the bounds is a
bound on what the worst class loses. So it is with groups of examples, of which each must keep the contract's own metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.target_contract import Contract, Harm
from prunus.core.types import Ints
from prunus.evaluate.by_group import rows_by_name
from prunus.evaluate.compare import class_changes
from prunus.evaluate.noninferiority import (
    ClassLoss,
    NonInferiority,
    WorstClass,
    WorstGroup,
    accuracy_bound,
    examples_needed,
    noninferiority,
)
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.resample import plain_totals
from prunus.tasks import Observed, Tally, Task, rows_of

__all__ = ["Groups", "check_classes", "check_groups", "class_examples", "contract_test", "short_classes"]

_NO_GROUPS = (
    "contract.harm: worst_group is about the groups of a column, and none is named: name one in a recipe's data.groups"
)


@dataclass(frozen=True)
class Groups:
    """To which group each example belongs, by a column of the data; to none where that is empty."""

    column: str
    names: Sequence[str]

    def rows(self) -> dict[str, Ints]:
        """Return the rows of each group."""
        return {name: rows for name, rows in rows_by_name(self.names).items() if name}

    def counts(self) -> dict[str, int]:
        """Return how many examples each group has."""
        return {name: n for name, n in sorted(Counter(self.names).items()) if name}


def contract_test(
    dense: Observed,
    pruned: Observed,
    task: Task,
    contract: Contract,
    *,
    groups: Groups | None = None,
    confidence: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> NonInferiority:
    """Return whether a pruned model keeps all of a contract.

    Args:
        groups: of the examples, where the contract speaks of them.
        confidence: one-sided; default: the contract's.

    Raises:
        RecipeError: an unknown metric, a promise about classes where the task counts none, or about groups where there are none.
        DataError: no examples.
    """
    sure = contract.confidence if confidence is None else confidence
    found = noninferiority(
        dense,
        pruned,
        task,
        metric=contract.metric,
        max_drop=contract.max_drop,
        confidence=sure,
        bootstrap=bootstrap,
        seed=seed,
    )
    harm = contract.harm
    if harm is None:
        return found
    if harm.worst_class is not None:
        losses = _losses(dense, pruned, task, sure, bootstrap, seed)
        judged, left_out = _judged(losses, harm, harm.worst_class, sure)
        worst = max(judged, key=lambda one: one.bound)
        kept = worst.bound <= harm.worst_class
        facts = WorstClass(worst.name, worst.drop, worst.bound, harm.worst_class, judged, left_out, kept)
        found = replace(found, worst=facts, kept=found.kept and kept)
    if harm.worst_group is not None:
        if groups is None:
            raise RecipeError(_NO_GROUPS)
        losses, unknown = _group_losses(dense, pruned, task, contract, groups, sure, bootstrap, seed)
        judged, left_out = _judged(losses, harm, harm.worst_group, sure)
        worst = max(judged, key=lambda one: one.bound)
        kept = worst.bound <= harm.worst_group
        left_out = (*left_out, *unknown)
        about = WorstGroup(groups.column, worst.name, worst.drop, worst.bound, harm.worst_group, judged, left_out, kept)
        found = replace(found, worst_group=about, kept=found.kept and kept)
    return found


def _judged(
    losses: list[ClassLoss], harm: Harm, margin: float, confidence: float
) -> tuple[tuple[ClassLoss, ...], tuple[str, ...]]:
    """Return the parts that the promise is about, and those left out; where all would be, all are judged, and it isn't kept."""
    short = short_classes({one.name: one.n for one in losses}, margin, confidence) if harm.small == "leave_out" else {}
    judged = tuple(one for one in losses if one.name not in short)
    return (judged, tuple(short)) if judged else (tuple(losses), ())


def check_classes(contract: Contract, task: Task, numbers: Ints | None, *, remedy: str) -> None:
    """Refuse a promise about each class where the task counts none, or where a class has too few examples to show it.

    Args:
        numbers: the class of each example that the contract is shown on, where that is known and each has one.
        remedy: what to do about it.

    Raises:
        RecipeError: there are no classes.
        DataError: a class has too few; it says which, and what so many could show.
    """
    if contract.harm is None or contract.harm.worst_class is None:
        return
    if not task.exclusive and not task.counted_names:
        raise RecipeError(
            f"contract.harm: {task.name} has no classes with names, so no worst one: leave contract.harm out"
        )
    if numbers is not None:
        _check_enough(
            contract,
            contract.harm,
            contract.harm.worst_class,
            "classes",
            class_examples(numbers, task.class_names),
            remedy,
        )


def check_groups(contract: Contract, groups: Groups | None, *, remedy: str) -> None:
    """Refuse a promise about each group where there are none, or where one has too few examples to show it.

    Args:
        groups: of the examples that the contract is shown on.
        remedy: what to do about it.

    Raises:
        RecipeError: there are no groups.
        DataError: a group has too few; it says which, and what so many could show.
    """
    if contract.harm is None or contract.harm.worst_group is None:
        return
    if groups is None:
        raise RecipeError(_NO_GROUPS)
    counts = groups.counts()
    if not counts:
        raise DataError(f"contract.harm: no example that it is shown on has a group in {groups.column!r}: {remedy}")
    _check_enough(contract, contract.harm, contract.harm.worst_group, f"groups of {groups.column!r}", counts, remedy)


def _check_enough(
    contract: Contract, harm: Harm, margin: float, what: str, counts: Mapping[str, int], remedy: str
) -> None:
    short, confidence = short_classes(counts, margin, contract.confidence), contract.confidence
    if short and (harm.small == "refuse" or len(short) == len(counts)):
        said = "; ".join(f"{name} has {so_many}" for name, so_many in list(short.items())[:3])
        raise DataError(
            f"contract.harm: {len(short)} of {len(counts)} {what} have too few examples to show a loss below {margin:g} at "
            f"confidence {confidence:g}: expected at least {examples_needed(margin, confidence)} of each to test on, got: {said}"
            f"{'; ...' if len(short) > 3 else ''}; {remedy}"
        )


def class_examples(numbers: Ints, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many examples each class has, by its name; the classes' numbers are ``numbers``, one for each example."""
    counts = np.bincount(numbers, minlength=len(names))
    return {names[c] if c < len(names) else str(c): int(n) for c, n in enumerate(counts)}


def short_classes(counts: Mapping[str, int], margin: float, confidence: float) -> dict[str, str]:
    """Return the classes that have too few examples to show anything, with what they could show at best, in words.

    >>> short_classes({"cat": 200, "dog": 40}, 0.03, 0.95)
    {'dog': '40, which show no less than 0.073'}
    """
    needed = examples_needed(margin, confidence)
    return {
        name: f"{n}, which show no less than {_least(n, confidence):.2g}" if n else "none"
        for name, n in counts.items()
        if n < needed
    }


def _least(n: int, confidence: float) -> float:
    """Return the smallest drop that ``n`` examples exclude, if the models differ on none of them; rounded up."""
    return ceil(1000 * (1 - float((1 - confidence) ** (1 / n)))) / 1000


def _group_losses(
    dense: Observed,
    pruned: Observed,
    task: Task,
    contract: Contract,
    groups: Groups,
    confidence: float,
    bootstrap: int,
    seed: int,
) -> tuple[list[ClassLoss], tuple[str, ...]]:
    """Return what each group loses of the contract's metric, each told alone, and the groups for which that is no number.

    Raises:
        DataError: there is such a group, and it isn't said to leave small ones out; or no group has a number.
    """
    assert contract.harm is not None
    losses, unknown = [], []
    for name, rows in groups.rows().items():
        one, other = rows_of(dense, rows), rows_of(pruned, rows)
        found = noninferiority(
            one,
            other,
            task,
            metric=contract.metric,
            max_drop=contract.max_drop,
            confidence=confidence,
            bootstrap=bootstrap,
            seed=seed,
        )
        if np.isfinite([found.drop, found.bound]).all():
            losses.append(ClassLoss(name, found.n, found.drop, found.bound, found.n_lost, found.n_gained))
        else:
            unknown.append(name)
    if not losses or (unknown and contract.harm.small == "refuse"):
        raise DataError(
            f"contract.harm: {contract.metric} is no number for {', '.join(unknown[:3]) or 'no group'} of {groups.column!r}: "
            "choose another contract.metric, give more examples, or say small: leave_out"
        )
    return losses, tuple(unknown)


def _losses(
    dense: Observed, pruned: Observed, task: Task, confidence: float, bootstrap: int, seed: int
) -> list[ClassLoss]:
    """Return what each class that is there loses, with a bound that holds for it alone."""
    if task.exclusive:
        found = []
        for number, (name, n) in enumerate(class_examples(dense["true"], task.class_names).items()):
            here = dense["true"] == number
            one, other = dense["right"][here], pruned["right"][here]
            lost, gained = int((one & ~other).sum()), int((other & ~one).sum())
            bound = accuracy_bound(lost, gained, n, confidence) if n else 1.0
            if n:
                found.append(ClassLoss(name, n, (lost - gained) / n, bound, lost, gained))
        return found
    total = plain_totals(task, dense)
    if not isinstance(total, Tally):
        raise RecipeError(
            f"contract.harm: {task.name} counts no classes, so there is no worst one: leave contract.harm out"
        )
    enough = max(bootstrap, ceil(20 / (1 - confidence)))
    changes = class_changes(Pairs([dense], [pruned], task, 2 * confidence - 1, enough, seed))
    support = [int(n) for n in total.support[0] if n > 0]
    return [
        ClassLoss(
            one.name,
            n,
            -one.value,
            # Resamples of no difference have no width: few things would be found otherwise is what is shown.
            max(-one.low, 1 - (1 - confidence) ** (1 / n)) if one.value == one.low else -one.low,
            None,
            None,
        )
        for one, n in zip(changes, support, strict=False)
    ]
