"""Sums of inputs and outputs, and comparisons among units, against the plainest way to compute them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.core.errors import DataError
from prunus.data.sources.source import row_chunks
from prunus.score.criteria import relative
from prunus.score.criteria.criterion import criteria
from prunus.score.evidence import statistics as sums
from prunus.score.evidence.statistics import CANCELS, Grams, Moments, Norms, _mean_and_deviation, _patches, _rows, _same
from prunus.score.evidence.weight_hooks import _channels, _contracted, _same_axis
from prunus.score.feature_importance import _Judge

DRAW = torch.Generator().manual_seed(0)

SETTINGS = [
    ((3, 4, 9), (6, 4, 3), (1,), (0,), (1,), 1),
    ((3, 4, 9), (6, 2, 3), (2,), (2,), (2,), 2),
    ((2, 6, 7, 8), (6, 1, 3, 2), (2, 1), (1, 0), (1, 3), 6),
    ((2, 4, 7, 8), (6, 2, 2, 3), (1, 2), (0, 2), (2, 1), 2),
    ((2, 2, 5, 4, 6), (3, 2, 2, 1, 3), (1, 1, 2), (1, 0, 0), (1, 1, 2), 1),
]


def rand(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=DRAW, dtype=dtype)


@pytest.mark.parametrize(("given", "kernel", "stride", "padding", "dilation", "groups"), SETTINGS)
def test_patches_times_the_weight_are_the_convolution(given, kernel, stride, padding, dilation, groups):
    x, weight = rand(*given), rand(*kernel)
    convolution = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}[x.dim()]
    expected = convolution(x, weight, None, stride, padding, dilation, groups)
    patches = _patches(x, kernel[2:], stride, padding, dilation, groups)
    made = patches @ weight.reshape(groups, kernel[0] // groups, -1).transpose(1, 2)
    made = made.permute(0, 2, 1).reshape(kernel[0], given[0], *expected.shape[2:]).transpose(0, 1)
    assert torch.allclose(made, expected)


@pytest.mark.parametrize("numbers", [1, 60, 2**24])
@pytest.mark.parametrize(("given", "kernel", "stride", "padding", "dilation", "groups"), SETTINGS)
def test_grams_of_patches_are_means_of_outer_products_however_many_are_made_at_a_time(
    monkeypatch, numbers, given, kernel, stride, padding, dilation, groups
):
    monkeypatch.setattr(sums, "_PATCH_NUMBERS", numbers)
    chunks = []
    monkeypatch.setattr(sums, "row_chunks", lambda rows, step: chunks.append(step) or row_chunks(rows, step))
    weight, grams, seen = rand(*kernel), Grams(), []
    for _ in range(2):
        x = rand(*given)
        grams.add_patches("w", x, weight, stride, padding, dilation, groups)
        seen.append(_patches(x, kernel[2:], stride, padding, dilation, groups))
    rows = torch.cat(seen, dim=1)
    found = grams.results()["w"].reshape(groups, rows.shape[2], rows.shape[2])
    assert torch.allclose(found, rows.transpose(1, 2) @ rows / rows.shape[1])
    inverse = grams.inverse_diagonals(0.5)["w"]
    assert inverse.shape == (1 if groups == 1 else kernel[0], *kernel[1:])
    per_example = x[0].numel() * weight[0, 0].numel()
    assert set(chunks) == {max(1, numbers // per_example)}


@pytest.mark.parametrize("damping", [0.0, 0.01, 0.5])
def test_the_diagonal_of_each_inverse_broadcasts_against_its_weight(damping):
    rows, grams = rand(50, 4), Grams()
    rows[:, 2] = 0
    grams.add("w", rows[:20].reshape(4, 5, 4), (1, 4))
    grams.add("w", rows[20:], (1, 4))
    gram = rows.T @ rows / 50
    assert torch.allclose(grams.results()["w"], gram)
    alive = [0, 1, 3]
    # The mean is over all entries, the dead one's too.
    damped = gram[alive][:, alive] + damping * gram.diagonal().mean() * torch.eye(3, dtype=torch.float64)
    (found,) = grams.inverse_diagonals(damping).values()
    assert found.shape == (1, 4)
    assert torch.allclose(found[0, alive], torch.linalg.inv(damped).diagonal())
    assert found[0, 2] == torch.inf


def test_as_many_rows_as_features_are_enough_and_one_less_is_not():
    for n_rows, enough in ((4, True), (3, False)):
        grams = Grams()
        grams.add("w", rand(n_rows, 4), (1, 4))
        if enough:
            assert grams.inverse_diagonals(0.0)["w"].shape == (1, 4)
        else:
            with pytest.raises(DataError, match=r"at least 4 rows of inputs at 'w'.*got 3"):
                grams.inverse_diagonals(0.0)
            assert torch.isfinite(grams.inverse_diagonals(0.1)["w"]).all()
    grams = Grams()
    grams.add("w", torch.ones(9, 2, dtype=torch.float64), (1, 2))
    with pytest.raises(DataError, match=r"depend on each other.*got 9 rows of 2 features"):
        grams.inverse_diagonals(0.0)


@pytest.mark.parametrize(
    ("shape", "axis"), [((6, 5), 1), ((6, 3, 5), 2), ((6, 5, 4), 1), ((6, 5, 4, 3), 1), ((5, 6), 0)]
)
def test_norms_and_moments_of_batches_are_those_of_all_values_together(shape, axis):
    batches = [rand(*shape) + 0.3 for _ in range(3)]
    needs = {"active_fraction", "output_mean", "output_variance"}
    norms, moments = Norms(), Moments(needs)
    moments.expect("w", 0, torch.empty(5, 7))
    for values in batches:
        norms.add("w", values, axis, (1, 5), None)
        moments.add("w", values, axis, slice(None))
    rows = torch.cat([values.movedim(axis, -1).reshape(-1, 5) for values in batches])
    assert torch.allclose(norms.results()["w"], rows.norm(dim=0)[None])
    found = moments.results()
    expected = {
        "active_fraction": (rows > 0).double().mean(dim=0),
        "output_mean": rows.abs().mean(dim=0),
        "output_variance": rows.var(dim=0, correction=0),
    }
    assert found.keys() == needs
    for need, values in expected.items():
        assert found[need]["w"].shape == (5, 1)
        assert torch.allclose(found[need]["w"][:, 0], values)


def test_rows_of_a_weight_that_are_read_at_other_times_have_counts_of_their_own():
    moments = Moments({"output_variance", "active_fraction", "output_mean"})
    moments.expect("w", 1, torch.empty(2, 5))
    first, second, third = rand(6, 3), rand(4, 2), rand(3, 3)
    moments.add("w", first, 1, slice(0, 3))
    moments.add("w", second, 1, slice(3, 5))
    moments.add("w", third, 1, slice(0, 3))
    top = torch.cat([first, third])
    found = moments.results()
    assert torch.allclose(
        found["output_variance"]["w"][0], torch.cat([top.var(0, correction=0), second.var(0, correction=0)])
    )
    assert torch.allclose(found["output_mean"]["w"][0], torch.cat([top.abs().mean(0), second.abs().mean(0)]))
    unseen = Moments({"output_mean"})
    unseen.expect("w", 0, torch.empty(3, 2))
    assert unseen.results()["output_mean"]["w"].tolist() == [[0.0]] * 3


@pytest.mark.parametrize("offset", [0.0, 1.0, 5.4, 5.6, 100.0])
@pytest.mark.parametrize("shape", [(40, 3), (10, 3, 4)])
def test_a_squared_mean_of_many_variances_takes_the_slow_way(monkeypatch, offset, shape):
    slow = []
    monkeypatch.setattr(torch, "var_mean", lambda *a, real=torch.var_mean, **k: slow.append(1) or real(*a, **k))
    units = rand(*shape)
    others = [d for d in range(units.dim()) if d != 1]
    units = (units - units.mean(dim=others, keepdim=True)) / units.std(dim=others, correction=0, keepdim=True) + offset
    mean, deviation = _mean_and_deviation(units, 0 if units.dim() == 2 else 2, 40)
    assert torch.allclose(mean, torch.full((3,), offset, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(deviation, torch.full((3,), 40.0, dtype=torch.float64))
    assert bool(slow) == (offset**2 > CANCELS)


def test_views_of_one_memory_are_the_same_only_in_the_same_form():
    values = rand(4, 4)
    assert _same(values, values.view(4, 4))
    assert not _same(values, values.t())
    assert not _same(values, values[:2])
    assert not _same(values, values.clone())
    assert not _same(values, values[1:])


def test_rows_have_at_least_single_precision():
    half = torch.ones(2, 3, 4, dtype=torch.float16)
    for axis, shape, along in ((2, (6, 4), 0), (1, (2, 3, 4), 2), (0, (1, 2, 12), 2)):
        rows, first = _rows(half, axis)
        assert (rows.shape, rows.dtype, first) == (shape, torch.float32, along)
    assert _rows(half.double(), 1)[0].dtype == torch.float64


@pytest.mark.parametrize(("first", "last"), [(0, 6), (0, 2), (2, 6), (3, 5)])
def test_a_product_with_rows_of_a_weight_is_known_by_their_place(first, last):
    weight = rand(6, 4)
    assert _contracted(weight[first:last].t(), weight) == (1, slice(first, last))
    if (first, last) != (0, 6):
        assert _contracted(weight[first:last], weight) is None
    assert _contracted(weight, weight) == (0, slice(None))
    assert _contracted(weight[:, 1:].t(), weight) is None
    assert _contracted(weight.view(4, 6), weight) is None
    assert _contracted(weight.t(), rand(6, 2, 2)) is None
    square = rand(4, 4)
    assert _contracted(square, square) == (0, slice(None))
    assert _contracted(square.t(), square) == (1, slice(0, 4))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_channels_lie_along_the_weight_s_inputs(groups, transposed):
    n_in, n_out = 6, 12
    weight = torch.empty((n_in, n_out // groups, 3) if transposed else (n_out, n_in // groups, 3))
    shape, place = _channels(weight, groups, transposed)
    values = torch.arange(float(n_in))
    placed = (values if place is None else place(values)).reshape(shape).expand((*weight.shape[:2], 1))[..., 0]
    for out in range(n_out):
        group = out // (n_out // groups)
        mine = range(group * n_in // groups, (group + 1) * n_in // groups)
        read = [placed[i, out % (n_out // groups)] for i in mine] if transposed else list(placed[out])
        assert [int(value) for value in read] == list(mine)


def test_a_dimension_is_none_where_the_view_holds_other_numbers():
    now = rand(4, 5)
    assert _same_axis(now, now, 1) == 1
    assert _same_axis(now.view(2, 2, 5), now, 1) == 2
    assert _same_axis(now[:2], now, 1) is None
    assert _same_axis(now.view(20), now, 0) is None


@pytest.mark.parametrize("pairs", [1, 7, 2**22])
def test_the_geometric_median_s_distances_are_those_of_all_pairs(monkeypatch, pairs):
    monkeypatch.setattr(relative, "_PAIRS_AT_ONCE", pairs)
    for shape in ((7, 3), (9, 1), (5, 2, 2), (1, 4)):
        weight = rand(*shape)
        rows = weight.reshape(len(weight), -1)
        expected = torch.stack([(rows - row).norm(dim=1).sum() for row in rows])
        assert torch.allclose(criteria["fpgm"]({"weight": weight}), expected)
    tied = torch.tensor([[2.0], [2.0], [5.0], [-1.0]])
    assert criteria["fpgm"]({"weight": tied}).tolist() == [6, 6, 12, 12]


def test_lamp_is_a_unit_s_square_over_those_as_large():
    for weight in (rand(6, 3), torch.tensor([[2.0], [2.0], [1.0], [0.0]]), torch.zeros(3, 2)):
        squares = weight.reshape(len(weight), -1).double().square().sum(dim=1)
        expected = [float(s / squares[squares >= s].sum()) if s > 0 else 0.0 for s in squares]
        assert criteria["lamp"]({"weight": weight}).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_bound_of_a_feature_is_that_of_its_formula(task):
    targets = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    model = nn.Linear(2, 2) if task == "classification" else nn.Linear(2, 1)
    judge = _Judge(
        model,
        targets.long() if task == "classification" else targets,
        task == "classification",
        0.95,
        2,
        torch.randn(5, 2),
    )
    worse = torch.tensor([1.0, 0.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    mean, upper = judge.bound(worse)
    z = 1.6448536269514722
    assert mean == pytest.approx(0.4)
    if task == "regression":
        assert upper == pytest.approx(0.4 + z * float(worse.std()) / 5**0.5)
        assert judge.spread == pytest.approx(0.24)
    else:
        variance = (4 + 1) / 7 - (2 / 7) ** 2
        assert upper == pytest.approx(2 / 7 + z * (variance / 7) ** 0.5)
        assert min(judge.bound(torch.ones(500, dtype=torch.float64))) == 1.0, "a bound holds its mean"
