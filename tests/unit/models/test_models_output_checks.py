"""Outputs that don't fit the labels are found before training, and looking changes nothing."""

import pytest
import torch
from torch import nn

from prunus.core.batch import Batch
from prunus.core.errors import ModelError
from prunus.models import check_outputs
from prunus.tasks import Classification, Regression

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1])


class Gives(nn.Module):
    """Answer with a fixed function of the inputs."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def check(function, task="classification", n_outputs=3, targets=Y):
    model = function if isinstance(function, nn.Module) else Gives(function)
    asked = Regression() if task == "regression" else Classification(n_classes=n_outputs)
    check_outputs(model, Batch(torch.arange(len(X)), X, targets), asked)


def test_outputs_that_fit_pass():
    check(nn.Linear(4, 3))
    check(lambda x: x[:, 0], "regression", 1, torch.rand(5))
    check(lambda x: x[:, :1], "regression", 1, torch.rand(5))


@pytest.mark.parametrize(
    ("function", "task", "message"),
    [
        (
            nn.Linear(4, 2),
            "classification",
            r"expected \(5, 3\), got \(5, 2\); the model has 2 outputs for 3 classes; .*n_outputs",
        ),
        (nn.Linear(4, 9), "classification", "the model has 9 outputs for 3 classes"),
        (nn.Linear(4, 1), "classification", r"got \(5, 1\); give one score per class, 3 of them"),
        (lambda x: x[:, 0], "classification", r"got \(5,\); give one score per class"),
        (lambda x: x.reshape(5, 2, 2), "classification", r"got \(5, 2, 2\); one row per input is needed"),
        (lambda x: x[:2, :3], "classification", r"got \(2, 3\); one row per input"),
        (nn.Linear(4, 3), "regression", r"expected \(5,\), got \(5, 3\); regression needs one output"),
        (nn.Linear(3, 3), "classification", r"fails on inputs float32 \[5, 4\]: RuntimeError: .*shapes"),
        (lambda x: (x, x), "classification", "must return one tensor .* got a tuple"),
        (lambda x: {"a": x, "b": x}, "classification", "must return one tensor .* got a dict"),
        (lambda x: x.argmax(1), "classification", "floating-point scores, got torch.int64; return logits"),
        (lambda x: x[:, :3] / 0, "classification", "NaN or infinity: 15 of 15 outputs"),
        (lambda x: torch.where(x > 9, x, torch.nan)[:, :1], "regression", "NaN or infinity: 5 of 5 outputs"),
    ],
)
def test_outputs_that_do_not_fit_are_explained(function, task, message):
    with pytest.raises(ModelError, match=message) as caught:
        check(function, task, targets=torch.rand(5) if task == "regression" else Y)
    assert "\n" not in str(caught.value)


def test_a_failure_is_chained():
    with pytest.raises(ModelError) as caught:
        check(nn.Linear(3, 3))
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("bad", [-1, 3])
def test_labels_beyond_the_outputs_are_named(bad):
    with pytest.raises(ModelError, match=r"labels must be class numbers 0\.\.2, got"):
        check(nn.Linear(4, 3), targets=torch.tensor([0, 1, 2, 0, bad]))


@pytest.mark.parametrize("works", [True, False])
def test_the_model_its_statistics_and_every_modules_mode_stay(works):
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3 if works else 2))
    model[0].eval()  # a user may have frozen the norm's statistics
    model[1].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    if works:
        check(model)
    else:
        with pytest.raises(ModelError):
            check(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
