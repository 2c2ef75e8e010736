"""Built-in networks fit any input that they can take, and say what they can't."""

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError, UnknownNameError
from prunus.core.recipes.recipe import Model
from prunus.models import build, builders


def built(builder, shape=(1, 8, 8), n_outputs=10, seed=0, **args):
    return build(Model(builder=builder, args=args), input_shape=shape, n_outputs=n_outputs, seed=seed)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", list(builders))
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 33, 17), (1, 1, 1), (2, 1, 5), (28, 28)])
def test_every_builder_takes_images_of_every_size(name, shape):
    model = built(name, shape, 7)
    assert model(torch.randn(2, *shape)).shape == (2, 7)
    model.eval()
    assert model(torch.randn(1, *shape)).shape == (1, 7)


@pytest.mark.parametrize("name", list(builders))
def test_a_grey_image_with_and_without_its_channel_axis_gives_the_same(name):
    flat, full = built(name, (8, 8)).eval(), built(name, (1, 8, 8)).eval()
    images = torch.randn(3, 8, 8)
    assert torch.equal(flat(images), full(images[:, None]))


@pytest.mark.parametrize("name", list(builders))
def test_the_seed_decides_the_weights_and_the_global_state_stays(name):
    state = torch.get_rng_state()
    first, again, other = built(name, seed=1), built(name, seed=1), built(name, seed=2)
    assert torch.equal(state, torch.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", list(builders))
def test_every_parameter_learns(name):
    model = built(name)
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", list(builders))
def test_only_plain_layers_are_inside(name):
    for module in built(name).modules():
        assert type(module).__module__.startswith(("torch.nn.modules", "prunus.models.builtin"))


def test_sizes_are_what_the_arguments_say():
    assert count(built("mlp", (4,), 3, width=5, depth=2)) == (4 * 5 + 5) + (5 * 5 + 5) + (5 * 3 + 3)
    assert count(built("mlp", (4,), 3, depth=0)) == 4 * 3 + 3
    convolutions = 9 * (1 * 4 + 4 * 8)
    assert count(built("cnn", (1, 8, 8), 3, width=4, depth=2)) == convolutions + 2 * (4 + 8) + 8 * 3 + 3
    assert count(built("cnn", (1, 8, 8), 3, width=4, depth=2, pool="flatten")) == convolutions + 24 + 8 * 16 * 3 + 3
    block1 = 9 * 4 * 4 * 2 + 4 * 4
    block2 = 9 * (4 * 8 + 8 * 8) + 4 * 8 + (4 * 8 + 2 * 8)
    assert count(built("resnet", (1, 8, 8), 3, width=4, stages=2)) == (9 * 4 + 8) + block1 + block2 + 8 * 3 + 3


def test_options_put_their_layers_in():
    def kinds(model):
        return [type(module) for module in model.modules()]

    assert nn.BatchNorm1d in kinds(built("mlp", norm="batch"))
    assert nn.LayerNorm in kinds(built("mlp", norm="layer"))
    assert kinds(built("mlp", dropout=0.5, depth=3)).count(nn.Dropout) == 3
    assert kinds(built("cnn", dropout=0.5)).count(nn.Dropout) == 1
    assert len([1 for kind in kinds(built("resnet", blocks=2, stages=2)) if kind.__name__ == "Residual"]) == 4


@pytest.mark.parametrize(
    ("builder", "args", "message"),
    [
        ("mlp", {"width": 0}, "width must be a whole number of at least 1, got 0"),
        ("mlp", {"width": 2.5}, "width must be a whole number of at least 1, got 2.5"),
        ("mlp", {"depth": True}, "depth must be a whole number of at least 0, got True"),
        ("mlp", {"dropout": 1.0}, "dropout must be a share, at least 0 and below 1, got 1.0"),
        ("mlp", {"dropout": float("nan")}, "dropout must be a share"),
        ("mlp", {"norm": "bach"}, "norm must be one of none, batch, layer, got 'bach'"),
        ("mlp", {"norm": []}, "norm must be one of"),
        ("cnn", {"pool": "max"}, "pool must be one of average, flatten, got 'max'"),
        ("cnn", {"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ("cnn", {"widht": 8}, r"model\.builder cnn has no argument 'widht' \(model\.args\): did you mean 'width'"),
        ("resnet", {"blocks": "2"}, "blocks must be a whole number of at least 1, got '2'"),
    ],
)
def test_wrong_arguments_are_named(builder, args, message):
    with pytest.raises(ModelError, match=message) as caught:
        built(builder, **args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_a_table_is_no_image(name):
    with pytest.raises(ModelError, match=r"needs images, .*: got inputs of shape \(30,\); set model\.builder: mlp"):
        built(name, (30,))


def test_an_unknown_builder_is_named():
    with pytest.raises(
        UnknownNameError, match=r"unknown model\.builder 'rsnet', and no module:function: did you mean 'resnet'\?"
    ):
        built("rsnet")
