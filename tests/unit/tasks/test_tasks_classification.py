"""What a classifier's outputs must be is said with the numbers that are known."""

import pytest
import torch

from prunus.core.batch import Batch
from prunus.core.errors import ModelError
from prunus.tasks import Classification


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
