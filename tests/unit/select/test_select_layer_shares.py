"""Every layer-wise allocation is the formula of its paper, and spends the budget."""

import numpy as np
import pytest

from prunus.core.errors import RecipeError
from prunus.core.types import Stratum
from prunus.select import allocations, lamp_scores, owl, select
from prunus.select.layer_shares import _curve

SHAPES = [(16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (10, 64)]


def layers(seed: int = 0) -> list[Stratum]:
    draw = np.random.default_rng(seed)
    return [
        Stratum(f"l{i}", np.abs(draw.standard_normal(int(np.prod(s)))), shape=s, min_units=0)
        for i, s in enumerate(SHAPES)
    ]


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.6])
def test_erk_is_evci_s_formula_with_full_layers_taken_out(keep):
    sizes = np.array([np.prod(shape) for shape in SHAPES], float)
    raw = np.array([sum(shape) for shape in SHAPES]) / sizes
    full = np.zeros(4, bool)
    while True:  # their loop: scale until no layer has a density above 1
        scale = (keep * sizes.sum() - sizes[full].sum()) / (raw * sizes)[~full].sum()
        if not (raw[~full] * scale > 1).any():
            break
        full |= raw * scale >= (raw * scale)[~full].max()
    density = np.where(full, 1.0, raw * scale)
    counts = allocations["erk"](layers(), keep)
    assert counts.sum() == round(keep * sizes.sum())
    assert counts == pytest.approx(density * sizes, abs=2)


def test_lamp_is_the_square_over_the_squares_no_smaller():
    saliency = np.random.default_rng(1).standard_normal(50).__abs__()
    expected = [value**2 / sum(other**2 for other in saliency if other >= value) for value in saliency]
    assert lamp_scores(saliency) == pytest.approx(expected)


def test_lamp_ranks_all_layers_together_and_a_layer_s_scale_does_not_matter():
    parts = layers()
    scores = np.concatenate([lamp_scores(part.saliency) for part in parts])
    threshold = np.sort(scores)[-round(0.1 * len(scores))]
    counts = allocations["lamp"](parts, 0.1)
    assert counts.tolist() == [int((lamp_scores(part.saliency) >= threshold).sum()) for part in parts]


def test_owl_spreads_by_the_share_of_outliers_around_the_keep_fraction():
    draw = np.random.default_rng(2)
    parts = []
    for number, n_outliers in enumerate((0, 20, 50, 100)):
        saliency = np.ones(1000) + 0.01 * draw.random(1000)
        saliency[:n_outliers] = 20 + number
        parts.append(Stratum(f"l{number}", saliency))
    outliers = np.array([(part.saliency > 3 * part.saliency.mean()).mean() for part in parts])
    ratio = (outliers - outliers.min()) / np.ptp(outliers) * 0.1 * 2
    expected = ratio - ratio.mean() + 0.4  # as the authors' code has it, for what stays
    counts = owl(parts, 0.4, multiple=3.0, spread=0.1)
    assert counts.sum() == 1600
    assert counts / 1000 == pytest.approx(expected, abs=0.002)


