"""Does what was cut keep a metric of the dense model, and what is the most that may go?

The test is made on examples that had no part in any choice. Where no amount is asked for, cuts are first walked through on the
examples that choose; what looks good there is tested, at most three times, each at a third of the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from prunus.core.batch import Batched
from prunus.core.calls import call
from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.recipe_file import explained
from prunus.core.recipes.target_contract import Contract
from prunus.data import Batches
from prunus.evaluate import NonInferiority, WorstClass, observe, parts_of
from prunus.evaluate.harm import check_classes, check_groups, check_margins, contract_test, fewest_examples
from prunus.tasks import Agreement, Task, check_metrics, metrics

__all__ = ["N_TESTED", "Promise", "asked_contract", "broken", "kept", "promise_of", "taught"]

T = TypeVar("T")
N_TESTED = 2000
"""Examples that are drawn for the test, where there are so many."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_TESTS = 3


def asked_contract(given: Mapping[str, Any] | None) -> Contract | None:
    """Return what is promised.

    Raises:
        RecipeError: an unknown key, or a number out of its range.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise RecipeError(
            f"contract: expected a mapping, like {{'metric': 'accuracy', 'max_drop': 0.01}}: got {given!r}"
        )
    try:
        return Contract.model_validate(dict(given))
    except ValidationError as error:
        raise RecipeError(explained(error, Contract, "contract")) from None


def taught(model: nn.Module, examples: Batches, *, batch_size: int) -> Batches:
    """Return the examples with the model's own answers as targets."""
    with torch.no_grad():
        return Batches([(b.inputs, call(model.eval(), b.inputs)) for b in examples.batches(batch_size)])


@dataclass(frozen=True)
class Promise:
    """A contract, and what it is judged on: ``choosing`` guides, ``testing`` shows."""

    contract: Contract
    task: Task
    dense: nn.Module
    choosing: Batched
    testing: Batched
    seed: int

    def shown(self, model: nn.Module, *, confidence: float | None = None) -> NonInferiority:
        """Test a model on the examples that chose nothing."""
        return self._compared(model, self.testing, self.contract.confidence if confidence is None else confidence)

    def smallest(self, cut: Callable[[float], tuple[T, nn.Module]]) -> tuple[T, NonInferiority]:
        """Return the smallest cut that is shown to keep the contract, or the last that was tested, and its test.

        Args:
            cut: takes the share that may stay, and returns what was made and its model.
        """
        low, high = 0, len(SHARES)  # the first share that looks good lies in SHARES[low:high], or is none of them
        made: dict[int, tuple[T, nn.Module]] = {}
        while low < high:
            middle = (low + high) // 2
            made[middle] = cut(SHARES[middle])
            if _looks_good(self._compared(made[middle][1], self.choosing, self.contract.confidence)):
                high = middle
            else:
                low = middle + 1
        error = (1 - self.contract.confidence) / MOST_TESTS
        first = min(low, len(SHARES) - 1)
        for number in range(first, min(first + MOST_TESTS, len(SHARES))):
            found, model = made[number] if number in made else cut(SHARES[number])
            test = self.shown(model, confidence=1 - error)
            if test.kept:
                break
        return found, test

    def _compared(self, model: nn.Module, examples: Batched, confidence: float) -> NonInferiority:
        dense, pruned = (observe(one, examples, self.task) for one in (self.dense, model))
        return contract_test(dense, pruned, self.task, self.contract, confidence=confidence, seed=self.seed)


def promise_of(
    contract: Contract,
    task: Task | None,
    model: nn.Module,
    choosing: Batches,
    testing: Batches,
    *,
    batch_size: int,
    seed: int,
) -> Promise:
    """Return what a contract is judged on; without labels it is how often the smaller model says what the dense one does.

    Raises:
        DataError: nobody said what the targets ask for, or there are too few examples.
        RecipeError: the metric is another task's.
    """
    if task is None and not choosing.labelled:
        task = Agreement()
        choosing, testing = (taught(model, part, batch_size=batch_size) for part in (choosing, testing))
        if contract.metric not in metrics or "agreement" not in metrics[contract.metric].tasks:
            raise RecipeError(
                f"contract.metric: {contract.metric!r} needs labels, and the data have none: choose agreement, how often "
                "both models decide the same, or give data with targets"
            )
    if task is None:
        raise DataError(
            "contract: the targets don't tell which metrics there are: give task=..., or a loss of a known task"
        )
    check_metrics([contract.metric], task.name, key="contract.metric")
    check_margins(contract)
    if contract.harm is not None and task.exclusive:
        numbers = torch.cat([batch.targets for batch in testing.batches(batch_size)]).cpu().numpy()
        check_classes(contract, task, numbers, remedy="give more data")
    else:
        check_classes(contract, task, None, remedy="")
    check_groups(contract, None, remedy="")
    promised = metrics[contract.metric]
    n, needed = len(testing), fewest_examples(contract.metric, contract.max_drop, contract.confidence)
    if n < 2 or ((promised.exact_test or not promised.is_share) and n < needed):
        raise DataError(
            f"contract: {n} examples are left for the test, which can't show a drop below {contract.max_drop:g} at confidence "
            f"{contract.confidence:g}: expected at least {needed} beside the {len(choosing)} that choose; give more data"
            f"{', or raise contract.max_drop' if promised.is_share else ''}"
        )
    return Promise(contract, task, model, choosing, testing, seed)


def kept(test: NonInferiority) -> str:
    """Say that a contract is kept."""
    said = f"{metrics[test.metric].label} drops by less than {test.max_drop:g}, {_numbers(test)}"
    return said if test.worst is None else f"{said}; {of_classes(test.worst)}"


def broken(test: NonInferiority) -> str:
    """Say that a contract isn't shown to be kept."""
    if test.worst is not None and not test.worst.kept:
        return f"no cut was shown to keep every class within {test.worst.max_drop:g}: {of_classes(test.worst)}"
    return f"no cut was shown to keep {metrics[test.metric].label} within {test.max_drop:g}, {_numbers(test)}"


def of_classes(worst: WorstClass) -> str:
    """Say what was shown of the classes, the worst one by its name."""
    one = next(each for each in worst.classes if each.name == worst.name)
    said = f"of {one.n}" if one.n_lost is not None else f"of {one.n} things to find"
    shown = f"no class loses more than {worst.bound:.4g} of its recall (the least sure one, {worst.name}: {worst.drop:.4g} {said})"
    if worst.left_out:
        shown += f"; nothing is promised about {', '.join(worst.left_out)}, which have too few examples"
    return shown


def _looks_good(found: NonInferiority) -> bool:
    """Tell whether a cut is worth a test: half of what it may lose isn't lost, and no class loses clearly more than it may."""
    for parts, margin in parts_of(found):
        for one in parts:
            error = sqrt((one.n_lost or 0) + (one.n_gained or 0)) / one.n if one.n_lost is not None else 0.0
            if one.drop - error > margin:
                return False
    return found.drop <= found.max_drop / 2


def _numbers(test: NonInferiority) -> str:
    return (
        f"at confidence {test.confidence:.3g} ({test.dense:.4g} dense, {test.pruned:.4g} pruned, a drop of at most "
        f"{test.bound:.4g}, on {test.n} examples that chose nothing)"
    )
