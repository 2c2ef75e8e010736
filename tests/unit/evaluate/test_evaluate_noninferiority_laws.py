"""The exact test of a drop against every table of a small sample, and its bounds against what defines them."""

from __future__ import annotations

import sys
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import pytest
import torch

from evaluate_stand_ins import compare, noninferiority
from prunus.evaluate import examples_needed, promises
from prunus.evaluate.noninferiority import (
    _LEFT_OUT,
    _MOST_PAIRS,
    NonInferiority,
    _log_factorials,
    _times_log,
    accuracy_bound,
    no_worse_accuracy,
    tango_z,
    upper_share,
)


def chance_of_as_much_against(lost: int, gained: int, n: int, margin: float) -> float:
    """Every table of n examples, at many shares of gained ones: the highest chance to see as low a score."""
    seen = float(tango_z(lost, gained, n, margin))
    tables = [(b, c) for b in range(n + 1) for c in range(n + 1 - b) if float(tango_z(b, c, n, margin)) <= seen + 1e-9]
    worst = 0.0
    for share in np.linspace(0.0, min(upper_share(gained, n, _LEFT_OUT), (1 - margin) / 2), 300):
        rest = max(1 - 2 * share - margin, 0.0)
        chance = sum(
            comb(n, b) * comb(n - b, c) * (share + margin) ** b * share**c * rest ** (n - b - c) for b, c in tables
        )
        worst = max(worst, chance)
    return min(1.0, worst + _LEFT_OUT)


@pytest.mark.parametrize(
    ("lost", "gained", "n", "margin"),
    [
        (0, 0, 8, 0.2), (1, 0, 9, 0.3), (0, 2, 9, 0.1), (2, 1, 10, 0.4), (0, 0, 5, 0.7), (3, 3, 7, 0.05), (0, 8, 8, 0.25),
        (5, 3, 8, 0.2),  # the worst share is the highest that there can be
    ],
)  # fmt: skip
def test_the_p_value_is_that_of_every_table(lost, gained, n, margin):
    expected = chance_of_as_much_against(lost, gained, n, margin)
    assert no_worse_accuracy(lost, gained, n, margin) == pytest.approx(expected, abs=8e-3)  # they are many more shares


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (2, 1), (0, 3)])
def test_what_is_left_out_of_the_tables_has_no_weight(lost, gained, monkeypatch):
    """With all tables of 120 examples it is the same as with those that have weight."""
    module = sys.modules["prunus.evaluate.noninferiority"]
    short = no_worse_accuracy(lost, gained, 120, 0.03)
    monkeypatch.setattr(module, "ceil", lambda _: 120)
    assert no_worse_accuracy(lost, gained, 120, 0.03) == pytest.approx(short, abs=1e-9)


def test_the_price_of_leaving_shares_out_is_paid():
    assert no_worse_accuracy(0, 0, 299, 0.01) == pytest.approx(0.99**299 + _LEFT_OUT)


@pytest.mark.parametrize("lost", [_MOST_PAIRS - 3, _MOST_PAIRS - 2])
def test_the_exact_test_ends_after_its_last_pair_and_for_parts_of_examples(lost):
    n, margin = 900, 0.05
    plain = NormalDist().cdf(float(tango_z(lost, 3, n, margin)))
    assert (no_worse_accuracy(lost, 3, n, margin) == plain) == (lost + 3 > _MOST_PAIRS)
    assert no_worse_accuracy(2.5, 1, n, margin) == NormalDist().cdf(float(tango_z(2.5, 1, n, margin)))
    assert no_worse_accuracy(2, 1.5, n, margin) == NormalDist().cdf(float(tango_z(2, 1.5, n, margin)))
    assert no_worse_accuracy(2, 1, n, margin) != NormalDist().cdf(float(tango_z(2, 1, n, margin)))


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 50), (3, 1, 200), (1, 6, 100), (45, 5, 500), (12, 0, 12)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bound_is_the_least_drop_that_the_test_excludes(lost, gained, n, confidence):
    bound = accuracy_bound(lost, gained, n, confidence)
    assert no_worse_accuracy(lost, gained, n, min(bound + 1e-12, 1.0)) <= 1 - confidence or bound == 1.0
    assert bound < 4e-5 or no_worse_accuracy(lost, gained, n, bound - 4e-5) > 1 - confidence
    assert (lost - gained) / n < bound or bound == 1.0


def test_gains_that_speak_against_any_drop_have_a_bound_of_nothing():
    assert accuracy_bound(0, 60, 100, 0.95) == pytest.approx(0.0, abs=3e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (9, 10), (10, 10), (5, 400)])
@pytest.mark.parametrize("error", [1e-4, 0.05])
def test_theupper_share_is_clopper_and_pearsons(successes, n, error):
    stats = pytest.importorskip("scipy.stats")
    expected = 1.0 if successes == n else stats.beta.ppf(1 - error, successes + 1, n - successes)
    assert upper_share(successes, n, error) == pytest.approx(expected, abs=1e-9)


