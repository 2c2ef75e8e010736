"""A feature goes only if it hardly matters alone and with all the others that go."""

import numpy as np
import pytest
import torch
from torch import nn

from prunus.core.errors import DataError, RunError, ShapeError
from prunus.core.recipes.recipe import Features
from prunus.score import judge_feature_importance
from prunus.score.feature_importance import _largest
from prunus.tasks import Regression

CONFIG = Features(repeats=5, tolerance=0.01)


class Formula(nn.Module):
    """A model given by a formula."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.seen_training = []

    def forward(self, x):
        self.seen_training.append(self.training)
        return self.function(x)


def two_logits(score):
    return torch.stack([-score, score], dim=1)


def signs(n, columns, seed=0):
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed)).sign()


def test_a_feature_that_is_not_read_goes_and_one_that_decides_stays(examples_of):
    x = signs(200, 3)
    model = Formula(lambda x: two_logits(x[:, 1]))
    found = judge_feature_importance(model, examples_of(x, (x[:, 1] > 0).long()), CONFIG, fill=torch.zeros(3))
    assert found.keep.tolist() == [False, True, False]
    assert found.drop[[0, 2]].tolist() == [0, 0]
    # Shuffled signs are wrong half of the time.
    assert found.drop[1] == pytest.approx(0.5, abs=0.1)
    assert found.upper[1] > found.drop[1]
    assert found.joint_drop == 0
    assert 0 < found.joint_upper <= CONFIG.tolerance


def test_features_that_stand_in_for_each_other_do_not_all_go(examples_of):
    sign = signs(300, 1)
    x = sign.repeat(1, 3)
    model = Formula(lambda x: two_logits(x.sum(dim=1)))  # two of three copies outvote any shuffled one
    found = judge_feature_importance(model, examples_of(x, (sign[:, 0] > 0).long()), CONFIG, fill=torch.zeros(3))
    assert found.drop.tolist() == [0, 0, 0]
    assert found.keep.sum() == 1
    assert found.reason[found.keep][0] == "kept: 300 examples don't show that it may go with all the others"
    assert found.joint_upper <= CONFIG.tolerance


def test_as_many_go_together_as_the_tolerance_allows(examples_of):
    sign = signs(300, 1)
    x = sign.repeat(1, 5)
    # With k of five copies replaced by 0.9 the sum is (5 - k) * sign + 0.9 k: two may go, a third turns the negative ones.
    model = Formula(lambda x: two_logits(x.sum(dim=1)))
    found = judge_feature_importance(model, examples_of(x, (sign[:, 0] > 0).long()), CONFIG, fill=torch.full((5,), 0.9))
    assert found.keep.sum() == 3
    assert found.joint_drop == 0


def test_some_features_stay_in_any_case(examples_of):
    x = signs(200, 4)
    examples = examples_of(x, torch.zeros(200, dtype=torch.int64))
    model = Formula(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2))
    for least, kept in ((1, 1), (2, 2), (4, 4), (5, 4), (9, 4)):
        config = Features(tolerance=0.01, min_features=least)
        assert judge_feature_importance(model, examples, config, fill=torch.zeros(4)).keep.sum() == kept


def test_regression_importance_is_the_loss_of_r_squared(examples_of):
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    examples = examples_of(x, 3 * x[:, 0] + 0.05 * x[:, 1], task=Regression(), n_outputs=1)
    model = Formula(lambda x: 3 * x[:, :1] + 0.05 * x[:, 1:])
    found = judge_feature_importance(model, examples, Features(tolerance=0.001), fill=torch.zeros(2))
    # Shuffling an independent feature doubles its part of the variance: 2 * 9 / 9 and 2 * 0.0025 / 9.
    assert found.drop[0] == pytest.approx(2, rel=0.1)
    assert found.drop[1] == pytest.approx(2 * 0.0025 / 9, rel=0.1)
    assert found.keep.tolist() == [True, False]


def test_the_bound_is_agresti_and_min_s_for_matched_proportions(examples_of):
    x = torch.tensor([[1.0], [-1.0], [1.0], [1.0], [-1.0], [1.0]])
    examples = examples_of(x, (x[:, 0] > 0).long())
    calls = []

    def function(x):
        calls.append(x[:, 0].clone())
        return two_logits(x[:, 0])

    found = judge_feature_importance(Formula(function), examples, Features(repeats=3), fill=torch.zeros(1))
    wrong = np.array([(c > 0).numpy() != (x[:, 0] > 0).numpy() for c in calls[1:4]]).mean(axis=0)
    assert found.drop[0] == pytest.approx(wrong.mean())
    padded = np.array([*wrong, 0.5**0.5, -(0.5**0.5)])  # the half predictions as two examples with the same squares
    assert found.upper[0] == pytest.approx(max(wrong.mean(), padded.mean() + 1.6448536 * padded.std() / 8**0.5))


def test_few_examples_prove_nothing_however_clean_they_look(examples_of):
    x = signs(80, 2)
    model = Formula(lambda x: two_logits(x[:, 1]))
    found = judge_feature_importance(model, examples_of(x, (x[:, 1] > 0).long()), CONFIG, fill=torch.zeros(2))
    assert found.drop[0] == 0
    assert found.upper[0] == pytest.approx(1.6448536 / 82)
    assert found.keep.all()


def test_the_same_seed_gives_the_same_numbers_and_the_batch_size_does_not_matter(examples_of):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    examples = examples_of(x, (x.sum(dim=1) > 0).long())
    model = Formula(lambda x: two_logits(x.sum(dim=1))).train()
    first, again, other = (
        judge_feature_importance(model, examples, CONFIG, fill=torch.zeros(3), seed=seed, batch_size=size)
        for seed, size in ((0, 50), (0, 7), (1, 50))
    )
    assert (first.drop == again.drop).all()
    assert (first.drop != other.drop).any()
    assert model.training
    assert not any(model.seen_training)


def test_the_decision_keeps_the_fill_of_what_goes(examples_of):
    x = signs(200, 2)
    examples = examples_of(x, (x[:, 1] > 0).long())
    fill = torch.tensor([0.25, 0.75])
    found = judge_feature_importance(Formula(lambda x: two_logits(x[:, 1])), examples, CONFIG, fill=fill)
    decision = found.decision(("age", "height"), fill)
    assert decision.label.tolist() == ["age", "height"]
    assert decision.keep.tolist() == [False, True]
    assert decision.after[0] == 0.25
    assert np.isnan(decision.after[1])
    assert found.decision().label.tolist() == ["0", "1"]


def test_what_can_not_be_judged_is_refused(examples_of):
    model = Formula(lambda x: two_logits(x.sum(dim=1)))
    labels = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(DataError, match=r"only tables.*\(1, 4, 4\)"):
        judge_feature_importance(model, examples_of(torch.zeros(5, 1, 4, 4), labels), CONFIG, fill=torch.zeros(1))
    with pytest.raises(DataError, match=r"at least two validation examples.*got 1"):
        judge_feature_importance(model, examples_of(torch.zeros(1, 2), labels[:1]), CONFIG, fill=torch.zeros(2))
    with pytest.raises(ShapeError, match=r"fill must be \(2,\).*got \(3,\)"):
        judge_feature_importance(model, examples_of(torch.zeros(5, 2), labels), CONFIG, fill=torch.zeros(3))
    with pytest.raises(DataError, match="all the same"):
        judge_feature_importance(
            model, examples_of(torch.zeros(5, 2), torch.ones(5), task=Regression()), CONFIG, fill=torch.zeros(2)
        )
    with pytest.raises(RunError, match="must be finite"):
        judge_feature_importance(
            Formula(lambda x: x * float("nan")), examples_of(torch.ones(5, 2), labels), CONFIG, fill=torch.zeros(2)
        )


@pytest.mark.parametrize("n", range(12))
def test_the_largest_count_that_holds_is_found_and_none_is_never_asked(n):
    for most in range(n + 1):
        asked = []

        def holds(count, most=most, asked=asked):
            asked.append(count)
            return count <= most

        assert _largest(n, holds) == most
        assert 0 not in asked


def test_who_names_no_seed_gets_the_first(examples_of):
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    examples = examples_of(x, (x[:, 0] > 0).long())
    model = Formula(lambda x: two_logits(x[:, 0] + 0.3 * x[:, 1]))
    plain, first, other = (
        judge_feature_importance(model, examples, CONFIG, fill=torch.zeros(2), **seed).drop.tolist()
        for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    assert plain == first != other


@pytest.mark.parametrize("shape", [(9,), (9, 2, 2)])
def test_what_is_no_table_is_refused(examples_of, shape):
    examples = examples_of(torch.zeros(shape), torch.arange(9) % 2)
    with pytest.raises(DataError, match=r"only tables have features to judge, got inputs of shape \("):
        judge_feature_importance(Formula(lambda x: two_logits(x)), examples, CONFIG, fill=torch.zeros(2))
