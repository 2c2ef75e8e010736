from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunus.recover import Moments, adjust, compensate, layers_in_order, obs_update, split_off
from prunus.recover.refit.fit_layers import fit_weights
from prunus.recover.refit.sequential import Pair
from recover_stand_ins import TensorExamples, make_examples


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
    options = {"kept": kept, "batch_size": 32, "damping": 0.0, "held_out": examples}
    assert adjust(small, model, examples, ["least_squares"], **options).notes == ()
    with torch.no_grad():
        hidden, wanted = small[:2](examples.inputs), model[:3](examples.inputs)
        best = torch.linalg.lstsq(torch.cat([hidden, torch.ones(90, 1)], dim=1), wanted).solution
    # Units that are never active have no weight of their own: compare what the layer gives.
    assert torch.allclose(small[:3](examples.inputs), torch.cat([hidden, torch.ones(90, 1)], dim=1) @ best, atol=2e-3)
    assert torch.allclose(small[0].weight, model[0].weight[kept["0"]], atol=1e-5)


def test_a_layer_that_is_frozen_while_others_are_not_stays_as_it_is_and_is_named():
    model, examples = net(), make_examples(n=90)
    for frozen, moves in (("", True), ("2", False), ("all", True)):
        small, kept = cut(model)
        small.requires_grad_(frozen != "all")
        small[2].requires_grad_(frozen == "")
        before = {name: value.clone() for name, value in small[2].named_parameters()}
        found = adjust(small, model, examples, ["least_squares", "bias"], kept=kept, held_out=examples)
        now = dict(small[2].named_parameters())
        assert moves is not all(torch.equal(value, now[name]) for name, value in before.items())
        assert any("frozen" in note for note in found.notes) is (frozen == "2")


def test_bias_correction_gives_every_output_its_old_mean():
    model, examples = net(), make_examples(n=90)
    small, kept = cut(model)
    before = small[2].weight.detach().clone()
    adjust(small, model, examples, ["bias"], kept=kept, held_out=examples)
    assert torch.equal(small[2].weight, before)
    with torch.no_grad():
        for depth in (3, 6):
            assert torch.allclose(
                small[:depth](examples.inputs).mean(0), model[:depth](examples.inputs).mean(0), atol=1e-5
            )


def test_batch_norm_comes_last_and_gives_its_outputs_their_old_mean_and_spread():
    model, examples = net(), make_examples(n=90)
    with torch.no_grad():  # not what these examples show, as after a training with other data
        model[3].running_mean.uniform_(-1, 1)
        model[3].running_var.uniform_(0.1, 3)
    small, kept = cut(model)
    adjust(small, model, examples, ["batch_norm", "bias"], kept=kept, held_out=examples)
    with torch.no_grad():
        now, before = small[:4](examples.inputs), model[:4](examples.inputs)
    assert torch.allclose(now.mean(0), before.mean(0), atol=1e-5)
    assert torch.allclose(now.std(0), before.std(0), atol=1e-5)
    assert not torch.equal(small[3].running_var, model[3].running_var)


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


@pytest.mark.parametrize("kinds", [["least_squares"], ["bias"], ["batch_norm"]])
def test_a_model_that_lost_nothing_stays_as_it_is(kinds):
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    ).eval()
    examples = make_examples(n=80, features=32)
    examples.inputs = examples.inputs.view(80, 2, 4, 4)
    same = copy.deepcopy(model)
    adjusted = adjust(same, model, examples, kinds, held_out=examples)
    assert adjusted.notes == ()
    assert [check.verdict for check in adjusted.checks] == ["nothing changed"]
    for name, value in same.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_too_few_examples_and_unknown_layers_are_noted():
    model, examples = net(), make_examples(n=8)
    small, kept = cut(model)
    notes = adjust(small, model, examples, ["least_squares"], kept=kept, held_out=make_examples()).notes
    assert any("least squares needs at least 10 inputs" in note and "got 8" in note for note in notes)
    notes = adjust(small, model, make_examples(n=40), ["bias"]).notes
    assert [note for note in notes if note.startswith("0: isn't adjusted")]


class PadsInside(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias)


def pictures(n: int = 64) -> TensorExamples:
    draw = torch.Generator().manual_seed(0)
    return TensorExamples(torch.randn(n, 4, 6, 6, generator=draw) + 0.5, torch.zeros(n, dtype=torch.long))


def lost(model: nn.Module, reference: nn.Module, examples: TensorExamples) -> float:
    with torch.no_grad():
        return float((model(examples.inputs) - reference(examples.inputs)).square().mean())


