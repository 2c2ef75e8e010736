"""Is a contract kept: the metric as a whole, and where it says so each class?

That no class loses more than a margin is shown by showing it of every class, each at the contract's own confidence. If a class does
lose more, its own test has to fail first, which it does but for the error that is allowed: so nothing is paid for the number of
classes (the intersection-union test; Berger, Technometrics 24:295-300, 1982). For the same reason the largest of the bounds is a
bound on what the worst class loses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import numpy as np

from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.target_contract import Contract
from prunus.core.types import Ints
from prunus.evaluate.compare import class_changes
from prunus.evaluate.noninferiority import (
    ClassLoss,
    NonInferiority,
    WorstClass,
    accuracy_bound,
    examples_needed,
    noninferiority,
)
from prunus.evaluate.pairs import Pairs
from prunus.evaluate.resample import plain_totals
from prunus.tasks import Observed, Tally, Task

__all__ = ["check_classes", "class_examples", "contract_test", "short_classes"]


def contract_test(
    dense: Observed,
    pruned: Observed,
    task: Task,
    contract: Contract,
    *,
    confidence: float | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> NonInferiority:
    """Return whether a pruned model keeps all of a contract.

    Args:
        confidence: one-sided; default: the contract's.

    Raises:
        RecipeError: an unknown metric, or a promise about classes where the task counts none.
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
    if contract.harm is None:
        return found
    losses = _losses(dense, pruned, task, sure, bootstrap, seed)
    left_out: tuple[str, ...] = ()
    if contract.harm.small == "leave_out":
        left_out = tuple(short_classes({one.name: one.n for one in losses}, contract.harm.worst_class, sure))
    judged = [one for one in losses if one.name not in left_out]
    if not judged:
        raise DataError(
            f"contract.harm: no class has enough examples to show a loss below {contract.harm.worst_class:g}: got "
            f"{', '.join(f'{one.name} {one.n}' for one in losses)}; give more, or raise worst_class"
        )
    worst = max(judged, key=lambda one: one.bound)
    kept = worst.bound <= contract.harm.worst_class
    facts = WorstClass(worst.name, worst.drop, worst.bound, contract.harm.worst_class, tuple(judged), left_out, kept)
    return replace(found, worst=facts, kept=found.kept and kept)


def check_classes(contract: Contract, task: Task, numbers: Ints | None, *, remedy: str) -> None:
    """Refuse a promise about each class where the task counts none, or where a class has too few examples to show it.

    Args:
        numbers: the class of each example that the contract is shown on, where that is known and each has one.
        remedy: what to do about it.

    Raises:
        RecipeError: there are no classes.
        DataError: a class has too few; it says which, and what so many could show.
    """
    if contract.harm is None:
        return
    if not task.exclusive and not task.counted_names:
        raise RecipeError(
            f"contract.harm: {task.name} has no classes with names, so no worst one: leave contract.harm out"
        )
    if numbers is None or contract.harm.small == "leave_out":
        return
    counts = class_examples(numbers, task.class_names)
    margin, confidence = contract.harm.worst_class, contract.confidence
    short = short_classes(counts, margin, confidence)
    if short:
        said = "; ".join(f"{name} has {what}" for name, what in list(short.items())[:3])
        raise DataError(
            f"contract.harm: {len(short)} of {len(counts)} classes have too few examples to show a loss below {margin:g} at "
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