def test_sensitivity_gives_every_layer_the_same_loss():
    shares = np.array([1.0, 0.5, 0.1])
    steep = Stratum("steep", np.zeros(1000), losses=np.c_[shares, [0.0, 1.0, 4.0]])
    flat = Stratum("flat", np.zeros(1000), losses=np.c_[shares, [0.0, 0.1, 0.4]])
    counts = allocations["sensitivity"]([steep, flat], 0.5)
    assert counts.sum() == 1000
    losses = [
        np.interp(n / 1000, s.losses[::-1, 0], s.losses[::-1, 1]) for n, s in zip(counts, (steep, flat), strict=True)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


def test_layers_whose_loss_never_rises_keep_equal_shares():
    parts = [
        Stratum(name, np.zeros(n), losses=np.array([[1.0, 0.3], [0.2, 0.3]])) for name, n in (("a", 100), ("b", 50))
    ]
    assert allocations["sensitivity"](parts, 0.4).tolist() == [40, 20]


def test_sensitivity_without_measurements_is_refused():
    with pytest.raises(RecipeError, match="needs the loss of 'a' at two shares or more: got 0"):
        allocations["sensitivity"]([Stratum("a", np.zeros(4))], 0.5)


@pytest.mark.parametrize("name", ["erk", "sensitivity", "owl"])
def test_a_second_round_ends_where_one_would_have(name):
    parts = [
        Stratum(s.name, s.saliency, shape=s.shape, whole=len(s.saliency), min_units=1)
        for s in layers()
    ]  # fmt: skip
    losses = [np.array([[1.0, 0.0], [0.5, 0.1 * (i + 1)], [0.1, 1.0 * (i + 1)]]) for i in range(4)]
    from dataclasses import replace

    parts = [replace(part, losses=curve) for part, curve in zip(parts, losses, strict=True)]
    n = sum(part.whole for part in parts)
    at_once = select(parts, keep_fraction=0.2, allocation=name)
    first = select(parts, keep_fraction=0.5, allocation=name)
    left = [
        replace(p, saliency=p.saliency[k], unit=p.units[k]) for p, k in zip(parts, first, strict=True)
    ]  # fmt: skip
    second = select(left, keep_fraction=round(0.2 * n) / sum(int(k.sum()) for k in first), allocation=name)
    if name == "owl":  # outliers are counted among what is left
        assert sum(int(k.sum()) for k in second) == round(0.2 * n)
        return
    assert [int(k.sum()) for k in second] == [int(k.sum()) for k in at_once]


def test_erk_counts_units_times_parameters_where_there_is_no_shape():
    parts = [Stratum("a", np.zeros(200), cost=9.0), Stratum("b", np.zeros(50), cost=50.0)]
    shaped = [Stratum("a", np.zeros(200), shape=(200, 9)), Stratum("b", np.zeros(50), shape=(50, 50))]
    free = [Stratum("a", np.zeros(200), cost=0.25), Stratum("b", np.zeros(50), cost=50.0)]
    one = [Stratum("a", np.zeros(200), cost=1.0), Stratum("b", np.zeros(50), cost=50.0)]
    for keep in (0.1, 0.3, 0.7):
        counts = allocations["erk"](parts, keep)
        assert counts.tolist() == allocations["erk"](shaped, keep).tolist()
        assert allocations["erk"](free, keep).tolist() == allocations["erk"](one, keep).tolist()
    # 209 / 1800 against 100 / 2500: the first keeps 2.9 times the second's share.
    counts = allocations["erk"](parts, 0.1)
    assert counts[0] / 200 == pytest.approx(counts[1] / 50 * (209 / 1800) / (100 / 2500), rel=0.15)


def test_lamp_of_ties_ranks_the_later_one_higher_and_what_is_not_positive_is_nothing():
    assert lamp_scores(np.array([2.0, 2.0])).tolist() == [0.5, 1.0]
    assert lamp_scores(np.array([-1.0, 0.0, 3.0])).tolist() == [0.0, 0.0, 1.0]
    assert lamp_scores(np.array([-1.0, 0.0])).tolist() == [0.0, 0.0]
    assert lamp_scores(np.zeros(0)).tolist() == []
    assert lamp_scores(np.array([1e-200, 1e200])).tolist() == [0.0, 1.0]


def test_owl_has_its_paper_s_numbers_where_nobody_gives_others():
    spiky = np.ones(1000)
    spiky[:100] = 40.0  # the mean is 4.9: outliers above 5 means, 24.5
    mild = np.ones(1000)
    mild[:100] = 6.0  # the mean is 1.5: above 3 means, not above 5
    parts = [Stratum("spiky", spiky), Stratum("mild", mild)]
    assert owl(parts, 0.5).tolist() == [580, 420]
    assert owl(parts, 0.5, multiple=3.0).tolist() == [500, 500]
    assert owl(parts, 0.5, spread=0.2).tolist() == [700, 300]
    assert owl([parts[0]] * 2, 0.5).tolist() == [500, 500]


def test_an_outlier_is_above_the_multiple_and_not_at_it():
    at, above = np.array([5.0, *[0.0] * 4, *[1.0] * 5]), np.array([5.1, *[0.0] * 4, *[1.0] * 5])
    # Means 1 and 1.01: the first has no value above 5 means, the second has one at 5.1 > 5.05.
    assert owl([Stratum("at", at), Stratum("above", above)], 0.5, spread=0.2).tolist() == [3, 7]


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5, 0.8])
def test_sensitivity_is_the_lowest_worst_loss_of_any_split(keep):
    shares = np.array([1.0, 0.6, 0.3])
    curves = [np.array([0.0, 0.2, 0.9]), np.array([0.1, 0.15, 3.0]), np.array([0.0, 0.8, 0.7])]
    parts = [
        Stratum(str(i), np.zeros(20), losses=np.c_[shares, losses], min_units=0) for i, losses in enumerate(curves)
    ]

    def loss(i, n):
        rising = np.maximum.accumulate(curves[i])
        slope = (rising[-1] - rising[-2]) / (shares[-2] - shares[-1])
        known = [*rising[::-1].tolist()]
        return float(np.interp(n / 20, [0.0, 0.3, 0.6, 1.0], [rising[-1] + slope * 0.3, *known]))

    counts = allocations["sensitivity"](parts, keep)
    budget = round(60 * keep)
    assert counts.sum() == budget
    splits = ((a, b, budget - a - b) for a in range(21) for b in range(21) if 0 <= budget - a - b <= 20)
    least = min(max(loss(i, n) for i, n in enumerate(split)) for split in splits)
    one_unit = max(loss(i, n) - loss(i, n + 1) for i in range(3) for n in (int(counts[i]),) if n < 20)
    assert max(loss(i, n) for i, n in enumerate(counts.tolist())) <= least + one_unit / 2 + 1e-6


@pytest.mark.parametrize("losses", [None, np.array([[1.0, 0.0]])])
def test_one_measurement_is_not_enough(losses):
    with pytest.raises(RecipeError, match=f"got {0 if losses is None else 1}"):
        allocations["sensitivity"]([Stratum("a", np.zeros(4), losses=losses)], 0.5)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_below_the_least_share_that_was_measured_the_loss_goes_on_as_it_rose_last(n):
    draw = np.random.default_rng(n)
    shares, losses = np.sort(draw.uniform(0.1, 1.0, n))[::-1], np.sort(draw.random(n))
    rising, found = _curve(Stratum("s", np.zeros(9), losses=np.stack([shares, losses], axis=1)))
    assert rising.tolist() == [0.0, *shares[::-1]]
    assert found[1:].tolist() == losses[::-1].tolist()
    line = np.polynomial.Polynomial.fit(shares[-2:], losses[-2:], 1)
    assert found[0] == pytest.approx(line(0.0))


@pytest.mark.parametrize("power", [-600, -40, 40, 600])
def test_lamp_scores_do_not_hang_on_the_scale_however_far_from_one(power):
    saliency = np.random.default_rng(0).random(9)
    assert lamp_scores(saliency * 2.0**power).tolist() == lamp_scores(saliency).tolist()