@pytest.mark.parametrize("layer", [PadsInside, Standardised])
def test_a_layer_with_a_forward_of_its_own_is_named_and_only_its_bias_moves(layer):
    torch.manual_seed(0)
    model, examples = nn.Sequential(layer(4, 5, 3)).eval(), pictures()
    small = copy.deepcopy(model)
    with torch.no_grad():
        small[0].weight[:, 0] = 0
    before, error = copy.deepcopy(small), lost(small, model, examples)
    adjusted = adjust(small, model, examples, ["least_squares", "bias"])
    assert (
        f"it doesn't just multiply with its weight ({layer.__name__} has a forward" in adjusted.checks[0].left_out["0"]
    )
    assert torch.equal(small[0].weight, before[0].weight)
    assert adjusted.checks[1].fitted == ("0",)
    assert lost(small, model, examples) < error


def test_a_layer_with_a_forward_of_its_own_is_not_made_good_as_if_it_were_plain():
    model = nn.Sequential(PadsInside(4, 5, 3), nn.Conv2d(5, 2, 3)).eval()
    masks = {name: torch.rand(p.shape) < 0.6 for name, p in model.named_parameters() if p.dim() > 1}
    weight = model[0].weight.detach().clone()
    assert compensate(model, masks, pictures(), obs_update) == ["0.weight"]
    assert torch.equal(model[0].weight, weight)


