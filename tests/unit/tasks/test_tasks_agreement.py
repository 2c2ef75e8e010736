"""How alike two answers are: against the definitions, for any structure, and what doesn't fit in one line."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.core.errors import DataError, ModelError
from prunus.evaluate import measure_quality
from prunus.tasks.agreement import Agreement
from task_samples import Answer, batch_of, value_of


def drawn(*size, seed=0):
    draw = torch.Generator().manual_seed(seed)
    dense = torch.randn(*size, generator=draw)
    return dense + 0.5 * torch.randn(*size, generator=draw), dense


def test_of_scores_of_classes_the_decision_the_divergence_and_the_distance_are_measured():
    new, old = drawn(30, 4)
    task, batch = Agreement(), batch_of(old)
    same = (new.argmax(dim=1) == old.argmax(dim=1)).float().mean()
    assert value_of(task, "agreement", new, batch) == pytest.approx(float(same))
    assert value_of(task, "decision_agreement", new, batch) == pytest.approx(float(same))
    divergence = functional.kl_div(new.log_softmax(1), old.log_softmax(1), log_target=True, reduction="batchmean")
    assert value_of(task, "kl", new, batch) == pytest.approx(float(divergence), rel=1e-5)
    distance = ((new - old).norm(dim=1) / old.norm(dim=1)).mean()
    assert value_of(task, "relative_distance", new, batch) == pytest.approx(float(distance), rel=1e-5)
    assert torch.allclose(task.loss(new, batch), distance)


def test_the_same_answer_agrees_wholly_and_its_gradient_is_a_number():
    _, old = drawn(5, 3)
    new = old.clone().requires_grad_()
    task, batch = Agreement(), batch_of(old)
    assert [value_of(task, name, new, batch) for name in ("agreement", "kl", "relative_distance")] == [1.0, 0.0, 0.0]
    (gradient,) = torch.autograd.grad(task.loss(new, batch), new)
    assert bool(gradient.isfinite().all())


def test_a_share_that_is_counted_has_wilsons_interval():
    _, old = drawn(20, 3)
    task = Agreement()
    (item,) = measure_quality(task.observe(old, batch_of(old)), task, metrics=["agreement"], bootstrap=50).metrics
    assert item.value == 1.0
    assert 0.8 < item.low < 0.9


def test_of_tokens_and_pixels_an_example_is_right_when_all_its_decisions_are():
    new, old = drawn(6, 5, 3)
    same = new.argmax(dim=2) == old.argmax(dim=2)
    task, batch = Agreement(), batch_of({"logits": old}, n=6)
    assert value_of(task, "decision_agreement", {"logits": new}, batch) == pytest.approx(float(same.float().mean()))
    assert value_of(task, "agreement", {"logits": new}, batch) == pytest.approx(float(same.all(dim=1).float().mean()))
    new, old = drawn(6, 3, 4, 4)
    same = (new.argmax(dim=1) == old.argmax(dim=1)).float().mean()
    found = value_of(task, "decision_agreement", Answer(new), batch_of(Answer(old), n=6))
    assert found == pytest.approx(float(same))


def test_other_numbers_are_right_within_a_tolerance_and_have_no_divergence():
    old = torch.full((2, 3, 4, 4), 2.0)
    new = old * torch.tensor([1.04, 1.06])[:, None, None, None]
    task, batch = Agreement(), batch_of(old)
    assert value_of(task, "agreement", new, batch) == 0.5
    with pytest.raises(ModelError, match="kl: the answers aren't scores of classes"):
        value_of(task, "kl", new, batch)
    assert value_of(Agreement(tolerance=0.1), "agreement", new, batch) == 1.0
    assert value_of(Agreement(scores=True), "kl", new, batch) >= 0


def test_a_single_number_is_none_of_two_classes_unless_it_is_said():
    new, old = torch.tensor([[0.1], [3.0]]), torch.tensor([[-0.1], [2.0]])
    assert value_of(Agreement(), "agreement", new, batch_of(old)) == 0.0
    assert value_of(Agreement(scores=True), "agreement", new, batch_of(old)) == 0.5


def test_all_the_numbers_of_a_structure_count_but_not_a_loss_beside_them():
    new, old = drawn(4, 3)
    other, reference = drawn(4, 2, 2, seed=1)
    found = Agreement().losses(
        {"a": new, "b": [other], "loss": torch.tensor(9.0)},
        batch_of({"a": old, "b": [reference], "loss": torch.tensor(1.0)}, n=4),
    )
    both = [torch.cat([a, b.flatten(1)], dim=1) for a, b in ((new, other), (old, reference))]
    assert torch.allclose(found, (both[0] - both[1]).norm(dim=1) / both[1].norm(dim=1))


def test_of_lists_with_an_answer_for_each_example_what_lacks_counts_as_zero():
    old = [{"boxes": torch.ones(2, 4)}, {"boxes": torch.ones(1, 4)}, {"boxes": torch.zeros(0, 4)}]
    new = [{"boxes": torch.ones(1, 4)}, {"boxes": torch.ones(1, 4)}, {"boxes": torch.ones(1, 4)}]
    found = Agreement().losses(new, batch_of(old))
    np.testing.assert_allclose(found, [np.sqrt(0.5), 0.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "targets", "error", "said"),
    [
        (torch.zeros(2, 3), None, DataError, "the dense model's answers as targets: got None"),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 4),
            ModelError,
            r"like the dense model's, float32 \[2, 4\]: got float32 \[2, 3\]",
        ),
        ({"a": torch.zeros(2, 3)}, torch.zeros(2, 4), ModelError, "got a dict"),
        ([{"a": torch.zeros(1, 3)}] * 2, [{"a": torch.zeros(1, 4)}] * 2, ModelError, "like the dense model's"),
    ],
)
def test_what_does_not_fit_is_one_line(outputs, targets, error, said):
    with pytest.raises(error, match=said) as caught:
        Agreement().check(outputs, batch_of(targets, n=2))
    assert str(caught.value).startswith("agreement: ")
    assert "\n" not in str(caught.value)
