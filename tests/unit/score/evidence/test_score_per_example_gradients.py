"""Squares are of single examples, and curvature is that of the loss: brute force over examples says so."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.core.errors import ModelError
from prunus.score import gather
from prunus.score.evidence import per_example_gradients as pullbacks


def cross_entropy(outputs, batch):
    return functional.cross_entropy(outputs, batch.targets)


def net():
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def examples(examples_of):
    torch.manual_seed(2)
    return examples_of(torch.randn(7, 1, 4, 4, dtype=torch.float64), torch.arange(7) % 4)


def brute_force(model, names, examples, columns_of):
    """Mean over examples of sum over columns of (J^T v)^2, one backward pass each."""
    parameters = [dict(model.named_parameters())[name] for name in names]
    sums = {name: torch.zeros_like(p) for name, p in zip(names, parameters, strict=True)}
    for x, y in zip(examples.inputs, examples.targets, strict=True):
        outputs = model(x[None])
        for v in columns_of(outputs.detach(), y[None]):
            found = torch.autograd.grad(outputs, parameters, v, retain_graph=True)
            for name, gradient in zip(names, found, strict=True):
                sums[name] += gradient.square() / len(examples)
    return sums


def own_gradient(outputs, y):
    leaf = outputs.requires_grad_(True)
    return torch.autograd.grad(functional.cross_entropy(leaf, y), leaf)


def softmax_root(outputs, y):
    p = outputs.softmax(1)[0]
    return [(p[c].sqrt() * (torch.eye(len(p), dtype=p.dtype)[c] - p))[None] for c in range(len(p))]


NAMES = ["0.weight", "0.bias", "1.weight", "4.weight"]


@pytest.mark.parametrize(("need", "columns"), [("squared_gradient", own_gradient), ("curvature", softmax_root)])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_squares_equal_a_loop_over_examples_whatever_the_batch_size(examples, need, columns, batch_size):
    model = net()
    expected = brute_force(model, NAMES, examples, columns)
    found = gather(model, NAMES, examples, cross_entropy, (need,), batch_size=batch_size).more[need]
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-14)


def test_squares_of_batch_gradients_would_be_something_else(examples):
    model = net()
    gradient = gather(model, ["4.weight"], examples, cross_entropy, ("gradient",)).gradient["4.weight"]
    found = gather(model, ["4.weight"], examples, cross_entropy, ("squared_gradient",)).more["squared_gradient"]
    assert (found["4.weight"].sum() > 1.5 * gradient.square().sum()).all()


class Looks(nn.Module):
    """A forward that looks at values can't be mapped over examples at once."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x) if float(x.detach().sum()) < 1e9 else x


def test_a_model_that_can_not_be_mapped_is_looped_over(examples):
    plain, looking = net(), Looks().eval()
    needs = ("squared_gradient", "curvature")
    expected = gather(plain, NAMES, examples, cross_entropy, needs)
    found = gather(looking, [f"net.{name}" for name in NAMES], examples, cross_entropy, needs)
    for need in needs:
        for name in NAMES:
            torch.testing.assert_close(found.more[need][f"net.{name}"], expected.more[need][name])


@pytest.mark.parametrize("budget", [1, 3000, pullbacks.BUDGET_BYTES])
def test_a_model_that_can_be_mapped_is_not_looped_over(examples, monkeypatch, budget):
    def loop(*_):
        raise AssertionError("one example after the other")

    monkeypatch.setattr(pullbacks, "BUDGET_BYTES", budget)
    monkeypatch.setattr(pullbacks.Pullbacks, "_pull_one", loop)
    gather(net(), NAMES, examples, cross_entropy, ("squared_gradient", "curvature"))


def test_a_small_budget_changes_nothing_but_the_memory(examples, monkeypatch):
    model = net()
    expected = gather(model, NAMES, examples, cross_entropy, ("curvature",)).more["curvature"]
    monkeypatch.setattr(pullbacks, "BUDGET_BYTES", 3000)
    found = gather(model, NAMES, examples, cross_entropy, ("curvature",)).more["curvature"]
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name])


def test_many_outputs_are_drawn_from_and_the_draws_are_right_on_average(examples_of, monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6)).double()
    examples = examples_of(torch.randn(40, 3, dtype=torch.float64), torch.arange(40) % 6)
    exact = gather(model, ["0.weight"], examples, cross_entropy, ("curvature",)).more["curvature"]["0.weight"]
    monkeypatch.setattr(pullbacks, "EXACT_OUTPUTS", 2)
    monkeypatch.setattr(pullbacks, "N_DRAWS", 200)
    drawn = gather(model, ["0.weight"], examples, cross_entropy, ("curvature",)).more["curvature"]["0.weight"]
    torch.testing.assert_close(drawn, exact, rtol=0.1, atol=0)


def test_far_too_many_outputs_are_refused(examples_of):
    examples = examples_of(torch.randn(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ModelError, match="at most 1024 outputs for each example: got 1025; use fisher_empirical"):
        gather(nn.Sequential(nn.Linear(3, 1025)), ["0.weight"], examples, cross_entropy, ("curvature",))


def test_the_model_is_left_as_it_was(examples):
    model = net().train()
    before = copy.deepcopy(model.state_dict())
    gather(model, NAMES, examples, cross_entropy, ("curvature", "squared_gradient", "hessian_gradient", "flow"))
    assert model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("budget", [1, 700, 3000, 10_000, 10**9])
def test_what_goes_through_at_once_stays_within_the_budget_and_the_batch(examples, monkeypatch, budget):
    """Or is one gradient: memory is that of the budget, and activations are those of a plain pass over the batch."""
    model, together, columns_at_once = net(), [], []
    size = sum(model.get_parameter(name).nbytes for name in NAMES)
    pull, mapped = pullbacks.Pullbacks._pull_together, pullbacks.vmap

    def noted(self, inputs, columns):
        together.append(tuple(columns.shape[:2]))
        return pull(self, inputs, columns)

    def noted_map(function, **options):
        columns_at_once.extend(options.values())
        return mapped(function, **options)

    monkeypatch.setattr(pullbacks, "BUDGET_BYTES", budget)
    monkeypatch.setattr(pullbacks.Pullbacks, "_pull_together", noted)
    monkeypatch.setattr(pullbacks, "vmap", noted_map)
    gather(model, NAMES, examples, cross_entropy, ("curvature",), batch_size=7)
    assert sum(n for n, _ in together) == len(examples)
    for (n, n_columns), chunk in zip(together, columns_at_once, strict=True):
        assert n == 1 or (n * n_columns <= 7 and n * n_columns * size <= budget)
        assert chunk == 1 or n * chunk * size <= budget
        assert (n + 1) * n_columns > 7 or n == 7 or (n + 1) * n_columns * size > budget, "no fewer than fit"
        assert chunk >= n_columns or (chunk + 1) * n * size > budget, "no fewer than fit"
