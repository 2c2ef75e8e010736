"""A user's own builder is called with what it asks for, from the run's seed, and its mistakes come back as one line."""

import sys
import textwrap

import pytest
import torch
from torch import nn

from patience import no_hang
from prunus.core.errors import ModelError
from prunus.core.recipes.recipe import Model
from prunus.models import build

CODE = """
    import torch
    from torch import nn

    def plain():
        return nn.Linear(4, 3)

    def asks(input_shape, n_outputs, hidden=5):
        return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.Linear(hidden, n_outputs))

    def takes_anything(**rest):
        assert not rest, rest
        return nn.Linear(4, 3)

    class Net(nn.Linear):
        def __init__(self, n_outputs):
            super().__init__(4, n_outputs)

    def fails():
        raise RuntimeError("no\\nnet")

    def returns_text():
        return "net"

    def lazy():
        return nn.LazyLinear(3)
"""


@pytest.fixture(autouse=True)
def user_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_mine.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    yield
    sys.modules.pop("nets_of_mine", None)


def built(function, seed=0, **args):
    return build(Model(builder=f"nets_of_mine:{function}", args=args), input_shape=(4,), n_outputs=3, seed=seed)


@pytest.mark.parametrize("function", ["plain", "asks", "takes_anything", "Net"])
def test_a_builder_gets_what_stands_in_its_signature(function):
    assert built(function)(torch.zeros(2, 4)).shape == (2, 3)


def test_the_recipes_arguments_win():
    assert built("asks", n_outputs=9, hidden=2)[1].weight.shape == (9, 2)


def test_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    first = built("plain", seed=1)
    torch.manual_seed(6)
    assert torch.equal(first.weight, built("plain", seed=1).weight)
    assert not torch.equal(first.weight, built("plain", seed=2).weight)
    assert isinstance(first, nn.Module)


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("asks", {"hiden": 3}, r"has no argument 'hiden' \(model\.args\): did you mean 'hidden'"),
        ("plain", {"width": 3}, "has no argument 'width' .*it takes none"),
        ("fails", {}, "nets_of_mine:fails failed: RuntimeError: no net"),
        ("returns_text", {}, "must return an nn.Module, got str"),
        ("lazy", {}, "'weight' has no shape yet"),
        ("absent", {}, "has no 'absent'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_mistakes_are_named(function, args, message):
    with pytest.raises(ModelError, match=message) as caught:
        built(function, **args)
    assert "\n" not in str(caught.value)


def test_a_missing_module_is_named():
    with pytest.raises(ModelError, match="no module 'not_there'"):
        build(Model(builder="not_there:f"), input_shape=(4,), n_outputs=3, seed=0)


@pytest.mark.parametrize(
    "args",
    [{"width": 1_000_000, "depth": 3}, {"width": 10**12}, {"depth": 10**9}, {"width": int("9" * 3000)}],
)
def test_a_built_in_of_absurd_size_is_refused_before_it_is_allocated(args):
    with no_hang(), pytest.raises(ModelError, match=r"GB of memory here|must be at most 1000|failed: ") as caught:
        build(Model(builder="mlp", args=args), input_shape=(4,), n_outputs=3, seed=0)
    assert len(str(caught.value)) < 700
    with pytest.raises(ModelError, match=r"^model\.builder cnn failed: .*; correct it there$"):
        build(Model(builder="cnn", args={"depth": 60}), input_shape=(1, 8, 8), n_outputs=3, seed=0)