def test_the_weight_behind_a_weight_norm_is_fitted_as_a_plain_one_is():
    torch.manual_seed(0)
    examples = make_examples(n=200, features=8)
    examples.inputs = examples.inputs @ torch.randn(8, 8) + 3
    plain = nn.Sequential(nn.Linear(8, 4)).eval()
    normed = copy.deepcopy(plain)
    nn.utils.parametrizations.weight_norm(normed[0])
    left = []
    for model in (plain, normed):
        small = copy.deepcopy(model)
        with torch.no_grad():
            (small[0].weight if model is plain else small[0].parametrizations.weight.original1)[:, :3] = 0
        assert adjust(small, model, examples, ["least_squares"], damping=0.0).checks[0].verdict == "kept"
        left.append(small[0].weight)
        again = copy.deepcopy(model)
        adjust(again, model, examples, ["least_squares", "bias"])
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert torch.allclose(*left, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_a_weight_that_cannot_be_written_is_named_and_its_bias_stays_with_it(wrap):
    torch.manual_seed(0)
    examples = make_examples(n=80)
    model, small = nn.Sequential(nn.Linear(4, 4)).eval(), nn.Sequential(wrap(nn.Linear(4, 4))).eval()
    before = {key: value.clone() for key, value in small.state_dict().items()}
    (check,) = adjust(small, model, examples, ["least_squares"]).checks
    assert "its weight" in check.left_out["0"]
    assert all(torch.equal(small.state_dict()[key], value) for key, value in before.items())


def test_one_weight_in_two_layers_is_fitted_for_neither():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    model[2].weight = model[0].weight
    small = copy.deepcopy(model)
    with torch.no_grad():
        small[0].weight[:, 0] = 0
    (check,) = adjust(small, model, make_examples(), ["least_squares"]).checks
    assert check.left_out == {"0": "2 has the same weight", "2": "0 has the same weight"}


def test_biases_need_no_second_moments_and_least_squares_says_what_its_inputs_would_take(monkeypatch):
    model, examples = net(), make_examples(n=90)
    small, kept = cut(model)
    monkeypatch.setattr(Moments, "of", lambda layer: pytest.fail("second moments"))
    (check,) = adjust(copy.deepcopy(small), model, examples, ["least_squares"], kept=kept, memory_bytes=600).checks
    assert check.left_out["2"].startswith("its inputs take more than the 5.59e-07 GiB allowed, and so would their")
    assert adjust(small, model, examples, ["bias"], kept=kept).checks[0].verdict == "kept"


WIDE = {
    "linear": lambda: (nn.Linear(6, 4), (3, 5, 6)),
    "convolution": lambda: (nn.Conv2d(3, 4, 3, padding=1, stride=2), (2, 3, 7, 7)),
    "reflected, dilated, in groups": lambda: (
        nn.Conv2d(4, 6, 2, padding=2, dilation=2, groups=2, padding_mode="reflect", bias=False),
        (2, 4, 6, 6),
    ),
    "along a line": lambda: (nn.Conv1d(4, 3, 3), (4, 4, 9)),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", WIDE)
def test_a_fit_without_second_moments_is_the_fit_with_them(name, masked, monkeypatch):
    torch.manual_seed(0)
    layer, shape = WIDE[name]()
    calls, scale = [], torch.linspace(0.1, 5, shape[1 if isinstance(layer, nn.Conv2d) else -1])
    for _ in range(4):
        inputs = torch.randn(shape) * (scale.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) else scale) + 0.5
        outputs = layer(inputs).detach()
        calls.append(Pair(inputs, outputs, inputs, outputs + torch.randn_like(outputs) + 0.3 * inputs.mean()))
    mask = torch.rand(layer.weight.shape) < 0.6 if masked else None
    other = copy.deepcopy(layer)
    assert fit_weights(layer, calls, mask, damping=0.01) is None
    with monkeypatch.context() as patch:
        patch.setattr(Moments, "of", lambda layer: pytest.fail("second moments"))
        patch.setattr("prunus.recover.refit.fit_layers.moment_bytes", lambda layer: 1 << 40)
        assert fit_weights(other, iter(calls), mask, damping=0.01, memory_bytes=1 << 20) is None
    assert torch.allclose(layer.weight, other.weight, atol=2e-3)
    if layer.bias is not None:
        assert torch.allclose(layer.bias, other.bias, atol=2e-3)
    if mask is not None:
        torch.manual_seed(0)
        assert torch.equal(other.weight[~mask], WIDE[name]()[0].weight[~mask])


def test_what_works_in_place_behind_a_layer_does_not_change_its_fit():
    found = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace), nn.Linear(8, 3)).eval()
        small = copy.deepcopy(model)
        with torch.no_grad():
            small[0].weight[:, 0] = 0
        adjust(small, model, make_examples(), ["least_squares"])
        found.append(small[0].bias)
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", ["least_squares", "bias", "batch_norm"])
def test_what_makes_held_out_examples_worse_is_taken_back_bit_for_bit(kind):
    """The cut's loss has the other sign on what is held out, so every fit goes the wrong way."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()
    small = copy.deepcopy(model)
    with torch.no_grad():
        small[0].weight[:, 0] = 0
    fitted, held_out = make_examples(n=60), make_examples(n=60)
    fitted.inputs[:, 0] += 5
    held_out.inputs[:, 0] -= 5
    before = copy.deepcopy(small.state_dict())
    masks = {"0.weight": small[0].weight != 0}
    adjusted = adjust(small, model, fitted, [kind], held_out=held_out, masks=masks)
    assert all(torch.equal(small.state_dict()[key], value) for key, value in before.items())
    if kind == "batch_norm":
        (check,) = adjusted.checks
        assert (check.verdict, check.fitted) == ("taken back", ("1",))
        assert check.after > check.before
        assert adjusted.notes[0].startswith("batch_norm is taken back: on examples that are held out")
    else:
        assert adjusted.checks[0].returned[0] == "0"


def test_every_fourth_example_is_held_out_and_too_few_adjust_nothing():
    model, examples = net(), make_examples(n=90)
    small, kept = cut(model)
    adjusted = adjust(small, model, examples, ["bias"], kept=kept)
    assert (adjusted.n_fitted, adjusted.n_held_out) == (68, 22)
    fit, held_out = split_off(examples)
    assert torch.cat([b.index for b in fit.batches(32)]).tolist() == [i for i in range(90) if i % 4 != 3]
    assert torch.cat([b.index for b in held_out.batches(32)]).tolist() == list(range(3, 90, 4))
    adjusted = adjust(small, model, make_examples(n=7), ["bias"], kept=kept)
    assert adjusted.checks == ()
    assert "with 7 calibration examples none can be held out" in adjusted.notes[0]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)

    def forward(self, x):
        return x + self.norm(self.inner(x))


def test_after_a_block_has_left_layers_are_compared_with_what_they_were_under_their_old_names():
    torch.manual_seed(0)
    model, examples = nn.Sequential(*(Residual() for _ in range(4)), nn.Linear(4, 3)).eval(), make_examples(n=80)
    small = nn.Sequential(*(copy.deepcopy(model[place]) for place in (0, 2, 3, 4)))
    small.kept_entries = (0, 2, 3, 4)
    error = lost(small, model, examples)
    first, second = adjust(small, model, examples, ["least_squares", "batch_norm"]).checks
    assert first.fitted == ("1.inner", "2.inner", "3")  # what comes before the block has lost nothing
    assert not (first.left_out)
    assert not (second.left_out)
    assert lost(small, model, examples) < 0.3 * error


class OwnGRU(nn.GRU):
    """Nobody knows what it computes."""


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.unused, self.out = OwnGRU(4, 5, batch_first=True), nn.Linear(2, 2), nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.rnn(x.unsqueeze(1))[0].squeeze(1))


def test_layers_of_other_kinds_are_named():
    model = Recurrent().eval()
    (check,) = adjust(copy.deepcopy(model), model, make_examples(), ["least_squares"]).checks
    assert check.left_out == {"rnn": "a OwnGRU has a forward of its own", "unused": "it isn't called by itself"}


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
