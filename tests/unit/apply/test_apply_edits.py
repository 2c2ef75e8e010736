from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from prunus.apply.edits import Edits, diff, materialize, rebuild
from prunus.apply.repair import SelectInputs
from prunus.core.errors import BundleError


class Net(nn.Module):
    """A pruned size in every place where one can hide."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.sizes = [width, 3]
        self.scale = width**-0.5
        self.hook_free = object()
        self.first = nn.Linear(4, width)
        self.norm = nn.LayerNorm(width)
        self.middle = nn.Linear(width, width, bias=False)
        self.twin = nn.Linear(width, width, bias=False)
        self.twin.weight = self.middle.weight
        self.last = nn.Linear(width, 3)
        self.register_buffer("offset", torch.zeros(width))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        x = self.norm(self.first(x).view(-1, self.width)) * self.scale + self.offset
        return self.last(self.twin(self.middle(x)).relu())


def narrowed(dense: Net, width: int) -> Net:
    """The oracle: what shrinking by hand gives. The attention-like scale keeps its value, as shrink does."""
    net = Net(width)
    net.scale = dense.scale
    net.hook_free = dense.hook_free
    return net


def through_json(edits: Edits) -> Edits:
    return Edits.from_dict(json.loads(json.dumps(edits.to_dict())))


def test_a_rebuilt_model_takes_the_pruned_weights_and_gives_the_same_outputs():
    dense = Net()
    pruned = narrowed(dense, 5)
    edits = through_json(diff(dense, pruned))
    model = rebuild(dense, edits)
    model.load_state_dict(pruned.state_dict(), strict=True)
    inputs = torch.randn(7, 4)
    assert torch.equal(model.eval()(inputs), pruned.eval()(inputs))
    assert model.norm.normalized_shape == (5,)
    assert isinstance(model.norm.normalized_shape, tuple)
    assert (model.width, model.sizes, model.scale) == (5, [5, 3], dense.scale)
    assert model.first.out_features == 5


def test_the_edits_hold_what_changed_and_nothing_else():
    dense = Net()
    edits = diff(dense, narrowed(dense, 5))
    assert edits.attributes == {
        "": {"sizes": [5, 3], "width": 5},
        "first": {"out_features": 5},
        "norm": {"normalized_shape": (5,)},
        "middle": {"in_features": 5, "out_features": 5},
        "twin": {"in_features": 5, "out_features": 5},
        "last": {"in_features": 5},
    }
    assert edits.shapes["middle.weight"] == (5, 5)
    assert "twin.weight" not in edits.shapes
    assert "count" not in edits.shapes
    assert diff(dense, copy.deepcopy(Net())) == Edits()


def test_tied_parameters_stay_tied_and_the_dense_model_is_not_touched():
    dense = Net()
    before = copy.deepcopy(dense.state_dict())
    model = rebuild(dense, diff(dense, narrowed(dense, 5)))
    assert model.twin.weight is model.middle.weight
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())


def test_types_and_requires_grad_are_kept():
    dense = Net().double()
    dense.first.weight.requires_grad_(False)
    pruned = narrowed(dense, 5).double()
    model = rebuild(dense, diff(dense, pruned))
    assert model.first.weight.dtype == torch.float64
    assert model.count.dtype == torch.int64
    assert not model.first.weight.requires_grad
    assert isinstance(model.last.weight, nn.Parameter)


def test_a_structure_on_the_meta_device_is_rebuilt_without_memory_and_then_filled():
    with torch.device("meta"):
        dense = Net(width=100_000)
    real = Net(8)
    pruned = narrowed(real, 5)
    shapes = {name: tuple(value.shape) for name, value in pruned.named_parameters()} | {"offset": (5,)}
    model = rebuild(dense, Edits(shapes, attributes=diff(real, pruned).attributes))
    assert model.first.weight.is_meta
    materialize(model)
    assert model.twin.weight is model.middle.weight
    model.scale = pruned.scale
    model.load_state_dict(pruned.state_dict(), strict=True)
    inputs = torch.randn(2, 4)
    assert torch.equal(model(inputs), pruned(inputs))


@pytest.mark.parametrize("module", [nn.LSTM(4, 6), nn.Conv2d(4, 8, 3, groups=4), nn.BatchNorm1d(6), nn.GroupNorm(2, 8)])
def test_layers_with_their_own_bookkeeping_rebuild(module):
    inputs = {nn.LSTM: (5, 4), nn.Conv2d: (2, 2, 5, 5), nn.BatchNorm1d: (3, 3), nn.GroupNorm: (2, 4, 2)}[type(module)]
    small = {
        nn.LSTM: lambda: nn.LSTM(4, 3),
        nn.Conv2d: lambda: nn.Conv2d(2, 4, 3, groups=2),
        nn.BatchNorm1d: lambda: nn.BatchNorm1d(3),
        nn.GroupNorm: lambda: nn.GroupNorm(2, 4),
    }[type(module)]()
    model = rebuild(module, through_json(diff(module, small)))
    model.load_state_dict(small.state_dict(), strict=True)
    x = torch.randn(inputs)
    expected, got = small.eval()(x), model.eval()(x)
    pairs = [(expected, got)] if isinstance(expected, torch.Tensor) else [(expected[0], got[0])]
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_selection_of_inputs_is_recorded_and_rebuilt():
    dense, inner = nn.Linear(6, 3), nn.Linear(2, 3)
    pruned = SelectInputs(inner, torch.tensor([1, 4]))
    edits = through_json(diff(dense, pruned))
    assert edits.kept_inputs == (1, 4)
    model = rebuild(dense, edits)
    model.load_state_dict(pruned.state_dict(), strict=True)
    x = torch.randn(5, 6)
    assert torch.equal(model(x), inner(x[:, [1, 4]]))


def test_a_bias_that_the_pruned_model_got_is_recorded_and_rebuilt():
    dense, pruned = nn.Sequential(nn.Linear(4, 3, bias=False)), nn.Sequential(nn.Linear(2, 3))
    edits = through_json(diff(dense, pruned))
    assert edits.added == {"0.bias": (3,)}
    model = rebuild(dense, edits)
    model.load_state_dict(pruned.state_dict(), strict=True)
    x = torch.randn(5, 2)
    assert torch.equal(model(x), pruned(x))
    with pytest.raises(BundleError, match=r"can't be larger than the 12 weights beside it: got \(13,\)"):
        rebuild(dense, Edits(added={"0.bias": (13,)}))


class Hidden(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = torch.zeros(size)
        self.layer = nn.Linear(2, 2)


def retyped(dtype):
    net = Net()
    net.last = net.last.to(dtype)
    return net


def untied():
    net = Net()
    net.twin.weight = nn.Parameter(net.middle.weight.detach().clone())
    return net


@pytest.mark.parametrize(
    ("dense", "pruned", "words"),
    [
        (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "modules of the dense one"),
        (nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU()), "must be a ReLU: got GELU"),
        (nn.Linear(2, 2), nn.Linear(2, 3), r"'weight' smaller than .*\(2, 2\): got .*\(3, 2\)"),
        (nn.Linear(2, 2), nn.Linear(2, 2, bias=False), "tensors of the dense one"),
        (Net(), retyped(torch.float16), "smaller than torch.float32"),
        (Net(), untied(), "tied"),
        (Hidden(4), Hidden(2), "keep tensors in buffers"),
    ],
)
def test_a_difference_that_edits_can_t_express_is_refused(dense, pruned, words):
    with pytest.raises(BundleError, match=words):
        diff(dense, pruned)


def test_a_model_that_was_pruned_as_a_graph_is_refused_in_plain_words():
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(BundleError, match="pruned as a graph can't be bundled yet"):
        diff(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), graph)


GOOD = {
    "shapes": {"weight": [2, 3]},
    "added": {},
    "attributes": {"": {"out_features": 2}},
    "kept_inputs": None,
    "entries": {},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shapes": {"weight": [-1, 3]}}, "shape of 'weight' must be a list of integers that are not negative"),
        ({"shapes": {"weight": [2.0, 3]}}, "integers"),
        ({"shapes": {"weight": [True, 3]}}, "integers"),
        ({"shapes": {"weight": "23"}}, "integers"),
        ({"shapes": {"weight": [10**30]}}, "integers"),
        ({"shapes": [1]}, "shapes must be a mapping.*got list"),
        ({"attributes": {"": [1]}}, "must be a mapping"),
        ({"attributes": {"": {"out_features": {"a": 1}}}}, "must be a finite number"),
        ({"attributes": {"": {"out_features": float("inf")}}}, "must be a finite number"),
        ({"kept_inputs": [3, 1]}, "kept_inputs must be rising numbers"),
        ({"kept_inputs": [1, 1]}, "kept_inputs must be rising numbers"),
        ({"kept_inputs": []}, "at least one"),
        ({"entries": {"0": [1, 0]}}, "entries of .0. must be rising numbers"),
        ({"kept_inputs": [-1]}, "not negative"),
        ({"more": 1}, "got .*'more'"),
    ],
)
def test_edits_that_make_no_sense_are_refused_when_read(change, words):
    with pytest.raises(BundleError, match=words):
        Edits.from_dict(GOOD | change)


@pytest.mark.parametrize("value", [None, 3, [], {"shapes": {}}])
def test_what_isn_t_edits_is_refused(value):
    with pytest.raises(BundleError, match="edits must be a mapping"):
        Edits.from_dict(value)


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (Edits({"nothing": (1,)}), "no parameter or buffer 'nothing'"),
        (Edits({"weight": (9, 4)}), r"smaller than \(3, 4\): got the shape \(9, 4\)"),
        (Edits({"weight": (12,)}), "smaller"),
        (Edits(added={"bias": (3,)}), "no empty place for a parameter 'bias'"),
        (Edits(added={"other": (3,)}), "no empty place"),
        (Edits(added={"a.bias": (3,)}), "no module 'a'"),
        (Edits(attributes={"a.b": {"out_features": 1}}), "no module 'a.b'"),
        (Edits(attributes={"": {"missing": 1}}), "no plain setting 'missing'"),
        (Edits(attributes={"": {"training": False}}), "no plain setting 'training'"),
        (Edits(attributes={"": {"_parameters": 1}}), "no plain setting '_parameters'"),
        (Edits(attributes={"": {"forward": "x"}}), "no plain setting 'forward'"),
        (Edits(attributes={"": {"out_features": "three"}}), "must be of type int, like 3: got 'three'"),
        (Edits(attributes={"": {"out_features": True}}), "must be of type int"),
    ],
)
def test_edits_that_don_t_fit_the_model_are_refused(edits, words):
    with pytest.raises(BundleError, match=words):
        rebuild(nn.Linear(4, 3), edits)


class Turned(nn.Module):
    """It has constants that its constructor makes and its weights don't hold."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)
        self.register_buffer("angle", torch.arange(8.0), persistent=False)
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.cache.numel() != 5:
            self.cache = torch.ones(5)
        return self.b(self.a(x) * self.angle.cos()) * self.cache[0]


def test_a_constant_that_was_cut_is_saved_with_the_weights():
    from prunus.apply import shrink
    from prunus.graph import analyze

    model, x = Turned(), torch.randn(2, 3)
    graph = analyze(model, (x,))
    small = shrink(model, (x,), graph, {"a": torch.arange(8) % 3 == 0}).model
    small(x)
    again = rebuild(Turned(), diff(Turned(), small))
    again.load_state_dict(small.state_dict())
    assert again.angle.tolist() == [0.0, 3.0, 6.0]
    assert torch.equal(again(x), small(x))
