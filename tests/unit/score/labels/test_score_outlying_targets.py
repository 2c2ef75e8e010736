"""Values of other examples are found among targets, whatever errors a model makes, and their share is estimated."""

import tracemalloc

import numpy as np
import pytest

from prunus.core.errors import DataError, ShapeError
from prunus.score import judge_targets


def drawn(kind="normal", noise=0.1, n=2000, seed=1):
    """Return predictions, targets some of which are another example's, and which."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 3))
    said = x @ [2.0, -1.0, 0.5] + np.sin(3 * x[:, 0])
    errors = {"normal": 0.5 * draw.normal(size=n), "heavy tails": 0.4 * draw.standard_t(3, size=n)}
    errors["uneven"] = errors["normal"] * np.exp(0.5 * x[:, 1])
    true = said + errors[kind]
    given = true.copy()
    rows = draw.permutation(n)[: round(noise * n)]
    given[rows] = true[draw.permutation(n)[: len(rows)]]
    return said, given, np.isin(np.arange(n), rows)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "uneven"])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1, 0.25])
def test_the_share_of_wrong_values_and_the_precision_are_estimated(kind, noise):
    said, given, wrong = drawn(kind, noise)
    found = judge_targets(said, given, wrong="drop")
    assert found.noise.value == pytest.approx(noise, abs=0.03)
    listed = found.decision == "drop"
    if noise == 0:
        assert listed.sum() <= 2
        return
    by_chance = 2.5 * (found.dropped.value * (1 - found.dropped.value) / found.dropped.n) ** 0.5
    assert wrong[listed].mean() == pytest.approx(found.dropped.value, abs=0.02 + by_chance)


@pytest.mark.parametrize(("factor", "offset"), [(1000.0, 0.0), (1e-4, 0.0), (1.0, 300.0), (-2.0, 5.0)])
def test_the_unit_of_the_values_changes_nothing(factor, offset):
    said, given, _ = drawn()
    one = judge_targets(said, given)
    other = judge_targets(factor * said + offset, factor * given + offset)
    np.testing.assert_allclose(other.probability, one.probability, atol=2e-3)
    assert other.noise.value == pytest.approx(one.noise.value, abs=1e-3)


def test_nothing_is_dropped_unless_asked():
    said, given, _ = drawn()
    found = judge_targets(said, given)
    assert (found.decision == "keep").all()
    assert found.flagged.n == sum(text.startswith("flagged: value wrong") for text in found.reason) > 0


def test_what_has_no_outliers_is_refused():
    with pytest.raises(DataError, match="where targets differ"):
        judge_targets(np.zeros(9), np.ones(9))
    with pytest.raises(DataError, match="finite"):
        judge_targets(np.zeros(2), np.array([1.0, np.nan]))
    with pytest.raises(ShapeError, match="one prediction per target"):
        judge_targets(np.zeros((3, 2)), np.zeros(3))


def test_memory_doesnt_hold_every_resample_of_every_example():
    said, given, _ = drawn(n=20_000)
    tracemalloc.start()
    found = judge_targets(said, given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150 * 8 * len(given)  # it was 910
    assert len(found.probability) == len(given)
