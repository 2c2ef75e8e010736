"""Very many examples are drawn in groups: the value is that of the examples, and intervals are those of the exact bootstrap."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.evaluate import Pairs, compare, measure_quality
from prunus.evaluate.harm.part_changes import change_by_group
from prunus.evaluate.resample import resample
from prunus.tasks import Metric, Regression, measured, metrics, own_task, pooling
from prunus.tasks.task import pooled

METRICS = ("r2", "mae", "rmse")
MODULE = sys.modules[resample.__module__]


def rows(n, kind, seed=0, outputs=1):
    """Return what was observed of two models that err alike: targets in an order, and errors that hang on the place in it."""
    draw = np.random.default_rng(seed)
    target = np.sort(draw.normal(size=(n, outputs)), axis=0) if kind == "sorted" else draw.normal(size=(n, outputs))
    size = {
        "sorted": np.linspace(0.1, 2, n)[:, None],
        "periodic": np.tile([0.1, 0.1, 3.0, 0.5], n)[:n, None],
        "heavy": draw.standard_t(3, size=(n, outputs)),
    }[kind]
    shared = size * draw.normal(size=(n, outputs))
    return [of(target, shared + 0.3 * size * draw.normal(size=(n, outputs))) for _ in range(2)]


def of(target, error):
    zeros = np.zeros_like(target)
    return {"absolute_error": abs(error), "square_error": error**2, "target": target, "spread": zeros}


def in_groups(patch, most=1000, groups=1500):
    patch.setattr(MODULE, "_MOST_APART", most)
    patch.setattr(MODULE, "_GROUPS", groups)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 12), st.integers(0, 2**16))
def test_totals_of_groups_are_those_of_their_examples(n, outputs, n_groups, seed):
    draw = np.random.default_rng(seed)
    target = draw.normal(size=(n, outputs)) + 100
    seen = {**of(target, draw.normal(size=(n, outputs))), "spread": draw.random((n, outputs))}
    groups = draw.integers(0, n_groups, n)
    task, drawn = Regression(), draw.integers(0, 3, (4, n_groups)).astype(float)
    drawn[:, groups[0]] += 1
    found = measured(
        task, METRICS, pooled(task, seen, groups, n_groups), drawn * np.bincount(groups, minlength=n_groups)
    )
    expected = measured(task, METRICS, seen, drawn[:, groups])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("kind", "outputs"), [("sorted", 1), ("periodic", 1), ("heavy", 2)])
def test_intervals_are_as_wide_as_those_of_the_exact_bootstrap(kind, outputs):
    dense, pruned = rows(4000, kind, outputs=outputs)
    pairs = Pairs([dense], [pruned], Regression(), bootstrap=400)
    exact = compare(pairs, METRICS), measure_quality(dense, Regression(), metrics=METRICS, bootstrap=400).metrics
    with pytest.MonkeyPatch.context() as patch:
        in_groups(patch)
        found = compare(pairs, METRICS), measure_quality(dense, Regression(), metrics=METRICS, bootstrap=400).metrics
    for one, other in zip(found[0], exact[0], strict=True):
        assert (one.dense, one.pruned, one.difference.value) == (other.dense, other.pruned, other.difference.value)
    of_pairs = [[one.difference for one in each[0]] for each in (found, exact)]
    for one, other in zip((*of_pairs[0], *found[1]), (*of_pairs[1], *exact[1]), strict=True):
        assert one.value == other.value
        assert 0.85 < (one.high - one.low) / (other.high - other.low) < 1.17, one.name
        assert abs(one.high + one.low - other.high - other.low) < 0.25 * (other.high - other.low)


def test_the_truth_is_in_as_many_intervals_as_is_said():
    truth, inside, n = np.sqrt(2 / np.pi), 0, 200
    with pytest.MonkeyPatch.context() as patch:
        in_groups(patch, groups=300)
        for seed in range(n):
            draw = np.random.default_rng(seed)
            error = draw.normal(size=(1200, 1))
            seen = of(draw.normal(size=(1200, 1)), error)
            (mae,) = measure_quality(
                seen, Regression(), metrics=("mae",), confidence=0.9, bootstrap=150, seed=seed
            ).metrics
            inside += mae.low <= truth <= mae.high
    assert 0.85 < inside / n < 0.95  # 0.9, and nearly three deviations of as many throws


def test_the_change_of_each_group_of_examples_is_as_sure_as_by_the_exact_bootstrap():
    dense, pruned = rows(4000, "periodic")
    names = np.random.default_rng(1).choice(["a", "b", "c"], 4000, p=[0.6, 0.35, 0.05]).tolist()
    pairs = Pairs([dense], [pruned], Regression(), bootstrap=400)
    exact = change_by_group(pairs, names, "mae", by="place").changes
    with pytest.MonkeyPatch.context() as patch:
        in_groups(patch)
        found = change_by_group(pairs, names, "mae", by="place").changes
    for one, other in zip(found, exact, strict=True):
        assert (one.name, one.n, one.dense, one.pruned) == (other.name, other.n, other.dense, other.pruned)
        assert 0.83 < (one.change.high - one.change.low) / (other.change.high - other.change.low) < 1.2


def test_fewer_examples_are_drawn_one_by_one_and_so_is_what_sees_more_than_sums():
    seen = rows(1500, "heavy")[0]

    def never(*_):
        pytest.fail("drawn in groups")

    def statistic(one, weights):
        return measured(Regression(), METRICS, one, weights)

    few = {"reads": Regression.reads, "resamples": 20, "seed": 0}
    by_one = resample([seen], statistic, **few)
    assert np.array_equal(by_one, resample([seen], statistic, pool=never, **few))
    with pytest.MonkeyPatch.context() as patch:
        in_groups(patch)
        assert np.array_equal(by_one, resample([seen], statistic, **few))
        assert np.array_equal(by_one, resample([seen], statistic, pool=lambda *_: None, **few))
        in_turn = resample([seen], statistic, pool=pooling(Regression(), METRICS), **few)
        assert np.array_equal(in_turn[:, 0], by_one[:, 0])
        assert not np.array_equal(in_turn[:, 1:], by_one[:, 1:])
        assert np.array_equal(in_turn, resample([seen], statistic, pool=pooling(Regression(), METRICS), **few))


def test_a_metric_or_a_task_with_totals_of_its_own_is_never_drawn_in_groups(monkeypatch):
    middle = Metric(
        "middle", ("regression",), lambda one: one, False, "", totals=lambda seen, weights: weights.sum(axis=1)
    )
    monkeypatch.setitem(metrics._items, "middle", middle)
    assert pooling(Regression(), ("mae", "middle")) is None

    @dataclass(frozen=True)
    class Ranked(Regression):
        def totals(self, observed, weights):
            return super().totals(observed, weights)

    seen, groups = rows(8, "heavy")[0], np.zeros(8, dtype=np.int64)
    assert pooled(Ranked(), seen, groups, 1) is None
    own = own_task(Regression(), loss=lambda outputs, targets: (outputs - targets).abs().mean())
    assert pooled(own, seen, groups, 1) is not None
