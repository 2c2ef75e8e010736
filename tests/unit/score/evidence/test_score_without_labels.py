"""Without labels a gradient is that of a drawn label, or of outputs with random signs, and its mean square is known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from prunus.score.evidence.without_labels import probe_loss


def batch(n, first=0):
    return SimpleNamespace(index=torch.arange(first, first + n))


def gradient(outputs, measure, seed=0, first=0):
    leaf = outputs.clone().requires_grad_(True)
    value = probe_loss(measure, seed=seed)(leaf, batch(len(outputs) if outputs.dim() else 1, first))
    assert value.shape == ()
    return torch.autograd.grad(value, leaf)[0]


def drawn_labels(outputs, found, dim, n_examples):
    """Undo what a mean over examples and positions does: shares minus the drawn label, one-hot."""
    n_positions = outputs.numel() // outputs.shape[dim] // n_examples
    onehot = outputs.softmax(dim) - found * n_examples * n_positions
    assert torch.allclose(onehot.sum(dim), torch.ones(()), atol=1e-4)
    assert torch.allclose(onehot.amax(dim), torch.ones(()), atol=1e-4)
    return onehot


@pytest.mark.parametrize(
    ("measure", "shape", "dim"),
    [
        ("kl", (4, 3), 1),
        ("kl", (4, 3, 5), 1),
        ("kl", (2, 3, 5, 2), 1),
        ("kl_last", (4, 5, 3), -1),
        ("kl_last", (4, 3), -1),
    ],
)
def test_every_position_of_every_example_draws_one_label(measure, shape, dim):
    outputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    drawn_labels(outputs, gradient(outputs, measure), dim, len(outputs))


def test_labels_are_drawn_by_the_model_s_own_probabilities():
    logits = torch.tensor([2.0, 0.0, -1.0]).repeat(4000, 1)
    labels = drawn_labels(logits, gradient(logits, "kl"), 1, 4000)
    assert torch.allclose(labels.mean(0), logits[0].softmax(0), atol=0.03)


def test_one_score_is_that_of_the_second_of_two_classes():
    logits = torch.tensor([[1.0]]).repeat(4000, 1)
    found = logits.sigmoid() - gradient(logits, "kl") * 4000
    assert set(found.round(decimals=3).abs().flatten().tolist()) == {0.0, 1.0}
    assert float(found.mean()) == pytest.approx(0.731, abs=0.03)


@pytest.mark.parametrize(
    ("measure", "shape"), [("relative", (4, 6)), ("relative", (3, 2, 5)), ("kl", (4,)), ("kl", ())]
)
def test_other_numbers_have_random_signs_and_an_example_has_one_unit_in_all(measure, shape):
    found = gradient(torch.ones(shape), measure)
    n, per_example = (shape[0], torch.Size(shape[1:]).numel()) if shape else (1, 1)
    assert torch.allclose(found.abs(), torch.full(shape, 1 / n / per_example**0.5))
    many = gradient(torch.ones(2000, 2), measure="relative")
    assert abs(float(many.sign().mean())) < 0.06


def test_the_draw_hangs_on_the_seed_and_the_first_position_alone():
    outputs = torch.zeros(30, 4)
    first = gradient(outputs, "kl")
    assert torch.equal(first, gradient(outputs, "kl"))
    assert not torch.equal(first, gradient(outputs, "kl", seed=1))
    assert not torch.equal(first, gradient(outputs, "kl", first=7))


def test_several_answers_add_up_and_half_precision_is_summed_in_single():
    one, other = torch.ones(2, 3), torch.ones(2, 8)
    both = probe_loss("relative")({"a": one, "b": other.half(), "n": torch.tensor(3)}, batch(2))
    assert both.dtype == torch.float32
    signs = [(s * 2 - 1).sum() for s in _draws((2, 3), (2, 8))]
    assert float(both) == pytest.approx(float(signs[0] / 3**0.5 + signs[1] / 8**0.5) / 2, abs=1e-2)


def _draws(*shapes):
    from prunus.core.runtime import generator

    draw = generator(0, "score", "probe", 0)
    return [torch.randint(0, 2, shape, generator=draw) for shape in shapes]
