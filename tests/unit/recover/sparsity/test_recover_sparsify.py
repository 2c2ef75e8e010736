from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.core.recipes.recipe import Train
from prunus.recover import ProximalGroup, ProximalL1, ProximalScale, sparsity_step, train
from prunus.recover.sparsity.sparsify import norm_scale_names
from recover_stand_ins import make_examples


def member(tensor, dim, index, is_parameter=True):
    return SimpleNamespace(tensor=tensor, dim=dim, index=torch.tensor(index), is_parameter=is_parameter)


def hidden_group(size):
    """The hidden units of Linear -> BatchNorm -> ReLU -> Linear."""
    each = [[i] for i in range(size)]
    members = [member(name, 0, each) for name in ("0.weight", "0.bias", "1.weight", "1.bias")]
    members += [member("1.running_mean", 0, each, is_parameter=False), member("3.weight", 1, each)]
    return SimpleNamespace(name="0", size=size, members=tuple(members))


def network(size=6):
    return nn.Sequential(nn.Linear(4, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Linear(size, 3))


def test_the_group_operator_scales_all_members_of_a_unit_alike():
    model, group = network(), hidden_group(6)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
        model[0].weight[0] = 0.01
        model[0].bias[0] = model[1].bias[0] = 0.0
        model[3].weight[:, 0] = 0.0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ProximalGroup(model, [group], strength=0.5).step(0.1)
    for unit in range(6):
        parts = [before["0.weight"][unit], before["0.bias"][unit : unit + 1], before["1.weight"][unit : unit + 1]]
        parts += [before["1.bias"][unit : unit + 1], before["3.weight"][:, unit]]
        vector = torch.cat(parts)
        scale = max(0.0, 1 - 0.05 * len(vector) ** 0.5 / float(vector.norm()))
        assert torch.allclose(model[0].weight[unit], before["0.weight"][unit] * scale, atol=1e-6)
        assert torch.allclose(model[3].weight[:, unit], before["3.weight"][:, unit] * scale, atol=1e-6)
    assert torch.count_nonzero(model[0].weight[0]) == 0
    assert torch.equal(model[1].running_mean, before["1.running_mean"])
    assert torch.equal(model[3].bias, before["3.bias"])


def test_units_of_several_positions_go_together():
    model = nn.Sequential(nn.Linear(2, 4, bias=False), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0], [0.1, 0], [0, 4.0], [0, 0.1]]))
    group = SimpleNamespace(name="g", size=2, members=(member("0.weight", 0, [[0, 2], [1, 3]]),))
    ProximalGroup(model, [group], strength=1.0).step(0.1)
    assert torch.allclose(model[0].weight[[0, 2]].norm(), torch.tensor(5 - 0.1 * 2.0))
    assert torch.count_nonzero(model[0].weight[[1, 3]]) == 0


def test_scales_of_norm_layers_are_found_and_only_those_of_the_groups_move():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3), nn.LayerNorm(3))
    assert norm_scale_names(model) == {"1.weight", "4.weight"}
    ProximalScale(model, [hidden_group(6)], strength=1.0).step(0.25)
    assert torch.allclose(model[1].weight, torch.full((6,), 0.75))
    assert torch.equal(model[4].weight, torch.ones(3))
    ProximalScale(model, [hidden_group(6)], strength=1.0).step(2.0)
    assert torch.count_nonzero(model[1].weight) == 0


def test_training_with_a_penalty_makes_exact_zeros_and_without_it_none():
    for strength, zeros in ((0.0, False), (2.0, True)):
        model = network()
        penalty = sparsity_step(model, kind="l1", names=["0.weight"], strength=strength)
        config = Train(epochs=5, batch_size=16, learning_rate=0.02)
        train(model, make_examples(), config, seed=0, stage="l1", on_optimizer=penalty.attach)
        assert bool((model[0].weight == 0).any()) is zeros


def test_an_attached_penalty_uses_the_optimizer_s_present_learning_rate():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ProximalL1(model, ["weight"], strength=1.0).attach(optimizer)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.9)
    optimizer.param_groups[0]["lr"] = 0.5
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.4)


def test_the_kind_and_the_groups_choose_the_penalty():
    model, group = network(), hidden_group(6)
    assert isinstance(sparsity_step(model, kind="l1", names=["0.weight"], strength=1), ProximalL1)
    assert isinstance(sparsity_step(model, kind="l1", names=["0.weight"], groups=[group], strength=1), ProximalGroup)
    assert isinstance(sparsity_step(model, kind="bn_scale", groups=[group], strength=1), ProximalScale)


def test_a_penalty_on_nothing_is_refused():
    with pytest.raises(ModelError, match="at least one weight"):
        ProximalL1(network(), [], strength=1)
    with pytest.raises(ModelError, match="at least one group"):
        ProximalGroup(network(), [], strength=1)
    with pytest.raises(ModelError, match="use the criterion l1"):
        plain = SimpleNamespace(name="0", size=6, members=(member("0.weight", 0, [[0]]),))
        ProximalScale(network(), [plain], strength=1)
    with pytest.raises(ModelError, match=r"no parameter '9.weight'"):
        ProximalL1(network(), ["9.weight"], strength=1)
