"""Is influence the inner product of gradients, and does it foresee what a training without the example does?"""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

from prunus.core.errors import DataError, RecipeError
from prunus.score import influence
from prunus.score.influence import directions
from prunus.tasks import Classification

THREE = Classification(("a", "b", "c"))


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def drawn(examples_of, n, seed, shape=(4,)):
    draw = torch.Generator().manual_seed(seed)
    return examples_of(torch.randn(n, *shape, generator=draw), torch.randint(0, 3, (n,), generator=draw))


@pytest.mark.parametrize(("layers", "prefixes"), [(None, ("",)), (1, ("4.",)), (2, ("2.", "4.")), (3, ("",))])
def test_it_is_the_inner_product_of_gradients(layers, prefixes, examples_of, gradients_of):
    model = mlp()
    training, target = drawn(examples_of, 31, 1), drawn(examples_of, 7, 2)
    names = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    own, wanted = (gradients_of(model, part, THREE, names).double() for part in (training, target))
    mean = wanted.mean(dim=0)
    found = influence(model, training, target, THREE, kind="gradient", layers=layers, batch_size=8)
    np.testing.assert_allclose(found.value, (own @ mean).numpy(), rtol=1e-3, atol=1e-6)
    found = influence(model, training, target, THREE, kind="cosine", layers=layers, batch_size=8)
    expected = own @ mean / own.norm(dim=1) / mean.norm()
    np.testing.assert_allclose(found.value, expected.numpy(), rtol=1e-3, atol=1e-6)
    assert found.layers == (() if layers is None else ("0", "2", "4")[-layers:])


