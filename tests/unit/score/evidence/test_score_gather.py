"""Evidence is exact, and gathering it leaves no trace in the model."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.core.errors import DataError, ModelError, RunError
from prunus.score import gather

torch.manual_seed(0)


def cross_entropy(outputs, batch):
    return functional.cross_entropy(outputs, batch.targets)


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 2))


@pytest.fixture
def examples(examples_of):
    torch.manual_seed(2)
    return examples_of(torch.randn(11, 3), torch.arange(11) % 2)


def test_the_gradient_is_the_mean_over_single_examples_whatever_the_batch_size(examples):
    model, names = net(), ["0.weight", "4.bias"]
    expected = {name: torch.zeros_like(dict(model.named_parameters())[name]) for name in names}
    reference = copy.deepcopy(model).eval()
    for x, y in zip(examples.inputs, examples.targets, strict=True):
        reference.zero_grad()
        functional.cross_entropy(reference(x[None]), y[None]).backward()
        for name in names:
            expected[name] += dict(reference.named_parameters())[name].grad / len(examples)
    for batch_size in (1, 4, 11, 100):
        found = gather(model, names, examples, cross_entropy, ("gradient",), batch_size=batch_size)
        assert set(found.gradient) == set(names)
        for name in names:
            torch.testing.assert_close(found.gradient[name], expected[name], rtol=1e-5, atol=1e-7)


def test_the_model_is_left_as_it_was(examples):
    model = net().train()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones(6)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        found = gather(model, ["0.weight"], examples, cross_entropy, ("weight", "gradient"))
    assert found.gradient["0.weight"].abs().sum() > 0
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training
    assert model[1].training
    assert not model[4].training
    assert not model[0].weight.requires_grad
    assert model[0].weight.grad is None
    assert torch.equal(model[0].bias.grad, torch.ones(6))


def test_the_model_is_restored_after_an_error_too(examples):
    model = net().train()
    with pytest.raises(ZeroDivisionError):
        gather(model, ["0.weight"], examples, lambda outputs, batch: 1 / 0, ("gradient",))
    assert model.training


def test_weights_alone_need_no_examples_and_no_loss(examples_of):
    model = net()
    found = gather(model, ["0.weight"], examples_of(torch.zeros(0, 3), torch.zeros(0)), None, ("weight", "noise"))
    assert torch.equal(found.weight["0.weight"], model[0].weight)
    assert not found.gradient
    assert not found.weight["0.weight"].requires_grad


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda o, b: (o.argmax(1) == b.targets).float().mean(), "the loss has no gradient"),
        (lambda o, b: cross_entropy(o, b).detach(), "the loss has no gradient"),
        (lambda o, b: functional.cross_entropy(o, b.targets, reduction="none"), r"must be one number.*shape \(11,\)"),
        (lambda o, b: 3.0, "must be one number.*'float'"),
    ],
)
@pytest.mark.parametrize("need", ["gradient", "curvature", "squared_gradient"])
def test_a_loss_without_a_gradient_is_refused(examples, loss, message, need):
    with pytest.raises(ModelError, match=message):
        gather(net(), ["0.weight"], examples, loss, (need,))


def test_parameters_that_the_outputs_never_read_are_found_out(examples):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.used(x)

    model = Idle()
    with pytest.raises(ModelError, match="no gradient with respect to any of 1 parameters"):
        gather(model, ["idle.weight"], examples, cross_entropy, ("gradient",))
    found = gather(model, ["idle.weight", "used.weight"], examples, cross_entropy, ("gradient",))
    assert found.gradient["idle.weight"].eq(0).all()


@pytest.mark.parametrize("need", ["gradient", "curvature", "squared_gradient"])
def test_nan_in_the_weights_is_a_failed_run(examples, need):
    model = net()
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
        model[4].weight.fill_(1.0)
    with pytest.raises(RunError, match=r"starts at example 0 must be finite: got nan"):
        gather(model, ["0.weight"], examples, cross_entropy, (need,))


def test_an_unknown_parameter_and_an_empty_calibration_set_are_refused(examples, examples_of):
    with pytest.raises(ModelError, match=r"no parameter '0.weigth'; did you mean '0.weight'"):
        gather(net(), ["0.weigth"], examples, cross_entropy, ("weight",))
    with pytest.raises(DataError, match="need calibration examples: got none"):
        gather(net(), ["0.weight"], examples_of(torch.zeros(0, 3), torch.zeros(0)), cross_entropy, ("gradient",))
