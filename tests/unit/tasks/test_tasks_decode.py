from __future__ import annotations

import pytest
import torch

from prunus.core.errors import ShapeError
from prunus.tasks import make_task


def postprocess(outputs, task, class_names=()):
    return make_task(task, class_names=class_names).decode(outputs)


def test_probabilities_are_the_softmax_and_labels_its_largest():
    outputs = torch.tensor([[1.0, 3.0, 2.0], [1000.0, -1000.0, 0.0]])
    prediction = postprocess(outputs, task="classification", class_names=("a", "b", "c"))
    assert prediction.labels == ("b", "a")
    expected = torch.exp(outputs[0]) / torch.exp(outputs[0]).sum()
    assert torch.allclose(prediction.probabilities[0], expected)
    assert torch.equal(prediction.probabilities[1], torch.tensor([1.0, 0.0, 0.0]))


def test_without_names_a_class_is_its_number_and_nothing_gives_nothing():
    assert postprocess(torch.tensor([[0.0, 1.0]]), task="classification").labels == ("1",)
    assert postprocess(torch.zeros(0, 2), task="classification").labels == ()
    assert postprocess(torch.zeros(0), task="regression").labels == ()


@pytest.mark.parametrize(
    ("outputs", "task", "words"),
    [
        (torch.zeros(3, 3), "classification", r"must be \(n, 2\), one logit per class: got \(3, 3\)"),
        (torch.zeros(3, 4), "classification", r"got \(3, 4\)"),
        (torch.zeros(3, 1, 1), "classification", r"got \(3, 1, 1\)"),
    ],
)
def test_outputs_of_another_shape_are_refused(outputs, task, words):
    with pytest.raises(ShapeError, match=words):
        postprocess(outputs, task=task, class_names=("a", "b"))


def test_a_single_logit_speaks_for_the_second_of_two_classes():
    prediction = postprocess(torch.tensor([[2.0], [-1.0]]), task="classification", class_names=("no", "yes"))
    assert prediction.labels == ("yes", "no")
    torch.testing.assert_close(prediction.probabilities[:, 1], torch.tensor([2.0, -1.0]).sigmoid())


def test_several_numbers_per_example_stay_together():
    assert postprocess(torch.tensor([[1.5, 2.0], [0.0, -1.0]]), task="regression").labels == ([1.5, 2.0], [0.0, -1.0])