class Images(nn.Module):
    """Convolutions with groups and circular padding, whose gradients have no short form but the one used here."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2, padding_mode="circular")
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(torch.relu_(self.second(torch.relu_(self.first(x)))).mean(dim=(2, 3)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.last = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.recurrent(x)[0][:, -1])


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize(("kind", "shape"), [(Images, (2, 6, 6)), (Recurrent, (5, 4))])
def test_any_model_has_influence(kind, shape, layers, examples_of, gradients_of):
    torch.manual_seed(0)
    model = kind()
    training, target = drawn(examples_of, 12, 1, shape), drawn(examples_of, 5, 2, shape)
    names = None if layers is None else ["last.weight", "last.bias"]
    own, wanted = (gradients_of(model, part, THREE, names).double() for part in (training, target))
    for of_kind in ("gradient", "cosine"):
        found = influence(model, training, target, THREE, kind=of_kind, layers=layers)
        expected = own @ wanted.mean(dim=0)
        if of_kind == "cosine":
            expected /= own.norm(dim=1) * wanted.mean(dim=0).norm()
        np.testing.assert_allclose(found.value, expected.numpy(), rtol=1e-3, atol=1e-6)


def test_without_a_derivative_in_forward_mode_it_is_the_same(examples_of, monkeypatch):
    model, training, target = mlp(), drawn(examples_of, 20, 1), drawn(examples_of, 5, 2)
    model, (training, target) = model.double(), (examples_of(e.inputs.double(), e.targets) for e in (training, target))

    def both():
        kinds = ("gradient", "leave_out")
        return [influence(model, training, target, THREE, kind=k, layers=None, tolerance=1e-8).value for k in kinds]

    plain = both()

    def refuse(*given):
        raise NotImplementedError("no derivative in forward mode")

    monkeypatch.setattr(directions.forward, "make_dual", refuse)
    for one, two in zip(plain, both(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9)


def fitted(inputs, targets, penalty):
    """Return the one logistic regression that minimises the mean loss and a penalty, by Newton's method in double precision."""
    model = nn.Linear(inputs.shape[1], 3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss = loss + penalty / 2 * sum(parameter.square().sum() for parameter in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def test_it_foresees_what_leaving_an_example_out_does_to_a_convex_model(examples_of):
    """Each of 60 examples is really left out, and the model trained anew."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    inputs = torch.randn(200, 4, generator=draw, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(torch.rand(200, 3, generator=draw, dtype=torch.float64)))
    targets = (inputs @ truth + gumbel).argmax(dim=1)
    training, target = examples_of(inputs[:160], targets[:160]), examples_of(inputs[160:], targets[160:])

    def loss(model):
        with torch.no_grad():
            return float(functional.cross_entropy(model(target.inputs), target.targets))

    model = fitted(training.inputs, training.targets, 1e-4)
    found = influence(model, training, target, THREE, layers=1, damping=1e-3, tolerance=1e-4)
    rise = np.array(
        [
            loss(fitted(*(torch.cat([part[:i], part[i + 1 :]]) for part in (training.inputs, training.targets)), 1e-4))
            for i in range(60)
        ]
    ) - loss(model)
    assert np.corrcoef(found.value[:60], rise)[0, 1] > 0.99
    assert spearmanr(found.value[:60], rise).statistic > 0.99
    np.testing.assert_allclose(found.value[:60].std(), rise.std(), rtol=0.1)
    clear = np.abs(rise) > 0.2 * rise.std()
    assert (np.sign(found.value[:60]) == np.sign(rise))[clear].all()
    assert found.residual <= 1e-4


def test_the_curvature_is_the_gauss_newton_matrix(examples_of):
    model = mlp().double()
    examples = drawn(examples_of, 9, 3)
    examples = examples_of(examples.inputs.double(), examples.targets)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    (batch,) = examples.batches(9)
    jacobian = torch.func.jacrev(lambda w: torch.func.functional_call(model, w, (batch.inputs,)))(weights)
    rows = torch.cat([value.flatten(2) for value in jacobian.values()], dim=2)
    p = model(batch.inputs).softmax(dim=1).detach()
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    dense = torch.einsum("nip,nij,njq->pq", rows, hessian, rows)
    direction = {name: torch.randn_like(value) for name, value in weights.items()}
    flat = torch.cat([value.flatten() for value in direction.values()])
    found = directions._curved(model, direction, weights, batch, THREE)
    np.testing.assert_allclose(torch.cat([found[name].flatten() for name in weights]), dense @ flat, rtol=1e-9)

    gradient = directions.mean_gradient(model, weights, [batch], THREE)
    solved = directions.solve_curvature(model, gradient, weights, [batch], THREE, damping=0.1, tolerance=1e-9, seed=0)
    matrix = dense / 9 + solved.damping * torch.eye(len(flat))
    exact = torch.linalg.solve(matrix, torch.cat([gradient[name].flatten() for name in weights]))
    np.testing.assert_allclose(
        torch.cat([solved.direction[name].flatten() for name in weights]), exact, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(solved.damping, 0.1 * float(dense.diagonal().mean()) / 9, rtol=0.5)


class Told(nn.Module):
    """An answer that is no single tensor."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return {"logits": self.inner(x), "more": x}


def test_of_answers_that_are_structures_the_curvature_is_that_of_the_gradients(examples_of, gradients_of):
    model, examples = Told(), drawn(examples_of, 9, 3)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    (batch,) = examples.batches(9)
    own = gradients_of(model, examples, THREE)
    direction = {name: torch.randn_like(value) for name, value in weights.items()}
    flat = torch.cat([value.flatten() for value in direction.values()])
    found = directions._curved(model, direction, weights, batch, THREE)
    found = torch.cat([found[name].flatten() for name in weights])
    np.testing.assert_allclose(found, own.T @ (own @ flat), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["leave_out", "gradient", "cosine"])
def test_wrong_labels_harm_a_clean_target(kind, examples_of):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(2300, 4, generator=draw)
    targets = (inputs @ torch.randn(4, 3, generator=draw)).argmax(dim=1)
    wrong = torch.rand(2000, generator=draw) < 0.1
    given = torch.where(wrong, (targets[:2000] + 1) % 3, targets[:2000])
    training, target = examples_of(inputs[:2000], given), examples_of(inputs[2000:], targets[2000:])
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(10):
        for batch in training.batches(100, draw):
            optimizer.zero_grad()
            functional.cross_entropy(model(batch.inputs), batch.targets).backward()
            optimizer.step()
    found = influence(model, training, target, THREE, kind=kind, sample_size=500)
    harmed, helped = found.value[wrong.numpy()], found.value[~wrong.numpy()]
    assert (harmed[:, None] < helped).mean() > 0.8


def test_checkpoints_give_a_standard_error_and_tracins_sum(examples_of):
    training, target = drawn(examples_of, 20, 1), drawn(examples_of, 5, 2)
    models, rates = [mlp(seed) for seed in range(3)], [0.1, 0.2, 0.05]
    each = np.stack(
        [
            rate * influence(model, training, target, THREE, kind="gradient").value
            for model, rate in zip(models, rates, strict=True)
        ]
    )
    found = influence(models, training, target, THREE, kind="gradient", learning_rates=rates)
    np.testing.assert_allclose(found.value * 3, each.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.error, each.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-9)
    with pytest.raises(RecipeError, match="got 2 weights and more checkpoints"):
        influence(models, training, target, THREE, kind="gradient", learning_rates=rates[:2])
    with pytest.raises(RecipeError, match="got 3 weights and 2 checkpoints"):
        influence(models[:2], training, target, THREE, kind="gradient", learning_rates=rates)


def test_the_same_seed_gives_the_same_bytes(examples_of):
    model, training, target = mlp(), drawn(examples_of, 300, 1), drawn(examples_of, 5, 2)
    first, second = (influence(model, training, target, THREE, sample_size=64, seed=5) for _ in range(2))
    assert first.value.tobytes() == second.value.tobytes()
    assert first.residual == second.residual


def test_what_cannot_be_asked_is_refused(examples_of):
    training, target = drawn(examples_of, 20, 1), drawn(examples_of, 0, 2)
    with pytest.raises(RecipeError, match="expected the kind leave_out, gradient or cosine: got 'loo'"):
        influence(mlp(), training, training, THREE, kind="loo")
    with pytest.raises(RecipeError, match="tolerance between 0 and 1"):
        influence(mlp(), training, training, THREE, tolerance=0)
    with pytest.raises(DataError, match="influence needs target examples: got none"):
        influence(mlp(), training, target, THREE)
    with pytest.raises(DataError, match="influence needs training examples: got none"):
        influence(mlp(), target, training, THREE)
