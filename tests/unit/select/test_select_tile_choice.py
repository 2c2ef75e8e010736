"""Tiles follow the documented layout, and the best of each stay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.core.errors import ModelError, RunError
from prunus.core.types import Stratum
from prunus.core.units import Mask, as_mask, check_unit, plural
from prunus.select import best_of_each, select, tile

COMMON = settings(deadline=None, derandomize=True, max_examples=60)


@COMMON
@given(st.data())
def test_n_of_m_keeps_exactly_n_of_every_group_as_a_selection_of_each_would(data):
    m = data.draw(st.integers(2, 8))
    n, rows = data.draw(st.integers(1, m - 1)), data.draw(st.integers(1, 6))
    values = data.draw(st.lists(st.integers(-2, 3).map(float), min_size=m * rows, max_size=m * rows))
    saliency = np.array(values).reshape(rows, m)
    keep = best_of_each(saliency, n)
    assert (keep.sum(axis=1) == n).all()
    for row, kept in zip(saliency, keep, strict=True):
        assert (select([Stratum("group", row, min_units=0)], keep_fraction=n / m)[0] == kept).all()
    order = data.draw(st.permutations(range(m)))
    distinct = saliency + np.linspace(0, 0.4, m)
    assert (best_of_each(distinct, n)[:, order] == best_of_each(distinct[:, order], n)).all()


@COMMON
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
)
def test_every_weight_lies_in_one_tile_of_neighbouring_rows_and_columns(counts, rows, columns, transposed):
    n_out, n_in, kernel = counts[0] * rows, counts[1] * columns, counts[2]
    shape = (n_in, n_out, kernel) if transposed else (n_out, n_in, kernel)
    tiles = tile(shape, Mask("block", rows, columns), inputs=(0 if transposed else 1, 1))
    assert sorted(tiles.ravel().tolist()) == list(range(n_out * n_in * kernel))
    for places in tiles:
        where = np.array(np.unravel_index(places, shape))
        outputs, inputs = (where[1], where[0]) if transposed else (where[0], where[1])
        assert len(set(where[2])) == 1, "a tile lies at one position of the kernel"
        assert set(outputs) == set(range(outputs.min(), outputs.min() + rows))
        assert set(inputs) == set(range(inputs.min(), inputs.min() + columns))
        assert outputs.min() % rows == 0
        assert inputs.min() % columns == 0


def test_a_convolution_s_groups_are_its_rows_in_the_channels_last_layout():
    weight = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    rows = weight.to(memory_format=torch.channels_last).permute(0, 2, 3, 1).reshape(4, -1)  # as kernels read it
    tiles = tile(tuple(weight.shape), Mask("n_m", 2, 4))
    assert torch.equal(weight.flatten()[torch.from_numpy(tiles)], rows.reshape(-1, 4))


@pytest.mark.parametrize(
    ("shape", "mask", "inputs", "words"),
    [
        ((4, 6), "2:4", (1, 1), "head: 2:4 need a number of inputs that 4 divides: got 6"),
        ((6, 4), "4x1", (1, 1), "head: blocks of 4x1 need a number of outputs that 4 divides: got 6"),
        ((8, 3, 2, 2), "2:4", (1, 1), "got 3"),  # 3 * 2 * 2 would do, but the four would be of different channels
        ((8, 4, 3), "2:4", (0, 4), "got 2"),  # a transposed convolution in four groups has two inputs in each
    ],
)
def test_what_does_not_divide_names_the_layer_the_number_and_the_way_out(shape, mask, inputs, words):
    with pytest.raises(ModelError, match=words) as caught:
        tile(shape, as_mask(mask), inputs=inputs, name="head")
    assert "strategy.exclude" in str(caught.value)
    assert "round_to" in str(caught.value)


def test_a_saliency_that_is_not_finite_is_refused():
    with pytest.raises(RunError, match="finite"):
        best_of_each(np.array([[1.0, np.nan]]), 1)


def test_a_million_weights_are_masked_in_one_go():
    saliency = np.random.default_rng(0).random((1024, 1024))
    tiles = tile((1024, 1024), Mask("n_m", 2, 4))
    keep = best_of_each(saliency.ravel()[tiles], 2)
    assert keep.shape == (262144, 4)
    four = saliency.ravel()[tiles]
    assert np.allclose(np.sort(four, axis=1)[:, 2:].sum(axis=1), (four * keep).sum(axis=1))


@pytest.mark.parametrize("value", ["4:4", "5:4", "0:4", "2:0", "1x1", "x4", "2:4:8", "2.5:4", "feature", "blocks", ""])
def test_a_unit_that_makes_no_sense_is_refused_with_what_came(value):
    with pytest.raises(ValueError, match="got"):
        check_unit(value)


def test_units_are_said_in_the_plural():
    assert [plural(check_unit(unit)) for unit in ("head", "weight", "2:4", "8x1")] == [
        "heads",
        "weights",
        "weights (2:4)",
        "8x1 blocks",
    ]