def test_logarithms_of_factorials_and_of_the_impossible():
    assert np.exp(_log_factorials(6)) == pytest.approx([1, 1, 2, 6, 24, 120, 720])
    assert _times_log(np.array([0, 2]), 0.0).tolist() == [0.0, -np.inf]
    assert _times_log(np.array([0, 2]), 0.5) == pytest.approx([0.0, 2 * np.log(0.5)])
    assert _times_log(np.array([0, 2]), 1.0).tolist() == [0.0, 0.0]


def test_no_difference_and_no_margin_have_no_score():
    assert float(tango_z(0, 0, 10, 0.0)) == 0.0
    assert float(tango_z(0, 0, 10, 0.1)) == pytest.approx(-1.0 / sqrt(10 * 0.1 * 0.9))
    assert float(tango_z(5, 0, 10, 1.0)) == 0.0  # nothing varies


def found(**changes) -> NonInferiority:
    fields = {
        "metric": "r2", "dense": 0.9, "pruned": 0.89, "drop": 0.01, "bound": 0.03, "max_drop": 0.02,
        "confidence": 0.95, "n": 100, "n_lost": None, "n_gained": None, "kept": False, "method": "",
    }  # fmt: skip
    return NonInferiority(**{**fields, **changes})


def test_a_bound_narrows_with_the_root_of_the_examples():
    assert [promises(found(), n) for n in (100, 399, 401, 10_000)] == [False, False, True, True]
    assert [promises(found(bound=0.02), n) for n in (99, 101)] == [False, True]


@pytest.mark.parametrize(("lost", "gained"), [(2, 1), (0, 0), (1, 3)])
def test_counts_grow_with_the_examples_and_the_score_decides(lost, gained):
    given = found(n_lost=lost, n_gained=gained, max_drop=0.05)
    for times in (1, 2, 3, 5, 8):
        z = float(tango_z(times * lost, times * gained, times * 100, 0.05))
        assert promises(given, 100 * times) == (z <= -1.6448536)
    assert promises(found(n_lost=lost, n_gained=gained, max_drop=0.05, confidence=0.5), 100)


def test_examples_needed_are_exact_near_nothing_and_everything():
    assert examples_needed(0.5, 0.75) == 2
    assert examples_needed(0.999, 0.95) == 1
    assert examples_needed(1e-12, 0.95) == pytest.approx(2.9957e12, rel=1e-4)


def test_what_is_said_of_accuracy_is_counted():
    right = torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    dense = torch.cat([right[0]] * 8 + [right[1]] * 2)
    pruned = torch.cat([right[1]] * 3 + [right[0]] * 5 + [right[1]] + [right[0]])
    said = noninferiority(
        dense, pruned, torch.zeros(10, dtype=torch.long), metric="accuracy", max_drop=0.1, confidence=0.9,
        task="classification",
    )  # fmt: skip
    facts = said.to_dict()
    assert (facts["dense"], facts["pruned"], facts["n"], facts["n_lost"], facts["n_gained"]) == (0.8, 0.6, 10, 3, 1)
    assert facts["drop"] == pytest.approx(0.2)
    assert facts["bound"] == accuracy_bound(3, 1, 10, 0.9)
    assert facts["max_drop"] == 0.1
    assert facts["confidence"] == 0.9
    assert not facts["kept"]


@pytest.mark.parametrize("metric", ["r2", "mae"])
@pytest.mark.parametrize("confidence", [0.75, 0.99])
def test_one_side_of_a_wider_interval_bounds_the_drop(metric, confidence):
    draw = torch.Generator().manual_seed(1)
    targets, noise = torch.randn(60, generator=draw), torch.randn(2, 60, generator=draw)
    dense, pruned = targets + 0.1 * noise[0], targets + 0.12 * noise[1]
    said = noninferiority(
        dense,
        pruned,
        targets,
        metric=metric,
        max_drop=1.0,
        confidence=confidence,
        task="regression",
        bootstrap=50,
        seed=3,
    )
    resamples = {0.75: 80, 0.99: 2000}[confidence]  # twenty beyond the bound
    (row,) = compare(
        [dense], [pruned], targets, task="regression", metrics=(metric,), confidence=2 * confidence - 1,
        bootstrap=resamples, seed=3,
    )  # fmt: skip
    assert said.bound == pytest.approx(-row.difference.low if metric == "r2" else row.difference.high)
    assert (said.dense, said.pruned) == (row.dense, row.pruned)
    assert said.drop == pytest.approx((row.dense - row.pruned) * (1 if metric == "r2" else -1))
    assert (said.n, said.n_lost, said.n_gained, said.kept) == (60, None, None, True)
    level = noninferiority(
        dense, pruned, targets, metric=metric, max_drop=said.bound, confidence=confidence, task="regression",
        bootstrap=50, seed=3,
    )  # fmt: skip
    assert level.kept, "a drop of the margin itself is within it"
