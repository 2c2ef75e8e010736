"""What a classifier's outputs must be is said with the numbers that are known."""

import numpy as np
import pytest
import torch

from prunus.core.batch import Batch
from prunus.core.errors import ModelError
from prunus.tasks import Classification, classification


@pytest.mark.parametrize(
    ("n_classes", "shape", "said"),
    [
        (4, (3,), r"expected \(3, 4\), got \(3,\); give one score per class, 4 of them"),
        (4, (3, 5), r"expected \(3, 4\), got \(3, 5\); the model has 5 outputs for 4 classes"),
        (4, (3, 4, 2), r"expected \(3, 4\), got \(3, 4, 2\); one row per input is needed"),
        (0, (3, 4, 2), r"expected \(3, 'classes'\), got \(3, 4, 2\)"),
    ],
)
def test_outputs_that_do_not_fit_are_told_what_is_expected(n_classes, shape, said):
    batch = Batch(torch.arange(3), None, torch.tensor([0, 1, 2]))
    with pytest.raises(ModelError, match=said):
        Classification(n_classes=n_classes).check(torch.zeros(shape), batch)


@pytest.mark.parametrize("at_once", [1, 7, 1 << 16])
def test_an_imagined_answer_is_as_sure_as_those_seen_that_are_right_or_wrong(at_once, monkeypatch):
    monkeypatch.setattr(classification, "_AT_ONCE", at_once)
    random = np.random.default_rng(0)
    true, scores = random.integers(0, 3, 50), torch.from_numpy(random.standard_normal((50, 3)))
    task = Classification(("a", "b", "c"))
    seen = task.observe(scores, Batch(torch.arange(50), None, torch.from_numpy(true)))
    made = task.imagine(seen)
    for one, right in ((made.right, True), (made.wrong, False)):
        expected = seen["nll"][seen["right"] == right].mean()
        assert one["nll"] == pytest.approx(np.full(3, expected))
        assert one["scores"][np.arange(3), one["true"]] == pytest.approx(np.full(3, -expected))
