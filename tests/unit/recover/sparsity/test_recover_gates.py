"""Gates close, their gradients are exact, and what training leaves is the gated model."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.core.recipes.recipe import Train
from prunus.recover import HardConcrete, sparsity_step, train
from prunus.recover.sparsity.gates import HIGH, LOW, TEMPERATURE
from recover_stand_ins import make_examples


def member(tensor, dim, index, is_parameter=True):
    return SimpleNamespace(tensor=tensor, dim=dim, index=torch.tensor(index), is_parameter=is_parameter)


def network(size=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, size), nn.ReLU(), nn.Linear(size, 3))


def hidden(size=6):
    each = [[i] for i in range(size)]
    members = (member("0.weight", 0, each), member("0.bias", 0, each), member("2.weight", 1, each))
    return SimpleNamespace(name="0", size=size, members=members)


def test_a_step_s_gradients_are_those_of_the_gated_network():
    """Autograd through an explicit gate says what the hooks must have handed on."""
    model = network()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    penalty = HardConcrete(model, [], [hidden()], strength=0.5)
    x, own = torch.randn(8, 4), {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.register_step_post_hook(lambda *_: own.update({n: p.grad.clone() for n, p in model.named_parameters()}))
    penalty.attach(optimizer)
    noisy = penalty._noisy.detach().clone()
    penalty.step = lambda rate: own.update({"gates": penalty.log_alpha.grad.clone()})
    model(x).square().mean().backward()
    optimizer.step()

    log_alpha = torch.full((6,), 2.0, requires_grad=True)
    share = (noisy - LOW) / (HIGH - LOW)
    noise = torch.logit(share) * TEMPERATURE - 2.0  # where the gate is clipped the slope is zero
    soft = torch.sigmoid((noise + log_alpha) / TEMPERATURE) * (HIGH - LOW) + LOW
    inside = (noisy > 0) & (noisy < 1)
    z = torch.where(inside, soft, noisy)
    leaves = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    gated = {**leaves, "2.weight": leaves["2.weight"] * z}
    torch.func.functional_call(model, gated, (x,)).square().mean().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(own[name], leaf.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(own["gates"], log_alpha.grad, rtol=1e-3, atol=1e-6)
    assert inside.any()


def test_the_penalty_is_the_probability_that_a_gate_is_open():
    penalty = HardConcrete(network(), [], [hidden()], strength=1.0, seed=3)
    with torch.no_grad():
        penalty.log_alpha.copy_(torch.tensor([-4.0, -2.0, -1.0, 0.0, 1.0, 3.0]))
    expected = penalty.expected_open.detach()
    counts = torch.zeros(6)
    for _ in range(2000):
        penalty._gate()
        counts += penalty._noisy > 0
        penalty._restore()
    torch.testing.assert_close(counts / 2000, expected, atol=0.05, rtol=0)


def test_units_close_in_all_members_and_more_of_them_with_a_stronger_penalty():
    closed = []
    for strength in (0.0, 0.3):
        model = network()
        penalty = sparsity_step(model, kind="l0", groups=[hidden()], strength=strength)
        config = Train(epochs=20, batch_size=16, learning_rate=0.02)
        train(model, make_examples(), config, seed=0, stage="l0", on_optimizer=penalty.attach)
        penalty.finish()
        shut = penalty.gates == 0
        assert torch.equal(model[2].weight.abs().sum(0) == 0, shut)
        assert torch.equal(model[0].weight.abs().sum(1) == 0, shut)
        assert (model[0].bias[shut] == 0).all()
        closed.append(int(shut.sum()))
    assert closed[0] == 0
    assert closed[1] > 0


def test_single_weights_close_too_and_the_same_seed_closes_the_same():
    left = []
    for _ in range(2):
        model = network()
        penalty = sparsity_step(model, kind="l0", names=["0.weight"], strength=0.1, seed=7)
        config = Train(epochs=20, batch_size=16, learning_rate=0.02)
        train(model, make_examples(), config, seed=0, stage="l0", on_optimizer=penalty.attach)
        penalty.finish()
        left.append(model[0].weight.detach())
    assert (left[0] == 0).any()
    assert (left[0] != 0).any()
    assert torch.equal(*left)


def test_a_penalty_on_nothing_is_refused():
    with pytest.raises(ModelError, match="at least one gate"):
        HardConcrete(network(), [], [], strength=1)
