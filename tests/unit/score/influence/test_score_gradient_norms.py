"""Are norms of gradients those of one backward pass per example, whatever the model is made of?"""

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import DataError, ModelError, NotFiniteError, RecipeError
from prunus.score import gradient_norms
from prunus.tasks import Classification, Regression
from prunus.tasks.own import own_task

THREE = Classification(("a", "b", "c"))


class Positions(nn.Module):
    """A linear layer that reads several positions of each example, and one that is scaled."""

    def __init__(self):
        super().__init__()
        self.each, self.last = nn.Linear(5, 6), nn.Linear(6, 3, bias=False)

    def forward(self, x):
        return self.last(torch.tanh(self.each(x)).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.last = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.recurrent(x)[0][:, -1])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.inner(torch.relu(self.inner(x))))


class Looks(nn.Module):
    """A forward that asks for a value, which no batching rule can."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.last(x) * (self.scale if float(x.sum()) > 0 else -self.scale)


IMAGES = nn.Sequential(
    nn.Conv2d(2, 4, 3, stride=2, padding=1),
    nn.ReLU(inplace=True),
    nn.Conv2d(4, 3, 1),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
)
CASES = {
    "plain": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)), (5,)),
    "dropout": (lambda: nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.5), nn.Linear(7, 3)), (5,)),
    "positions": (Positions, (4, 5)),
    "many positions": (Positions, (40, 5)),
    "images": (lambda: IMAGES, (2, 9, 9)),
    "a norm": (lambda: nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)), (5,)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)), (5,)),
    "recurrent": (Recurrent, (6, 5)),
    "a layer twice": (Twice, (5,)),
    "looks at values": (Looks, (5,)),
}


def case(name, n=23):
    torch.manual_seed(3)
    make, shape = CASES[name]
    draw = torch.Generator().manual_seed(1)
    return make(), torch.randn(n, *shape, generator=draw), torch.randint(0, 3, (n,), generator=draw)


@pytest.mark.parametrize("name", CASES)
def test_norms_are_those_of_one_backward_pass_per_example(name, examples_of, gradients_of):
    model, inputs, targets = case(name)
    examples = examples_of(inputs, targets)
    found = gradient_norms(model, examples, THREE, batch_size=7)
    expected = gradients_of(model, examples, THREE).double().norm(dim=1)
    np.testing.assert_allclose(found.value, expected.numpy(), rtol=2e-4, atol=1e-6)
    assert np.isnan(found.error).all()
    assert model.training


@pytest.mark.parametrize(
    ("name", "last"), [("plain", "2."), ("images", "2."), ("a norm", "2."), ("recurrent", "last.")]
)
def test_the_last_layer_alone_is_looked_at_where_that_is_asked(name, last, examples_of, gradients_of):
    model, inputs, targets = case(name)
    examples = examples_of(inputs, targets)
    names = [each for each, _ in model.named_parameters() if each.startswith(last)]
    found = gradient_norms(model, examples, THREE, layers=1)
    expected = gradients_of(model, examples, THREE, names).double().norm(dim=1)
    np.testing.assert_allclose(found.value, expected.numpy(), rtol=2e-4, atol=1e-6)


def test_what_a_layer_has_read_may_be_written_into(examples_of, gradients_of):
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            hidden = self.first(x)
            given = self.last(hidden)
            hidden.mul_(0)
            return given + hidden.sum()

    torch.manual_seed(0)
    model = Overwrites().requires_grad_(False)
    examples = examples_of(torch.randn(9, 5), torch.arange(9) % 3)
    found = gradient_norms(model, examples, THREE, layers=1)
    kept = model.last(model.first(examples.inputs)).softmax(dim=1)
    kept[torch.arange(9), examples.targets] -= 1
    hidden = model.first(examples.inputs)
    expected = kept.norm(dim=1) * (hidden.square().sum(dim=1) + 1).sqrt()
    np.testing.assert_allclose(found.value, expected.numpy(), rtol=1e-5)


def test_several_models_give_a_mean_and_its_standard_error(examples_of):
    examples = examples_of(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)

    def models():
        one = nn.Linear(5, 3)
        for seed in range(4):
            torch.manual_seed(seed)
            one.reset_parameters()
            yield one

    each = np.stack([gradient_norms(model, examples, THREE).value for model in models()])
    found = gradient_norms(models(), examples, THREE)
    np.testing.assert_allclose(found.value, each.mean(axis=0))
    np.testing.assert_allclose(found.error, each.std(axis=0, ddof=1) / 2)
    assert found.n_checkpoints == 4


def test_a_regression_has_gradients_too(examples_of, gradients_of):
    torch.manual_seed(0)
    model, examples = nn.Linear(5, 1), examples_of(torch.randn(9, 5), torch.randn(9))
    found = gradient_norms(model, examples, Regression())
    np.testing.assert_allclose(found.value, gradients_of(model, examples, Regression()).norm(dim=1).numpy(), rtol=1e-4)


def test_what_cannot_be_told_is_said_in_one_line(examples_of):
    examples = examples_of(torch.randn(4, 5), torch.arange(4) % 3)
    with pytest.raises(ModelError, match=r"the last 2 layers need .* the model ran 1; say layers=None"):
        gradient_norms(nn.Linear(5, 3), examples, THREE, layers=2)
    with pytest.raises(RecipeError, match="at least one checkpoint: got none"):
        gradient_norms([], examples, THREE)
    with pytest.raises(DataError, match="gradients need examples: got none"):
        gradient_norms(nn.Linear(5, 3), examples_of(torch.randn(0, 5), torch.zeros(0, dtype=torch.long)), THREE)
    inputs = torch.randn(4, 5)
    inputs[2] = torch.nan
    with pytest.raises(NotFiniteError, match="the loss of example 2 is nan"):
        gradient_norms(nn.Linear(5, 3), examples_of(inputs, torch.arange(4) % 3), THREE)

    class Folds(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(5, 3)

        def forward(self, x):
            return self.last(x.reshape(-1, 5)).reshape(len(x), -1, 3).mean(dim=1)

    folded = examples_of(torch.randn(4, 2, 5), torch.arange(4) % 3)
    with pytest.raises(ModelError, match="last reads 8 rows for 4 examples"):
        gradient_norms(Folds(), folded, THREE, layers=1)


def test_a_task_of_ones_own_has_gradients(examples_of, gradients_of):
    def absolute(outputs, targets):
        return (outputs[:, 0] - targets).abs().mean()

    task = own_task(loss=absolute, metric=absolute, higher_is_better=False)
    torch.manual_seed(0)
    model, examples = nn.Linear(5, 1), examples_of(torch.randn(9, 5), torch.randn(9))
    found = gradient_norms(model, examples, task)
    np.testing.assert_allclose(found.value, gradients_of(model, examples, task).norm(dim=1).numpy(), rtol=1e-4)


def test_a_recipe_removes_by_gradients_of_any_task():
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 6, generator=draw)
    data = list(zip(inputs, (inputs[:, :3] > 0).float(), strict=True))
    for criterion in ("grand", "last_gradient"):
        torch.manual_seed(0)
        optimizer = ModelOptimizer(
            nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 3)),
            data,
            task="multilabel",
            strategy="magnitude_l2",
            train={"epochs": 1},
            recovery={"epochs": 1},
            seeds=[0],
            examples={"epochs": 1, "remove": [{"criterion": criterion, "keep_fraction": 0.75}]},
        )
        optimizer.prune(keep_fraction=0.5)
        (decision,) = optimizer.plan_.steps[0].decisions
        assert decision.n_kept == round(0.75 * len(decision.unit))
        saliency = np.asarray(decision.saliency)
        assert (saliency > 0).all()
        assert saliency[decision.keep].min() >= saliency[~decision.keep].max()
