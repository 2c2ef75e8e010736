"""Membership: areas and rates are sklearn's, intervals hold what they should, and memory is told from ease."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from prunus.core.errors import DataError
from prunus.data import Batches
from prunus.evaluate.privacy import likelihood_ratio, losses_of, membership, sureness
from prunus.evaluate.privacy.membership import measures
from prunus.tasks import Classification, Language, Regression


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_area_and_the_rates_are_those_of_sklearn(seed, rounded):
    rng = np.random.default_rng(seed)
    members, outsiders = rng.normal(0.4, 1, 800), rng.normal(0, 1, 1500)
    if rounded:
        members, outsiders = members.round(1), outsiders.round(1)
    truth = np.r_[np.ones(800), np.zeros(1500)]
    scores = np.r_[members, outsiders]
    found = measures(members, outsiders, np.ones((1, 800)), np.ones((1, 1500)), [0.01, 0.001])[0]
    assert found[0] == pytest.approx(roc_auc_score(truth, scores))
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found[1] == pytest.approx(true[false <= 0.01].max())
    assert found[2] == pytest.approx(true[false <= 0.001].max())


def test_a_weight_of_two_is_the_example_seen_twice():
    rng = np.random.default_rng(0)
    members, outsiders = rng.normal(size=30).round(1), rng.normal(size=40).round(1)
    weights = rng.integers(0, 3, 30)
    one = measures(members, outsiders, weights[None].astype(float), np.ones((1, 40)), [0.05])
    two = measures(np.repeat(members, weights), outsiders, np.ones((1, weights.sum())), np.ones((1, 40)), [0.05])
    assert one == pytest.approx(two)


def test_the_interval_holds_the_true_area_as_often_as_it_says():
    n_held, true = 0, 0.638163  # of two normals half a deviation apart
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scores = {"pruned": rng.normal(0.5, 1, 200)}, {"pruned": rng.normal(0, 1, 200)}
        row = membership("loss", *scores, confidence=0.9, bootstrap=300, seed=0)[0]
        n_held += row.values["pruned"].low <= true <= row.values["pruned"].high
    assert 0.82 <= n_held / 150 <= 0.96


def test_the_same_scores_differ_by_nothing_and_rates_that_few_outsiders_cant_show_are_left_out():
    rng = np.random.default_rng(0)
    members, outsiders = rng.normal(1, 1, 300), rng.normal(0, 1, 150)
    rows = membership(
        "loss",
        {"dense": members, "pruned": members},
        {"dense": outsiders, "pruned": outsiders},
        confidence=0.95,
        bootstrap=200,
        seed=0,
    )
    assert [row.measure for row in rows] == ["auc", "tpr_at_0.01"]
    for row in rows:
        assert row.difference.low == row.difference.value == row.difference.high == 0


def test_losses_are_the_tasks_own():
    x, y = torch.randn(20, 3), torch.randint(0, 3, (20,))
    found = losses_of(nn.Identity(), Batches([(x, y)]), Classification(("a", "b", "c")))
    assert found == pytest.approx(nn.functional.cross_entropy(x, y, reduction="none").numpy(), abs=1e-6)
    values = losses_of(nn.Identity(), Batches([(x[:, :1], x[:, 1:2])]), Regression())
    assert values == pytest.approx((x[:, 0] - x[:, 1]).square().numpy(), rel=1e-5)


def test_sureness_is_the_logarithm_of_the_odds():
    x, y = torch.randn(20, 3), torch.randint(0, 3, (20,))
    chance = x.double().softmax(dim=1).gather(1, y[:, None])[:, 0]
    found = sureness(nn.Identity(), Batches([(x, y)]), Classification(("a", "b", "c")))
    assert found == pytest.approx((chance / (1 - chance)).log().numpy(), rel=1e-6)
    tokens, scores = torch.randint(0, 4, (5, 6)), torch.randn(5, 6, 4)
    assert sureness(nn.Identity(), Batches([(scores, tokens)]), Language()).shape == (5,)
    assert sureness(nn.Identity(), Batches([(x, x)]), Regression()) is None


def shadowed(n=600, n_shadows=8, memory=1.0, seed=0):
    """Return a world in which examples differ in ease far more than memory adds to those that were trained on."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 4, n)
    saw = np.argsort(np.argsort(rng.random((n_shadows, n)), axis=0), axis=0) < n_shadows // 2
    shadows = ease + memory * saw + rng.normal(0, 0.5, (n_shadows, n))
    member = rng.random(n) < 0.5
    return ease + memory * member + rng.normal(0, 0.5, n), shadows, saw, member


def test_beside_models_that_didnt_see_it_memory_shows_where_a_loss_shows_nothing():
    target, shadows, saw, member = shadowed()
    ratio = likelihood_ratio(target, shadows, saw)
    assert roc_auc_score(member, target) < 0.62
    assert roc_auc_score(member, ratio) > 0.85


def test_without_memory_nothing_is_told():
    target, shadows, saw, member = shadowed(memory=0.0)
    assert 0.45 < roc_auc_score(member, likelihood_ratio(target, shadows, saw)) < 0.55


def test_the_ratio_is_in_deviations_of_the_models_that_didnt_see_an_example():
    target = np.array([3.0, 0.0])
    shadows = np.array([[1.0, 9.0], [2.0, 0.0], [9.0, 1.0], [9.0, 2.0]])
    saw = np.array([[False, True], [False, False], [True, False], [True, False]])
    squares = (1 - 1.5) ** 2 + (2 - 1.5) ** 2 + 1.0 + 0.0 + 1.0
    deviation = np.sqrt(squares / (1 + 2))
    assert likelihood_ratio(target, shadows, saw) == pytest.approx([1.5 / deviation, -1.0 / deviation])


def test_an_example_that_every_shadow_saw_cant_be_judged():
    with pytest.raises(DataError, match="every shadow model"):
        likelihood_ratio(np.zeros(2), np.zeros((2, 2)), np.array([[True, False], [True, False]]))
