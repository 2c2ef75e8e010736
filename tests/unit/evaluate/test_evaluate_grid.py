"""Is a cell called no worse only where a paired interval shows it, and nothing after one that isn't?"""

import numpy as np
import pytest
import torch
from scipy import stats

from prunus.core.batch import Batch
from prunus.core.errors import DataError
from prunus.evaluate import Pairs, compare, judge_grid
from prunus.tasks import Classification, Regression

TASK = Classification(class_names=("no", "yes"))


def seen(accuracy, seed, n=600):
    """Return what is observed of a model that answers so many of n examples right, nearly the same ones for every seed."""
    target = torch.arange(n) % 2
    order = np.random.default_rng(0).random(n) + 0.02 * np.random.default_rng(seed + 1).random(n)
    right = torch.from_numpy(np.argsort(np.argsort(order)) < round(accuracy * n))
    said = torch.where(right, target, 1 - target)
    return TASK.observe(torch.eye(2)[said], Batch(torch.arange(n), None, target))


def grid(accuracies, n_seeds=3):
    return [[[seen(share, seed) for seed in range(n_seeds)] for share in row] for row in accuracies]


def kept(judged):
    return [[cell.kept for cell in row] for row in judged.cells]


def test_a_row_ends_at_the_first_cell_that_is_not_shown_and_the_next_row_begins_anew():
    judged = judge_grid(grid([[0.9, 0.7, 0.9], [0.9, 0.9, 0.7], [0.7, 0.9, 0.9]]), TASK, "accuracy", max_drop=0.05)
    assert kept(judged) == [[True, False, False], [True, True, False], [False, False, False]]


def test_each_difference_is_the_paired_comparison_at_a_level_that_the_rows_share():
    cells = grid([[0.9, 0.86], [0.88, 0.8], [0.85, 0.7]])
    judged = judge_grid(cells, TASK, "accuracy", max_drop=0.01, confidence=0.9, bootstrap=1000, seed=3)
    assert judged.each == pytest.approx(1 - 2 * 0.1 / 3)
    for i, j in ((0, 1), (1, 0), (1, 1), (2, 1)):
        pairs = Pairs(cells[0][0], cells[i][j], TASK, confidence=judged.each, bootstrap=1000, seed=3)
        expected = compare(pairs, ["accuracy"])[0].difference
        cell = judged.cells[i][j]
        assert cell.difference == expected
        assert (cell.drop, cell.bound) == (-expected.value, -expected.low)
    assert judged.cells[0][0].difference is None


@pytest.mark.parametrize(("margin", "shown"), [(0.999, True), (1.001, False)])
def test_the_margin_decides_by_the_end_of_the_interval(margin, shown):
    cells = grid([[0.9, 0.88]])
    bound = judge_grid(cells, TASK, "accuracy", max_drop=0.01).cells[0][1].bound
    judged = judge_grid(cells, TASK, "accuracy", max_drop=bound / margin)
    assert bound > 0.02
    assert judged.cells[0][1].kept is shown


def test_the_mean_over_seeds_has_students_interval_and_one_seed_has_none():
    observed = [[[seen(share, 0) for share in (0.8, 0.83, 0.9, 0.86)]]]
    cell = judge_grid(observed, TASK, "accuracy", max_drop=0.01, confidence=0.9).cells[0][0]
    values = [0.8, 0.83, 0.9, 0.86]
    low, high = stats.t.interval(0.9, 3, loc=np.mean(values), scale=stats.sem(values))
    assert cell.values == pytest.approx(values, abs=1e-3)
    assert (cell.low, cell.high) == pytest.approx((low, high), abs=1e-3)
    alone = judge_grid(grid([[0.9, 0.9]], n_seeds=1), TASK, "accuracy", max_drop=0.1)
    assert (alone.cells[0][1].low, alone.cells[0][1].high) == (None, None)
    assert alone.cells[0][1].kept


def test_of_an_error_more_is_worse():
    task = Regression()
    draw = np.random.default_rng(0)
    target = torch.from_numpy(draw.normal(size=300))

    def of(error):
        noise = torch.from_numpy(draw.normal(size=300))
        return [task.observe((target + error * noise)[:, None], Batch(torch.arange(300), None, target))] * 2

    judged = judge_grid([[of(0.5), of(0.1), of(0.9)]], task, "mae", max_drop=0.05)
    assert not judged.higher_is_better
    assert kept(judged) == [[True, True, False]]
    assert judged.cells[0][2].drop > 0.2


def test_cells_without_one_model_per_seed_or_without_examples_are_refused():
    uneven = [[[seen(0.9, 0)], [seen(0.9, 0), seen(0.9, 1)]]]
    with pytest.raises(DataError, match=r"one model per seed in each cell: got \[\[1, 2\]\]"):
        judge_grid(uneven, TASK, "accuracy", max_drop=0.1)
    with pytest.raises(DataError, match="measured on validation examples: got none"):
        judge_grid([[[seen(0.9, 0, n=0)]]], TASK, "accuracy", max_drop=0.1)
