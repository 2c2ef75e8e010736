"""A contract that speaks of the worst class: kept only where every class is shown to lose no more than it may."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from prunus.core.batch import Batch
from prunus.core.errors import DataError, RecipeError
from prunus.core.recipes.target_contract import Contract
from prunus.evaluate import examples_needed, noninferiority, promises
from prunus.evaluate.harm import Groups, check_classes, check_groups, check_margin, check_margins, contract_test
from prunus.tasks import Classification, MultiLabel, Regression

TASK = Classification(("a", "b", "c"))


def contract(**more):
    return Contract.model_validate({"max_drop": 0.05, "harm": {"worst_class": 0.05, **more}})


def pair(counts, lost=(0, 0, 0), gained=(0, 0, 0)):
    """Return what both models answer: of each class so many, of which the pruned one loses and gains some."""
    true = np.repeat(np.arange(3), counts)
    answers = []
    for wrong in (gained, lost):
        said = true.copy()
        for number, k in enumerate(wrong):
            first = np.flatnonzero(true == number)
            rows = first[:k] if wrong is lost else first[len(first) - k :]
            said[rows] = (number + 1) % 3
        answers.append({"true": true, "predicted": said, "right": said == true})
    return answers


def test_the_bound_is_the_largest_of_those_that_each_class_has_alone():
    dense, pruned = pair((200, 300, 250), lost=(2, 9, 1), gained=(0, 1, 2))
    found = contract_test(dense, pruned, TASK, contract())
    alone = []
    for number in range(3):
        rows = dense["true"] == number
        one, two = ({key: value[rows] for key, value in seen.items()} for seen in (dense, pruned))
        alone.append(noninferiority(one, two, TASK, metric="accuracy", max_drop=0.05, confidence=0.95))
    assert found.worst.bound == max(one.bound for one in alone)
    assert found.worst.name == "b"
    assert [one.drop for one in found.worst.classes] == pytest.approx([one.drop for one in alone])
    assert found.worst.kept == all(one.kept for one in alone)


def test_a_good_mean_doesnt_hide_a_class_that_loses():
    dense, pruned = pair((500, 500, 100), lost=(0, 0, 12))
    found = contract_test(dense, pruned, TASK, contract())
    assert noninferiority(dense, pruned, TASK, metric="accuracy", max_drop=0.05, confidence=0.95).kept
    assert not found.kept
    assert found.worst.name == "c"


def test_a_class_with_too_few_examples_cant_be_shown_though_it_loses_nothing():
    dense, pruned = pair((200, 200, 20))
    found = contract_test(dense, pruned, TASK, contract())
    assert not found.kept
    assert found.worst.name == "c"
    left = contract_test(dense, pruned, TASK, contract(small="leave_out"))
    assert left.kept
    assert left.worst.left_out == ("c",)


def test_classes_that_cant_show_it_are_refused_before_any_work_with_what_they_can():
    numbers = np.repeat(np.arange(3), (200, 40, 59))
    with pytest.raises(
        DataError, match=r"1 of 3 classes.*at least 59.*b has 40, which show no less than 0\.07.*; more data"
    ):
        check_classes(contract(), TASK, numbers, remedy="more data")
    check_classes(contract(small="leave_out"), TASK, numbers, remedy="")
    assert examples_needed(0.05, 0.95) == 59


def test_what_the_message_says_that_few_examples_can_show_they_can():
    dense, pruned = pair((200, 200, 40))
    found = contract_test(dense, pruned, TASK, Contract.model_validate({"harm": {"worst_class": 0.073}}))
    assert found.worst.kept


def test_a_task_without_classes_has_no_worst_one():
    with pytest.raises(RecipeError, match="no classes"):
        check_classes(contract(), Regression(), None, remedy="")


def test_labels_of_which_an_example_has_several_are_judged_by_resampling():
    rng = np.random.default_rng(0)
    there = rng.random((800, 3)) < 0.5
    seen = []
    for miss in (0.02, 0.2):
        said = there & (rng.random(there.shape) >= np.array([0.02, 0.02, miss]))
        seen.append({"n_there": there, "n_said": said, "n_right": there & said, "right": (there == said).all(axis=1)})
    asked = Contract.model_validate({"metric": "f1_micro", "max_drop": 0.2, "harm": {"worst_class": 0.08}})
    found = contract_test(*seen, MultiLabel(("x", "y", "z")), asked)
    assert found.worst.name == "z"
    assert not found.kept
    same = contract_test(seen[0], seen[0], MultiLabel(("x", "y", "z")), asked)
    assert same.kept
    assert same.worst.bound > 0  # resamples of no difference have no width, and yet few examples leave doubt


def test_promises_look_at_every_class():
    dense, pruned = pair((400, 400, 400), lost=(2, 2, 2))
    found = contract_test(dense, pruned, TASK, contract())
    assert promises(found, found.n)
    dense, pruned = pair((1100, 60, 60), lost=(0, 0, 3))
    found = contract_test(dense, pruned, TASK, contract())
    assert not promises(found, found.n)
    assert not promises(found, 10 * found.n)  # three of sixty are lost, and five of a hundred are allowed


@pytest.mark.parametrize("share", [0.05, 0.0])
def test_a_class_that_loses_just_too_much_is_let_pass_as_rarely_as_was_said(share):
    """Five classes, one of which loses the margin: nothing is paid for the number of classes, and the error is kept."""
    rng, n_passed = np.random.default_rng(0), 0
    task = Classification(tuple("abcde"))
    true = np.repeat(np.arange(5), 150)
    for _ in range(150):
        wrong = (true == 4) & (rng.random(750) < share)
        dense = {"true": true, "predicted": true, "right": np.ones(750, bool)}
        said = np.where(wrong, 0, true)
        pruned = {"true": true, "predicted": said, "right": said == true}
        n_passed += contract_test(dense, pruned, task, contract()).worst.kept
    assert n_passed <= 14 if share else n_passed == 150


def of_groups(**more):
    return Contract.model_validate({"max_drop": 0.05, "harm": {"worst_group": 0.05, **more}})


def test_the_bound_on_the_worst_group_is_the_largest_of_those_that_each_has_alone():
    dense, pruned = pair((200, 300, 250), lost=(2, 9, 1), gained=(0, 1, 2))
    sites = np.random.default_rng(0).choice(["north", "south", ""], 750, p=[0.6, 0.3, 0.1])
    found = contract_test(dense, pruned, TASK, of_groups(), groups=Groups("site", sites.tolist())).worst_group
    alone = {}
    for name in ("north", "south"):
        one, two = ({key: value[sites == name] for key, value in seen.items()} for seen in (dense, pruned))
        alone[name] = noninferiority(one, two, TASK, metric="accuracy", max_drop=0.05, confidence=0.95)
    assert {one.name: (one.n, one.drop, one.bound) for one in found.groups} == {
        name: (one.n, one.drop, one.bound) for name, one in alone.items()
    }
    assert (found.column, found.bound) == ("site", max(one.bound for one in alone.values()))


def test_a_good_mean_and_good_classes_dont_hide_a_group_that_loses():
    dense, pruned = pair((500, 500, 500), lost=(6, 6, 6))
    hurt = ~pruned["right"] | (np.arange(1500) % 10 == 0)
    groups = Groups("site", np.where(hurt, "small", "large").tolist())
    asked = Contract.model_validate({"max_drop": 0.05, "harm": {"worst_class": 0.05, "worst_group": 0.05}})
    found = contract_test(dense, pruned, TASK, asked, groups=groups)
    assert found.worst.kept
    assert found.bound <= 0.05
    assert not found.kept
    assert found.worst_group.name == "small"
    assert not promises(found, found.n)


def test_of_numbers_each_group_keeps_the_contract_s_own_metric_in_its_own_unit():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(600, 1))
    site = np.where(np.arange(600) < 300, "a", "b")
    dense, worse = true + 0.1, true + np.where(site == "b", 1.0, 0.1)[:, None]
    seen = [Regression().observe(torch.tensor(said), Batch(None, None, torch.tensor(true))) for said in (dense, worse)]
    asked = Contract.model_validate({"metric": "mae", "max_drop": 1.0, "harm": {"worst_group": 0.5}})
    found = contract_test(*seen, Regression(), asked, groups=Groups("site", site.tolist()))
    assert found.bound <= 1
    assert not found.kept
    assert [one.drop for one in found.worst_group.groups] == pytest.approx([0.0, 0.9])
    assert contract_test(seen[0], seen[0], Regression(), asked, groups=Groups("site", site.tolist())).kept


def test_groups_that_cant_show_it_are_refused_before_any_work_or_left_out():
    groups = Groups("site", ["a"] * 200 + ["b"] * 40 + [""] * 9)
    with pytest.raises(DataError, match=r"1 of 2 groups of 'site'.*at least 59.*b has 40, which show no less.*; more"):
        check_groups(of_groups(), groups, remedy="more data")
    check_groups(of_groups(small="leave_out"), groups, remedy="")
    check_groups(contract(), None, remedy="")
    for few in (["b"] * 40, [""] * 400):
        with pytest.raises(DataError, match="more data"):
            check_groups(of_groups(small="leave_out"), Groups("site", few), remedy="more data")
    with pytest.raises(RecipeError, match=r"data\.groups"):
        check_groups(of_groups(), None, remedy="")
    dense, pruned = pair((200, 40, 9))
    with pytest.raises(RecipeError, match=r"data\.groups"):
        contract_test(dense, pruned, TASK, of_groups())
    left = contract_test(dense, pruned, TASK, of_groups(small="leave_out"), groups=groups)
    assert left.kept
    assert left.worst_group.left_out == ("b",)


def numbers_of(sizes, errors, unit=1.0):
    """Return what a dense and a pruned regression answer for groups of such sizes, worse by a constant in each, and the groups."""
    rng, names = np.random.default_rng(0), np.repeat(list(sizes), list(sizes.values())).tolist()
    true = rng.normal(size=(len(names), 1))
    off = np.array([errors.get(name, 0.0) for name in names])[:, None]
    noise = 0.1 * rng.random(true.shape)
    seen = [
        Regression().observe(torch.tensor(said), Batch(None, None, torch.tensor(true)))
        for said in (true + unit * noise, true + unit * (noise + off))
    ]
    return *seen, Groups("site", names)


def of_numbers(margin, small="refuse", metric="mae"):
    harm = {"worst_group": margin, "small": small}
    return Contract.model_validate({"metric": metric, "max_drop": 10 * margin, "harm": harm})


@pytest.mark.parametrize("margin", [2.0, 0.01])
def test_of_numbers_a_group_of_one_example_shows_nothing_whatever_the_unit_of_the_margin(margin):
    dense, pruned, groups = numbers_of({"a": 200, "b": 1}, {"b": 0.5}, unit=margin)
    with pytest.raises(
        DataError, match=r"1 of 2 groups of 'site'.*tell how mae changes.*at least 30.*b has 1; more"
    ) as told:
        check_groups(of_numbers(margin), groups, remedy="more data")
    assert "show no less" not in str(told.value)
    found = contract_test(dense, pruned, Regression(), of_numbers(margin), groups=groups)
    assert not found.kept
    left = contract_test(dense, pruned, Regression(), of_numbers(margin, "leave_out"), groups=groups).worst_group
    assert (left.kept, left.left_out, [one.name for one in left.groups]) == (True, ("b",), ["a"])
    dense, pruned, groups = numbers_of({"b": 1}, {}, unit=margin)
    assert not contract_test(dense, pruned, Regression(), of_numbers(margin, "leave_out"), groups=groups).kept


def test_of_numbers_a_group_is_large_enough_however_small_its_margin_is():
    dense, pruned, groups = numbers_of({"a": 200, "b": 30}, {"b": 0.5}, unit=0.01)
    for small in ("refuse", "leave_out"):
        check_groups(of_numbers(0.01, small), groups, remedy="more data")
        found = contract_test(dense, pruned, Regression(), of_numbers(0.01, small), groups=groups).worst_group
        assert (found.kept, found.name, found.drop, found.left_out) == (True, "b", pytest.approx(0.005), ())
    assert not contract_test(dense, pruned, Regression(), of_numbers(0.004), groups=groups).kept


def test_a_group_for_which_the_metric_is_no_number_isnt_said_to_be_too_small(monkeypatch):
    def but_not_of_b(one, *others, **more):
        found = noninferiority(one, *others, **more)
        return replace(found, drop=np.nan) if found.n == 150 else found

    monkeypatch.setattr(sys.modules[contract_test.__module__], "noninferiority", but_not_of_b)
    dense, pruned, groups = numbers_of({"a": 200, "b": 150, "c": 3}, {})
    found = contract_test(dense, pruned, Regression(), of_numbers(0.1, "leave_out"), groups=groups)
    assert found.kept
    assert (found.worst_group.left_out, found.worst_group.unknown) == (("c",), ("b",))
    with pytest.raises(DataError, match="mae is no number for b"):
        contract_test(dense, pruned, Regression(), of_numbers(0.1), groups=groups)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro", "auroc", "r2"])
def test_three_isnt_three_points_of_what_is_one_at_the_most(metric):
    for margin in (1.0, 3.0):
        with pytest.raises(RecipeError, match=rf"^k\.max_drop must be below 1 for {metric}.*got {margin:g}"):
            check_margin(metric, margin, key="k.max_drop")
    check_margin(metric, 0.99, key="k.max_drop")


@pytest.mark.parametrize("metric", ["mae", "rmse", "perplexity", "log_loss", "kl"])
def test_of_a_metric_that_may_be_any_number_any_margin_means_something(metric):
    check_margins(Contract.model_validate({"metric": metric, "max_drop": 3, "harm": {"worst_group": 3}}))


def test_each_margin_of_a_contract_is_looked_at():
    with pytest.raises(RecipeError, match=r"search\.contract\.max_drop must be below 1"):
        check_margins(Contract.model_validate({"max_drop": 2}), key="search.contract")
    with pytest.raises(RecipeError, match=r"contract\.harm\.worst_group must be below 1 for accuracy.*got 3"):
        check_margins(Contract.model_validate({"harm": {"worst_group": 3}}))


def test_where_all_would_be_left_out_nothing_is_promised_and_it_is_not_kept():
    dense, pruned = pair((20, 20, 20))
    found = contract_test(dense, pruned, TASK, contract(small="leave_out"))
    assert not found.kept
    assert len(found.worst.classes) == 3
    with pytest.raises(DataError, match="3 of 3 classes"):
        check_classes(contract(small="leave_out"), TASK, np.repeat(np.arange(3), 20), remedy="more data")


def test_a_harm_of_nothing_is_refused():
    with pytest.raises(ValueError, match="worst_class, worst_group, or both"):
        Contract.model_validate({"harm": {}})


def test_of_a_share_that_is_resampled_too_few_examples_show_nothing_either():
    there = np.ones((24, 1), bool)
    said = there.copy()
    said[::12] = False  # the dense model misses two, the pruned one none
    seen = [{"n_there": there, "n_said": s, "n_right": s, "right": (there == s).all(axis=1)} for s in (said, there)]
    groups = Groups("site", ["a"] * 12 + ["b"] * 12)
    asked = Contract.model_validate(
        {"metric": "f1_micro", "max_drop": 0.2, "harm": {"worst_group": 0.05, "small": "leave_out"}}
    )
    found = contract_test(*seen, MultiLabel(("x",)), asked, groups=groups)
    assert found.worst_group.bound <= 0.05
    assert not found.worst_group.kept
