from __future__ import annotations

import copy

import pytest
import torch
from recover_stand_ins import make_examples
from torch import nn

from prunus.recover import adjust, compensate, layers_in_order, obs_update


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)
    ).eval()


def cut(model: nn.Sequential) -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    """Without units 3 and 7 of the first layer."""
    kept = torch.tensor([0, 1, 2, 4, 5, 6, 8, 9, 10, 11])
    small = copy.deepcopy(model)
    small[0], small[2] = nn.Linear(4, 10), nn.Linear(10, 6)
    with torch.no_grad():
        small[0].weight.copy_(model[0].weight[kept])
        small[0].bias.copy_(model[0].bias[kept])
        small[2].weight.copy_(model[2].weight[:, kept])
        small[2].bias.copy_(model[2].bias)
    return small, {"0": kept}


def test_least_squares_is_lstsq_of_the_old_outputs_on_the_new_inputs():
    model, examples = net(), make_examples(n=90)
    small, kept = cut(model)
    assert adjust(small, model, examples, ["least_squares"], kept=kept, batch_size=32, damping=0.0) == []
    with torch.no_grad():
        hidden, wanted = small[:2](examples.inputs), model[:3](examples.inputs)
        best = torch.linalg.lstsq(torch.cat([hidden, torch.ones(90, 1)], dim=1), wanted).solution
    # Units that are never active have no weight of their own: compare what the layer gives.
    assert torch.allclose(small[:3](examples.inputs), torch.cat([hidden, torch.ones(90, 1)], dim=1) @ best, atol=2e-3)
    assert torch.allclose(small[0].weight, model[0].weight[kept["0"]], atol=1e-5)


def test_bias_correction_gives_every_output_its_old_mean():
    model, examples = net(), make_examples(n=90)
    small, kept = cut(model)
    before = small[2].weight.detach().clone()
    adjust(small, model, examples, ["bias"], kept=kept)
    assert torch.equal(small[2].weight, before)
    with torch.no_grad():
        for depth in (3, 6):
            assert torch.allclose(
                small[:depth](examples.inputs).mean(0), model[:depth](examples.inputs).mean(0), atol=1e-5
            )


def test_batch_norm_is_measured_last():
    model, examples = net(), make_examples(n=90)
    small, kept = cut(model)
    adjust(small, model, examples, ["batch_norm", "bias"], kept=kept)
    assert torch.allclose(small[3].running_mean, small[:3](examples.inputs).mean(0), atol=1e-5)


def test_masked_weights_stay_masked_and_lose_less():
    model, examples = net(), make_examples(n=90)
    pruned = copy.deepcopy(model)
    masks = {name: torch.rand(p.shape) < 0.5 for name, p in pruned.named_parameters() if p.dim() == 2}
    with torch.no_grad():
        for name, mask in masks.items():
            pruned.get_parameter(name).mul_(mask)
        lost = (pruned(examples.inputs) - model(examples.inputs)).square().mean()
        adjust(pruned, model, examples, ["least_squares"], masks=masks)
        assert (pruned(examples.inputs) - model(examples.inputs)).square().mean() < 0.5 * lost
    for name, mask in masks.items():
        assert not pruned.get_parameter(name)[~mask].any()


@pytest.mark.parametrize("kinds", [["least_squares"], ["bias"]])
def test_a_model_that_lost_nothing_stays_as_it_is(kinds):
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    examples = make_examples(n=80, features=32)
    examples.inputs = examples.inputs.view(80, 2, 4, 4)
    same = copy.deepcopy(model)
    assert adjust(same, model, examples, kinds) == []
    for name, value in same.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_too_few_examples_and_unknown_layers_are_noted():
    model, examples = net(), make_examples(n=8)
    small, kept = cut(model)
    notes = adjust(small, model, examples, ["least_squares"], kept=kept)
    assert any("2: least squares needs at least 10 inputs" in note and "got 8" in note for note in notes)
    notes = adjust(small, model, make_examples(n=40), ["bias"])
    assert [note for note in notes if note.startswith("0: isn't adjusted")]


def test_compensation_goes_from_layer_to_layer_on_what_the_model_has_become():
    model, examples = net(), make_examples(n=60)
    whole = copy.deepcopy(model)
    masks = {name: torch.rand(p.shape) < 0.6 for name, p in model.named_parameters() if p.dim() == 2}
    assert list(layers_in_order(model, examples)) == ["0", "2", "5"]
    masks["3.weight"] = torch.ones(6, dtype=torch.bool)
    assert compensate(model, masks, examples, obs_update) == ["3.weight"]
    with torch.no_grad():
        x = model[:2](examples.inputs)
        wanted = obs_update(whole[2].weight, x.T @ x / 60, masks["2.weight"])
    assert torch.allclose(model[2].weight, wanted, atol=1e-5)
