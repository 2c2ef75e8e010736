"""Examples on which the two models decide differently: all are counted, and the worst are shown."""

import numpy as np
import pytest

from prunus.evaluate import Pairs, resample
from prunus.evaluate.harm import flips
from prunus.tasks import Classification, Regression


def pair(n=200, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, n)
    seen = []
    for _ in range(2):
        said = np.where(rng.random(n) < 0.3, rng.integers(0, 3, n), true)
        seen.append({"true": true, "predicted": said, "right": said == true, "nll": rng.random(n)})
    return Pairs([seen[0]], [seen[1]], Classification(("a", "b", "c")))


def test_every_flip_is_counted_under_its_kind():
    pairs = pair()
    (dense,), (pruned,) = pairs.dense, pairs.pruned
    found = flips(pairs, "accuracy")
    kinds = {"right to wrong": 0, "wrong to right": 0, "wrong otherwise": 0}
    for t, d, p in zip(dense["true"], dense["predicted"], pruned["predicted"], strict=True):
        if d != p:
            kinds["right to wrong" if d == t else "wrong to right" if p == t else "wrong otherwise"] += 1
    assert found.n_by_kind == kinds
    assert found.n == 200


def test_the_largest_changes_of_each_kind_are_shown_first():
    pairs = pair()
    worse = pairs.pruned[0]["nll"] - pairs.dense[0]["nll"]
    found = flips(pairs, "accuracy", most=8)
    lost = np.flatnonzero(pairs.dense[0]["right"] & ~pairs.pruned[0]["right"])
    expected = sorted(lost.tolist(), key=lambda row: -abs(worse[row]))[:4]
    assert [one.row for one in found.shown if one.kind == "right to wrong"] == expected
    assert len(found.shown) <= 8


def test_models_that_agree_flip_nothing():
    seen = pair().dense
    found = flips(Pairs(seen, seen, Classification(("a", "b", "c"))), "accuracy")
    assert sum(found.n_by_kind.values()) == 0
    assert found.shown == ()


def numbers(n=200):
    rng = np.random.default_rng(1)
    seen = [{"absolute_error": np.round(rng.random((n, 1)), 1)} for _ in range(2)]
    shared = {name: np.zeros((n, 1)) for name in ("square_error", "target", "spread")}
    return Pairs([{**seen[0], **shared}], [{**seen[1], **shared}], Regression())


@pytest.mark.parametrize(("pairs", "metric"), [(pair(), "accuracy"), (numbers(), "mae")])
def test_a_few_examples_at_a_time_give_the_same_flips_as_all_at_once(pairs, metric, monkeypatch):
    whole = flips(pairs, metric)
    assert whole.shown
    for at_once in (1, 7, 64):
        monkeypatch.setattr(resample, "_AT_ONCE", at_once)
        assert flips(pairs, metric) == whole


def test_of_answers_that_are_neither_right_nor_wrong_the_largest_changes_are_shown():
    pairs = numbers()
    worse = (pairs.pruned[0]["absolute_error"] - pairs.dense[0]["absolute_error"])[:, 0]
    found = flips(pairs, "mae", most=9)
    expected = sorted(np.flatnonzero(worse).tolist(), key=lambda row: -abs(worse[row]))[:9]
    assert [one.row for one in found.shown] == expected
    assert found.n_by_kind == {}
