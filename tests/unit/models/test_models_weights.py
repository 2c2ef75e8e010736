"""Weights load in full or not at all, and a weight file never runs code."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunus.core.errors import WeightsError
from prunus.models import load_weights


class Net(nn.Module):
    """Two layers, batch norm, and a head that shares its weight with the first layer."""

    def __init__(self, *, tied=False):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 3)
        if tied:
            self.head.weight = self.first.weight

    def forward(self, x):
        return self.head(self.norm(self.first(x)))


def state(seed=1):
    torch.manual_seed(seed)
    return {name: value.clone() for name, value in Net().state_dict().items()}


def save(path, tensors):
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.fixture(params=["w.safetensors", "w.pt", "w.pth"])
def path(request, tmp_path):
    return tmp_path / request.param


def refused(path, message, model=None):
    """Check that loading fails in one line that names the file, and that the model did not change."""
    model = model or Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_was_saved_is_loaded(path):
    wanted, model = state(), Net()
    parameter = model.first.weight
    load_weights(model, str(save(path, wanted)))
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    assert model.first.weight is parameter  # in place: an optimizer that holds it goes on
    assert parameter.requires_grad
    path.unlink()
    assert model(torch.zeros(2, 3)).isfinite().all()  # nothing points into the file


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_narrow_floats_widen_without_loss(path, kind):
    wanted = {name: value.to(kind) if value.is_floating_point() else value for name, value in state().items()}
    model = Net()
    load_weights(model, save(path, wanted))
    assert torch.equal(model.first.weight.to(kind), wanted["first.weight"])
    assert model.first.weight.dtype == torch.float32


def test_whole_numbers_widen_without_loss(path):
    model = Net()
    load_weights(model, save(path, state() | {"norm.num_batches_tracked": torch.tensor(7, dtype=torch.int32)}))
    assert model.norm.num_batches_tracked == 7


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("first.weight", torch.zeros(3, 4), r"'first.weight' has the wrong shape: expected \(3, 3\), got \(3, 4\)"),
        ("first.bias", torch.zeros(1), r"expected \(3,\), got \(1,\)"),
        (
            "first.bias",
            torch.zeros(3, dtype=torch.float64),
            "'first.bias' has the wrong number type: expected float32, got float64",
        ),
        ("first.bias", torch.zeros(3, dtype=torch.int64), "expected float32, got int64"),
        ("first.bias", torch.zeros(3, dtype=torch.int8), "expected float32, got int8"),
        ("first.bias", torch.zeros(3, dtype=torch.bool), "expected float32, got bool"),
        ("first.bias", torch.zeros(3, dtype=torch.complex64), "expected float32, got complex64"),
        ("first.bias", torch.zeros(3).to(torch.float8_e4m3fn), "expected float32, got float8_e4m3fn"),
        ("norm.num_batches_tracked", torch.tensor(1.0), "expected int64, got float32"),
        ("norm.num_batches_tracked", torch.tensor(True), "expected int64, got bool"),
        ("first.bias", torch.tensor([1.0, torch.nan, torch.inf]), "'first.bias' has 1 NaN and 1 infinite values of 3"),
        ("first.bias", torch.tensor([0.0, -torch.inf, torch.inf]), "'first.bias' has 0 NaN and 2 infinite values of 3"),
        ("norm.running_var", torch.full((3,), torch.nan), "'norm.running_var' has 3 NaN and 0 infinite values of 3"),
        ("extra", torch.zeros(1), r"1 too many \('extra'\)"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_and_nothing_is_loaded(path, name, value, message):
    refused(save(path, state() | {name: value}), message)


def test_missing_names_are_listed_and_a_near_one_is_suggested(path):
    tensors = state()
    refused(save(path, {}), r"7 missing|8 missing|9 missing")
    tensors["head.wieght"] = tensors.pop("head.weight")
    refused(
        save(path, tensors),
        r"1 missing \('head\.weight'\), 1 too many \('head\.wieght'\); 'head\.wieght': did you mean 'head\.weight'",
    )
    refused(save(path, {f"layer{n}": torch.zeros(1) for n in range(9)}), r"9 too many \('layer0', .*'layer4', \.\.\.\)")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_a_wrappers_prefix_is_recognised(path, prefix):
    refused(
        save(path, {prefix + name: value for name, value in state().items()}),
        f"every name in the file starts with '{prefix}'",
    )
    wrapper = nn.Module()
    setattr(wrapper, prefix.rstrip("."), Net())
    refused(save(path, state()), f"every name in the model starts with '{prefix}'", wrapper)


def test_a_shared_tensor_may_be_saved_under_one_of_its_names(path):
    tensors = state()
    first = tensors["first.weight"]
    without = {name: value for name, value in tensors.items() if name != "head.weight"}
    model = Net(tied=True)
    load_weights(model, save(path, without))
    assert torch.equal(model.head.weight, first)
    load_weights(Net(tied=True), save(path, without | {"head.weight": first.clone()}))
    refused(save(path, tensors), "'first.weight' and 'head.weight' are one tensor in the model", Net(tied=True))


def test_a_missing_or_unknown_file_is_named(tmp_path):
    refused(tmp_path / "none.pt", "there is no weight file")
    (tmp_path / "w.bin").write_bytes(b"x")
    refused(tmp_path / "w.bin", r"expected a file that ends in \.safetensors or \.pt, got '\.bin'")


# --- .safetensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_safetensors_that_is_cut_off_is_refused(tmp_path, share):
    path = save(tmp_path / "w.safetensors", state())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path, r"this \.safetensors file is cut off: ")


def written(path, header, data=b""):
    """Write a .safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_a_name_that_is_given_twice_is_refused(tmp_path):
    entry = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    twice = f'{{"a":{entry},"a":{entry}}}'.encode()
    refused(written(tmp_path / "w.safetensors", twice, bytes(4)), "the header names 'a' twice")
    inside = b'{"a":{"dtype":"F32","shape":[1],"shape":[2],"data_offsets":[0,4]}}'
    refused(written(tmp_path / "w.safetensors", inside, bytes(4)), "the header names 'shape' twice")


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"not json", b"", r"its header is no JSON \(JSONDecodeError\)"),
        (b"\xff\xfe", b"", r"its header is no JSON \(UnicodeDecodeError\)"),
        (b"[" * 100_000, b"", r"its header is no JSON"),
        ([1, 2], b"", "its header is a list"),
        ({"a": 3}, b"", "the header entry 'a' is damaged: 3"),
        ({"a": ENTRY | {"data_offsets": [0, "4"]}}, bytes(4), "the header entry 'a' is damaged"),
        ({"a": ENTRY | {"data_offsets": [-4, 4]}}, bytes(4), "the header entry 'a' is damaged"),
        ({"a": ENTRY | {"shape": [9]}}, bytes(4), r"the header entry .* is damaged"),
        ({"a": ENTRY | {"dtype": "F99"}}, bytes(4), r"the header entry .* is damaged"),
        ({"a": ENTRY, "b": ENTRY}, bytes(4), r"the header entry .* is damaged"),
        ({"a": ENTRY | {"data_offsets": [4, 8]}}, bytes(8), r"the header entry .* is damaged"),
        ({"a": ENTRY}, bytes(9), r"not a readable \.safetensors file"),
        ({"a": ENTRY}, bytes(3), r"cut off: expected \d+ bytes, got \d+"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, header, data, message):
    refused(written(tmp_path / "w.safetensors", header, data), message)


def test_a_header_of_absurd_length_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    refused(path, "it claims a header of 4611686018427387904 bytes")
