"""Every corruption: the same for the same seed, worse at each step, and what it says it is."""

import io
import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from prunus.evaluate.robustness.corruptions import CORRUPTIONS, SEVERITIES, InputFacts
from prunus.evaluate.robustness.corruptions.image_corruptions import block_cosines, blurred

EVERY = [(kind, name) for kind, known in CORRUPTIONS.items() for name in known]


def inputs_of(kind, n=40):
    draw = torch.Generator().manual_seed(0)
    if kind == "image":
        smooth = blurred(torch.rand(n, 3, 24, 24, generator=draw), 2.0)
        return (smooth - smooth.min()) / (smooth.max() - smooth.min())
    if kind == "table":
        return torch.cat([torch.randn(n, 11, generator=draw), (torch.rand(n, 1, generator=draw) < 0.5).float()], dim=1)
    if kind == "sequence":
        return torch.randn(n, 2, 200, generator=draw)
    rows = torch.randint(1, 50, (n, 30), generator=draw)
    rows[: n // 2, 20:] = 0
    return rows


def facts_for(kind, x):
    if kind == "tokens":
        none = torch.zeros(())
        counts = torch.bincount(x[x != 0].flatten(), minlength=50).double()
        return InputFacts(none, none, none, none, torch.tensor(True), 0, counts)
    flat = x if kind == "table" else x.flatten()[:, None]
    low, high = flat.amin(dim=0), flat.amax(dim=0)
    parts = [low, high, flat.mean(dim=0), flat.std(dim=0), ~((flat == low) | (flat == high)).all(dim=0)]
    return InputFacts(*(parts if kind == "table" else [part[0] for part in parts]))


def worse(kind, name, severity, seed=0):
    x = inputs_of(kind)
    return x, CORRUPTIONS[kind][name].function(x, severity, torch.Generator().manual_seed(seed), facts_for(kind, x))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_same_seed_gives_the_same_inputs_and_nothing_is_changed_in_place(kind, name):
    x, one = worse(kind, name, 3)
    again = worse(kind, name, 3)[1]
    assert torch.equal(one, again)
    assert one.shape == x.shape
    assert one.dtype == x.dtype
    assert torch.equal(x, inputs_of(kind))
    assert not torch.equal(one, x)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_each_step_is_worse_than_the_one_before(kind, name):
    def away(severity):
        x, one = worse(kind, name, severity)
        return float((one != x).float().mean()) if kind == "tokens" else float((one - x).abs().mean())

    found = [away(severity) for severity in SEVERITIES]
    assert all(two > 0.98 * one for one, two in itertools.pairwise(found))
    assert found[0] < 0.8 * found[-1]


@pytest.mark.parametrize("name", CORRUPTIONS["image"])
def test_images_stay_within_their_range(name):
    _, one = worse("image", name, 5)
    assert one.min() >= 0
    assert one.max() <= 1 + 1e-6


def test_a_blur_is_scipys():
    x = inputs_of("image", 2)
    expected = ndimage.gaussian_filter(x.numpy(), (0, 0, 1.3, 1.3), mode="nearest", radius=6)
    assert blurred(x, 1.3).numpy() == pytest.approx(expected, abs=1e-5)


def test_the_cosines_are_an_orthonormal_transform():
    matrix = block_cosines()
    assert torch.allclose(matrix @ matrix.T, torch.eye(8, dtype=torch.float64), atol=1e-12)
    assert matrix[0] == pytest.approx(np.full(8, 8**-0.5))


def test_compression_is_nearly_what_pillow_makes_of_it():
    """The table and the transform are JPEG's: what is left is how each rounds its numbers to bytes."""
    image = pytest.importorskip("PIL.Image")
    gray = (255 * inputs_of("image", 1)[0, 0]).round()
    file = io.BytesIO()
    image.fromarray(gray.numpy().astype(np.uint8)).save(file, "JPEG", quality=15)
    expected = np.asarray(image.open(file)).astype(float)
    facts = InputFacts(*(torch.tensor(v) for v in (0.0, 255.0, 0.0, 1.0)), torch.tensor(True))
    ours = CORRUPTIONS["image"]["jpeg"].function(gray[None, None], 3, torch.Generator(), facts)[0, 0].numpy()
    assert np.abs(ours - expected).mean() < 1.0
    assert np.abs(gray.numpy() - expected).mean() > 3.0  # and not as if nothing had been done


def test_pixels_are_the_means_of_blocks():
    x = inputs_of("image", 1)
    _, one = x, CORRUPTIONS["image"]["pixelate"].function(x, 3, torch.Generator(), facts_for("image", x))
    assert one[0, 0, 0, 0] == pytest.approx(float(x[0, 0, :2, :2].mean()), abs=1e-6)
    assert torch.equal(one[..., 0::2, 0::2], one[..., 1::2, 1::2])


def test_missing_values_become_the_mean_as_often_as_was_said():
    x, one = worse("table", "missing", 5)
    mean = facts_for("table", x).mean
    gone = one != x
    assert torch.equal(one[gone], mean.expand_as(x)[gone])
    assert 0.4 < gone.float().mean() < 0.6


def test_a_feature_of_two_values_gets_no_noise():
    x, one = worse("table", "feature_noise", 5)
    assert torch.equal(one[:, -1], x[:, -1])
    assert (one[:, :-1] != x[:, :-1]).all()


def test_shuffled_columns_hold_the_same_values():
    x, one = worse("table", "shuffled_columns", 5)
    assert torch.equal(one.sort(dim=0).values, x.sort(dim=0).values)
    assert int((one != x).any(dim=0).sum()) == 6


def test_dropped_tokens_leave_the_others_in_order_and_padding_at_the_end():
    x, one = worse("tokens", "token_drop", 5)
    for before, after in zip(x.tolist(), one.tolist(), strict=True):
        left = [token for token in after if token]
        rest = iter(before)
        assert all(token in rest for token in left), "a subsequence"
        assert after == left + [0] * (30 - len(left))


def test_swapped_tokens_are_the_same_ones():
    x, one = worse("tokens", "token_swap", 5)
    assert torch.equal(one.sort(dim=1).values, x.sort(dim=1).values)
    assert torch.equal(one == 0, x == 0)


def test_replaced_tokens_come_from_the_data_and_padding_stays():
    x, one = worse("tokens", "token_replace", 5)
    assert torch.equal(one == 0, x == 0)
    assert set(one.unique().tolist()) <= set(x.unique().tolist())


def test_noise_lies_as_far_below_the_signal_as_was_said():
    x, one = worse("sequence", "signal_noise", 1)
    ratio = x.square().mean() / (one - x).square().mean()
    assert 10 * torch.log10(ratio) == pytest.approx(20, abs=0.5)


def test_a_hole_is_one_stretch_of_silence():
    _, one = worse("sequence", "holes", 3)
    for row in one:
        silent = (row == 0).all(dim=0)
        at = silent.nonzero()[:, 0]
        assert len(at) == 40
        assert int(at[-1] - at[0]) == 39
