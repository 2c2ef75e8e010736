from __future__ import annotations

import copy
import importlib.util
import re
import sys
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from prunus.core.errors import MissingExtraError, ModelError, RecipeError, RunError
from prunus.core.recipes.recipe import Lora, Train
from prunus.recover import adapters, check_lora, train
from prunus.recover.lora import adaptable_layers
from recover_stand_ins import make_examples


class Adapted(nn.Module):
    """What peft puts in the place of a linear layer, as far as prunus touches it."""

    active_adapters = ("default",)

    def __init__(self, base: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.base_layer, self.scale, self.merged = base, scale, False
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def get_base_layer(self) -> nn.Module:
        return self.base_layer

    def get_delta_weight(self, name: str) -> Tensor:
        return self.scale * self.lora_B.weight @ self.lora_A.weight

    def merge(self) -> None:
        self.base_layer.weight.data += self.get_delta_weight("default")
        self.merged = True

    def forward(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        return y if self.merged else y + self.scale * self.lora_B(self.lora_A(x))


def fake_peft() -> ModuleType:
    module = ModuleType("peft")

    def inject(config, model):
        model.requires_grad_(False)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear) and re.fullmatch(config.target_modules, name):
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, Adapted(layer, config.r, config.lora_alpha / config.r))
        return model

    module.LoraConfig = lambda **options: SimpleNamespace(**options)
    module.inject_adapter_in_model = inject
    return module


@pytest.fixture(params=["fake", "real"])
def peft(request, monkeypatch):
    if request.param == "fake":
        monkeypatch.setitem(sys.modules, "peft", fake_peft())
    elif importlib.util.find_spec("peft") is None:
        pytest.skip("peft isn't installed")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip("peft")
    return sys.modules["peft"]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3)
    )
    model[1].bias.requires_grad_(False)
    return model


def masks() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {"0.weight": torch.rand(8, 4, generator=draw) > 0.5, "4.weight": torch.rand(3, 8, generator=draw) > 0.7}


def masked() -> nn.Sequential:
    model = network()
    with torch.no_grad():
        for name, keep in masks().items():
            model.get_parameter(name).mul_(keep)
    return model


CONFIG = Train(epochs=10, batch_size=16, learning_rate=0.02)


def test_adapters_learn_and_leave_the_structure_and_the_zeros(peft):
    model, before = masked(), masked()
    with adapters(model, Lora(rank=2), masks(), seed=0, stage="fit"):
        learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert learning
        assert all("lora_" in name for name in learning)
        history = train(model, make_examples(n=100), CONFIG, seed=0, stage="fit")
        trained = model(make_examples().inputs)
    assert history.loss[-1] < 0.8 * history.loss[0]
    assert str(model) == str(before)
    assert list(model.state_dict()) == list(before.state_dict())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == {
        n: p.requires_grad for n, p in before.named_parameters()
    }
    assert not any(module._forward_hooks for module in model.modules())
    for name, keep in masks().items():
        assert torch.count_nonzero(model.get_parameter(name)[~keep]) == 0
        assert not torch.equal(model.get_parameter(name), before.get_parameter(name))
    assert torch.equal(model[1].weight, before[1].weight)
    assert torch.allclose(model(make_examples().inputs), trained, atol=1e-5), "the merged model isn't the trained one"


def test_the_change_of_an_unmasked_layer_has_the_asked_rank(peft):
    model, before = network(), network()
    with adapters(model, Lora(rank=2, modules=("3.*",)), {}, seed=0, stage="fit"):
        train(model, make_examples(n=100), CONFIG, seed=0, stage="fit")
    change = (model[3][0].weight - before[3][0].weight).detach()
    assert int(torch.linalg.matrix_rank(change, atol=1e-5)) == 2
    assert torch.equal(model[0].weight, before[0].weight)


def test_adapters_are_drawn_from_the_seed_and_resume_bit_for_bit(peft, tmp_path):
    class Killed(Exception):
        pass

    def kill(event):
        if event.done == 4:
            raise Killed

    def run(file, listener):
        model = masked()
        with adapters(model, Lora(rank=2), masks(), seed=3, stage="fit"):
            options = {"seed": 3, "stage": "fit", "checkpoint": file, "checkpoint_every_s": 0}
            train(model, make_examples(), CONFIG, listener=listener, **options)
        return model

    torch.manual_seed(1)
    whole = run(tmp_path / "a", lambda event: None)
    torch.manual_seed(2)
    with pytest.raises(Killed):
        run(tmp_path / "b", kill)
    resumed = run(tmp_path / "b", lambda event: None)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_divergence_leaves_a_plain_model_and_a_resume_goes_on(peft, tmp_path):
    model, options, told = masked(), {"seed": 0, "stage": "fit", "checkpoint": tmp_path / "c"}, []
    with (
        pytest.raises(RunError),
        adapters(model, Lora(rank=2), masks(), seed=0, stage="fit"),
    ):
        loss = lambda outputs, batch: outputs.sum() * float("nan")  # noqa: E731
        train(model, make_examples(), CONFIG, loss=loss, **options)
    resumed = masked()
    with adapters(resumed, Lora(rank=2), masks(), seed=0, stage="fit"):
        train(resumed, make_examples(), CONFIG, listener=told.append, **options)
    assert "diverged before" in told[0].message
    assert str(model) == str(masked())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), masked().parameters(), strict=True))


def test_real_convolutions_are_adapted_under_their_masks():
    if importlib.util.find_spec("peft") is None:
        pytest.skip("peft isn't installed")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 6, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(54, 3)
    )
    keep = {"1.weight": torch.rand(6, 1, 2, 2) > 0.5}
    with torch.no_grad():
        model[1].weight.mul_(keep["1.weight"])
    before, inputs = copy.deepcopy(model), make_examples().inputs
    with adapters(model, Lora(rank=2), keep, seed=0, stage="fit"):
        train(model, make_examples(n=100), CONFIG, seed=0, stage="fit")
        trained = model(inputs)
    assert torch.allclose(model(inputs), trained, atol=1e-5)
    assert torch.equal(model[1].weight == 0, ~keep["1.weight"])
    assert not torch.equal(model[1].weight, before[1].weight)


def test_layers_that_can_t_be_merged_alone_are_left_out():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.tied, self.other, self.free = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.other.weight = self.tied.weight
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
            self.depthwise = nn.Conv1d(8, 8, 3, groups=8)

    assert adaptable_layers(Net(), Lora()) == ["free"]
    assert adaptable_layers(network(), Lora(modules=("3.*", "0"))) == ["0", "3.0"]
    with pytest.raises(RecipeError, match=r"recovery\.lora\.modules: '7' fits no layer that can be adapted"):
        adaptable_layers(network(), Lora(modules=("7",)))
    with pytest.raises(ModelError, match="no linear or convolution layer to adapt: use fine_tune"):
        adaptable_layers(nn.Sequential(nn.LayerNorm(3)), Lora())


def test_without_peft_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"'peft', which is not installed: pip install 'prunus\[lora\]'"):
        check_lora(network(), Lora())
