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
from prunus.tasks import Observed, Tally, Task, metrics, rows_of

__all__ = [
    "Groups",
    "check_classes",
    "check_groups",
    "check_margin",
    "check_margins",
    "class_examples",
    "contract_test",
    "fewest_examples",
    "short_parts",
]

FEWEST_NUMBERS = 30
"""So many examples at least, where a metric is no share: no margin says how many are enough, and a bootstrap of few is too sure of
itself. Of the mean of 30 normal numbers its bound with 95 % confidence holds in 94.2 % (of 10 in 92.3, of 2 in 77.4; one has none).
"""

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
        judged, left_out = _judged(losses, harm, None, harm.worst_class, sure)
        worst = max(judged, key=lambda one: one.bound)
        sure_enough = task.exclusive or _all_enough(judged, None, harm.worst_class, sure)
        kept = sure_enough and worst.bound <= harm.worst_class
        facts = WorstClass(worst.name, worst.drop, worst.bound, harm.worst_class, judged, left_out, kept)
        found = replace(found, worst=facts, kept=found.kept and kept)
    if harm.worst_group is not None:
        if groups is None:
            raise RecipeError(_NO_GROUPS)
        losses, unknown = _group_losses(dense, pruned, task, contract, groups, sure, bootstrap, seed)
        judged, left_out = _judged(losses, harm, contract.metric, harm.worst_group, sure)
        worst = max(judged, key=lambda one: one.bound)
        # With an exact test so few examples leave a bound above the margin; a bootstrap of them may leave any.
        exact = metrics[contract.metric].exact_test
        sure_enough = exact or _all_enough(judged, contract.metric, harm.worst_group, sure)
        kept = sure_enough and worst.bound <= harm.worst_group
        about = WorstGroup(
            groups.column, worst.name, worst.drop, worst.bound, harm.worst_group, judged, left_out, unknown, kept
        )
        found = replace(found, worst_group=about, kept=found.kept and kept)
    return found


def _judged(
    losses: list[ClassLoss], harm: Harm, metric: str | None, margin: float, confidence: float
) -> tuple[tuple[ClassLoss, ...], tuple[str, ...]]:
    """Return the parts that the promise is about, and those left out; where all would be, all are judged, and it isn't kept.

    Args:
        metric: that is promised of each; None: the share that is right of a class, or found of it.
    """
    counts = {one.name: one.n for one in losses} if harm.small == "leave_out" else {}
    short = short_parts(counts, metric, margin, confidence)
    judged = tuple(one for one in losses if one.name not in short)
    return (judged, tuple(short)) if judged else (tuple(losses), ())


def _all_enough(judged: tuple[ClassLoss, ...], metric: str | None, margin: float, confidence: float) -> bool:
    needed = fewest_examples(metric, margin, confidence)
    return all(one.n >= needed for one in judged)


def check_classes(contract: Contract, task: Task, numbers: Ints | None, *, remedy: str) -> None:
    """Refuse a promise about each class where the task counts none, or where a class has too few examples to show it.

    Args:
        numbers: the class of each example that the contract is shown on, where that is known and each has one.
        remedy: how to get more examples.

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
        counts = class_examples(numbers, task.class_names)
        _check_enough(contract, None, "worst_class", contract.harm.worst_class, "classes", counts, remedy)


def check_groups(contract: Contract, groups: Groups | None, *, remedy: str) -> None:
    """Refuse a promise about each group where there are none, or where one has too few examples to show it.

    Args:
        groups: of the examples that the contract is shown on.
        remedy: how to get more examples.

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
    what, margin = f"groups of {groups.column!r}", contract.harm.worst_group
    _check_enough(contract, contract.metric, "worst_group", margin, what, counts, remedy)


def _check_enough(
    contract: Contract, metric: str | None, key: str, margin: float, what: str, counts: Mapping[str, int], remedy: str
) -> None:
    assert contract.harm is not None
    sure = contract.confidence
    short = short_parts(counts, metric, margin, sure)
    if not short or (contract.harm.small == "leave_out" and len(short) < len(counts)):
        return
    said = "; ".join(f"{name} has {so_many}" for name, so_many in list(short.items())[:3])
    share = _is_share(metric)
    about = f"to show a loss below {margin:g} at" if share else f"to tell how {metric} changes there with"
    needed, more = fewest_examples(metric, margin, sure), "; ..." if len(short) > 3 else ""
    raise DataError(
        f"contract.harm: {len(short)} of {len(counts)} {what} have too few examples {about} confidence {sure:g}: expected at "
        f"least {needed} of each to test on, got: {said}{more}; {remedy}"
        f"{f', raise {key}' if share else ''}{', or say small: leave_out' if len(short) < len(counts) else ''}"
    )


def check_margins(contract: Contract, *, key: str = "contract") -> None:
    """Refuse a contract that allows more of its metric to go than there can be.

    Raises:
        RecipeError: it says which margin.
    """
    check_margin(contract.metric, contract.max_drop, key=f"{key}.max_drop")
    if contract.harm is not None and contract.harm.worst_group is not None:
        check_margin(contract.metric, contract.harm.worst_group, key=f"{key}.harm.worst_group")


def check_margin(metric: str, margin: float, *, key: str) -> None:
    """Refuse a margin that is always kept, of a metric that is 1 at the most: 3 was meant as points.

    Raises:
        RecipeError: it is 1 or more, or the metric is unknown.
    """
    asked = metrics[metric]
    # What has a unit may be any number, and so may what is better the lower it is, unless it is a share.
    if (asked.is_share or (asked.higher_is_better and not asked.unit)) and margin >= 1:
        raise RecipeError(f"{key} must be below 1 for {metric}, 0.01 is one point: got {margin:g}")


def class_examples(numbers: Ints, names: tuple[str, ...]) -> dict[str, int]:
    """Return how many examples each class has, by its name; the classes' numbers are ``numbers``, one for each example."""
    counts = np.bincount(numbers, minlength=len(names))
    return {names[c] if c < len(names) else str(c): int(n) for c, n in enumerate(counts)}


def fewest_examples(metric: str | None, margin: float, confidence: float) -> int:
    """Return how many examples it takes to show anything of a metric; None: of the share that is right of a class.

    Of a share so many that two models which differ on none of them show a drop below the margin. Other margins are in units of
    their own, which don't say how many are enough.
    """
    return examples_needed(margin, confidence) if _is_share(metric) else FEWEST_NUMBERS


def short_parts(counts: Mapping[str, int], metric: str | None, margin: float, confidence: float) -> dict[str, str]:
    """Return the classes or groups that have too few examples to show anything, with what they could show at best, in words.

    >>> short_parts({"cat": 200, "dog": 40}, "accuracy", 0.03, 0.95)
    {'dog': '40, which show no less than 0.073'}
    >>> short_parts({"cat": 200, "dog": 2}, "mae", 3.0, 0.95)
    {'dog': '2'}
    """
    needed, share = fewest_examples(metric, margin, confidence), _is_share(metric)
    return {
        name: ("none" if not n else f"{n}, which show no less than {_least(n, confidence):.2g}" if share else f"{n}")
        for name, n in counts.items()
        if n < needed
    }


def _is_share(metric: str | None) -> bool:
    return metric is None or metrics[metric].is_share


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
