"""A plan finds its examples by id, and is refused when they are not the ones it was made for."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from prunus.apply import relabel_examples, remove_examples
from prunus.core.errors import PlanError, RunError
from prunus.core.types import Decision, Step
from prunus.tasks import Classification, Task


@dataclass(frozen=True)
class TinyExamples:
    ids: tuple
    targets: torch.Tensor
    task: Task = field(default_factory=Classification)
    n_outputs: int = 3

    def __len__(self):
        return len(self.ids)

    def select(self, keep):
        return replace(self, ids=tuple(np.array(self.ids)[keep]), targets=self.targets[torch.from_numpy(keep)])

    def with_targets(self, targets):
        return replace(self, targets=targets)


@pytest.fixture
def examples():
    return TinyExamples(("a", "b", "c", "d"), torch.tensor([0, 1, 2, 0]))


def decision(labels, keep=None, **columns):
    n = len(labels)
    keep = np.ones(n, bool) if keep is None else np.array(keep)
    columns = {name: np.array(values, float) for name, values in columns.items()}
    return Decision(
        "class", np.arange(n), np.zeros(n), keep, np.full(n, "", object), label=np.array(labels, object), **columns
    )


def removal(*decisions):
    return Step("remove", "example", "el2n", decisions)


def relabelling(*decisions):
    return Step("relabel", "example", "neighbours", decisions)


def test_examples_go_by_id_whatever_the_order_and_the_rest_stays(examples):
    step = removal(decision(["d", "a"], [True, False]), decision(["b"], [False]))
    assert remove_examples(examples, step).ids == ("c", "d")
    turned = TinyExamples(("d", "c", "b", "a"), examples.targets)
    assert remove_examples(turned, step).ids == ("d", "c")


def test_a_plan_that_removes_nothing_is_the_identity(examples):
    assert remove_examples(examples, removal(decision(["a", "b"]))) is examples
    assert relabel_examples(examples, relabelling(decision(["a"], before=[np.nan], after=[np.nan]))) is examples


@pytest.mark.parametrize("apply", [remove_examples, relabel_examples])
def test_ids_that_are_not_in_the_data_are_refused(examples, apply):
    step = removal(decision(["a", "x", "y"], [True, True, False], before=[0] * 3, after=[np.nan] * 3))
    with pytest.raises(PlanError, match=r"2 examples that aren't in the data \(the first is 'x' of 'class'\)"):
        apply(examples, step)


def test_an_example_that_is_judged_twice_is_refused(examples):
    for step in (removal(decision(["a", "a"])), removal(decision(["a"]), decision(["a"]))):
        with pytest.raises(PlanError, match="twice in one step"):
            remove_examples(examples, step)


def test_a_plan_without_ids_is_refused(examples):
    with pytest.raises(PlanError, match="has no labels"):
        remove_examples(examples, removal(replace(decision(["a"]), label=None)))


def test_removing_everything_is_refused(examples):
    with pytest.raises(RunError, match="removes all 4 examples"):
        remove_examples(examples, removal(decision(["a", "b", "c", "d"], [False] * 4)))


def test_labels_are_replaced_by_id_and_the_given_examples_are_not_touched(examples):
    step = relabelling(decision(["c", "a"], before=[np.nan, 0], after=[np.nan, 2]))
    assert relabel_examples(examples, step).targets.tolist() == [2, 1, 2, 0]
    assert examples.targets.tolist() == [0, 1, 2, 0]
    assert relabel_examples(examples, step).targets.dtype == torch.int64


def test_another_old_label_than_the_plan_s_is_refused(examples):
    with pytest.raises(PlanError, match="'a' should have label 1 before the repair, got 0"):
        relabel_examples(examples, relabelling(decision(["a"], before=[1], after=[2])))


@pytest.mark.parametrize("after", [3, -1, 0.5])
def test_a_new_label_that_is_no_class_is_refused(examples, after):
    with pytest.raises(PlanError, match=r"expected a class number in 0 ... 2"):
        relabel_examples(examples, relabelling(decision(["a"], before=[0], after=[after])))


def test_a_relabelling_without_values_is_refused(examples):
    with pytest.raises(PlanError, match="must say the labels before and after"):
        relabel_examples(examples, relabelling(decision(["a"])))
