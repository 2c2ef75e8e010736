from __future__ import annotations

import pytest
import torch
from safetensors.torch import save
from torch import nn

from prunus.core.errors import BundleError
from prunus.ship.pack import pack, pack_mask, unpack_mask


def test_the_mask_has_the_documented_layout():
    tensor = torch.zeros(2, 50)
    tensor[0, 0], tensor[0, 9], tensor[1, 49] = 1.0, -2.0, 3.0
    mask, values = pack_mask(tensor)
    assert mask.tolist() == [128, 64, *[0] * 10, 16]  # the first element is the highest bit of the first byte
    assert values.tolist() == [1.0, -2.0, 3.0]
    assert torch.equal(unpack_mask(mask, values, (2, 50)), tensor)


def test_negative_zero_and_denormals_are_kept():
    tensor = torch.zeros(100)
    tensor[3], tensor[4] = -0.0, 1e-45
    mask, values = pack_mask(tensor)
    back = unpack_mask(mask, values, (100,))
    assert torch.equal(back.view(torch.int32), tensor.view(torch.int32))


def test_what_wouldn_t_get_smaller_stays_plain():
    assert pack_mask(torch.ones(1000)) is None
    assert pack_mask(torch.zeros(8)) is None  # the second entry in the header costs more
    model = nn.Linear(8, 8)
    stored, entries = pack(model)
    assert {entry.stored for entry in entries.values()} == {"plain"}
    assert list(stored) == ["bias", "weight"]


def test_a_name_that_the_mask_would_take_keeps_the_tensor_plain():
    model = nn.Module()
    model.register_buffer("w", torch.zeros(1000))
    model.register_buffer("w.mask".replace(".", "_"), torch.ones(2))
    model.w_child = nn.Module()
    assert pack(model)[1]["w"].stored == "bitmask"
    inner = nn.Module()
    inner.register_buffer("mask", torch.ones(2))
    clash = nn.Module()
    clash._buffers["w"] = torch.zeros(1000)
    clash._modules["w"] = inner
    assert pack(clash)[1]["w"].stored == "plain"


def test_integers_and_shared_memory_are_stored_as_they_are():
    model = nn.Module()
    base = torch.arange(1000)
    model.register_buffer("count", torch.zeros(1000, dtype=torch.int64))
    model.register_buffer("view", base[::2])
    model.register_buffer("rest", base)
    stored, entries = pack(model)
    assert entries["count"].stored == "plain"
    assert save(stored) == save(pack(model)[0])
    assert torch.equal(stored["view"], base[::2])


def test_a_type_that_can_t_be_stored_is_named():
    model = nn.Module()
    model.register_buffer("wave", torch.zeros(3, dtype=torch.complex64))
    with pytest.raises(BundleError, match=r"'wave' can't be stored: expected a tensor of .*, got torch.complex64"):
        pack(model)


def test_an_infinite_buffer_may_mean_something_and_is_kept():
    model = nn.Module()
    model.register_buffer("limits", torch.tensor([-float("inf"), 0.0]))
    assert torch.isinf(pack(model)[0]["limits"][0])


@pytest.mark.parametrize(
    ("mask", "values", "words"),
    [
        (torch.zeros(2, dtype=torch.uint8), torch.zeros(0), r"has 13 bytes: got \(2,\)"),
        (torch.zeros(13, dtype=torch.uint8), torch.zeros(1), r"mask with 0 bits needs as many values: got \(1,\)"),
    ],
)
def test_a_mask_that_doesn_t_fit_is_refused(mask, values, words):
    with pytest.raises(BundleError, match=words):
        unpack_mask(mask, values, (100,))
