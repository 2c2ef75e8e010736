from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from prunus.core.errors import BundleError
from prunus.ship.manifest import TensorEntry
from prunus.ship.pack import pack, unpack
from prunus.ship.sparse import pack_sparse, unpack_sparse


def test_the_parts_have_the_documented_layout():
    tensor = torch.zeros(2, 200)
    tensor[0, 0], tensor[0, 9], tensor[1, 199] = 1.0, -2.0, 3.0
    packed, parts = pack_sparse(tensor)
    values = np.frombuffer(np.array([1.0, -2.0, 3.0], "<f4").tobytes(), np.uint8).reshape(3, 4)
    assert parts[1:] == (3, 3, 3, 3)  # too short to get shorter
    assert packed[parts[0] :].tolist() == values.T.ravel().tolist()
    mask = pa.Codec("zstd").decompress(packed[: parts[0]].numpy().tobytes(), decompressed_size=50, asbytes=True)
    assert list(mask) == [128, 64, *[0] * 47, 1]  # the first element is the highest bit of the first byte
    assert torch.equal(unpack_sparse(packed, parts, (2, 200), torch.float32), tensor)


def test_negative_zero_and_denormals_are_kept():
    tensor = torch.zeros(100)
    tensor[3], tensor[4] = -0.0, 1e-45
    back = unpack_sparse(*pack_sparse(tensor), (100,), torch.float32)
    assert torch.equal(back.view(torch.int32), tensor.view(torch.int32))


def test_nine_tenths_of_zeros_take_about_a_tenth_of_the_bytes():
    weights = 0.05 * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    weights[weights.abs() < weights.abs().quantile(0.9)] = 0
    packed, _ = pack_sparse(weights)
    assert 4 * len(weights) / len(packed) > 10
    assert torch.equal(packed, pack_sparse(weights.clone())[0]), "the same bytes for the same weights"


def test_what_wouldn_t_get_smaller_stays_plain():
    assert pack_sparse(torch.ones(1000)) is None
    assert pack_sparse(torch.zeros(8)) is None  # the longer entry in the manifest costs more
    model = nn.Linear(8, 8)
    stored, entries = pack(model)
    assert {entry.stored for entry in entries.values()} == {"plain"}
    assert list(stored) == ["bias", "weight"]


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
    ("change", "words"),
    [
        (lambda packed, parts: (packed, parts[:-1]), "has 5 parts"),
        (lambda packed, parts: (packed[:-1], parts), "has 5 parts of"),
        (lambda packed, parts: (torch.zeros_like(packed), parts), "its mask must decompress to 125 bytes"),
        # A mask of ones where there was one of a few, kept at the length that needs no decompression.
        (
            lambda packed, parts: (
                torch.cat([torch.full((125,), 255, dtype=torch.uint8), packed[parts[0] :]]),
                (125, *parts[1:]),
            ),
            "its byte 0 of the values must decompress to 1000 bytes",
        ),
    ],
)
def test_parts_that_don_t_fit_are_refused(change, words):
    tensor = torch.zeros(1000)
    tensor[::50] = 1.5
    with pytest.raises(BundleError, match=words):
        unpack_sparse(*change(*pack_sparse(tensor)), (1000,), torch.float32)


def test_a_part_never_unpacks_to_more_than_the_shape_says():
    bomb = pa.Codec("zstd").compress(bytes(10**7), asbytes=True)
    packed = torch.tensor(list(bomb), dtype=torch.uint8)
    with pytest.raises(BundleError, match="its mask must decompress to 125000 bytes"):
        unpack_sparse(packed, (len(bomb), 0, 0, 0, 0), (10**6,), torch.float32)


def test_a_file_that_claims_to_be_a_thousand_times_larger_is_refused_before_anything_is_made(tmp_path):
    save_file({"w": torch.zeros(50, dtype=torch.uint8)}, tmp_path / "w.safetensors")
    entry = TensorEntry(dtype="float32", shape=(2**40,), stored="bitmask", parts=(10, 10, 10, 10, 10))
    with pytest.raises(BundleError, match="claim 8796093022208 bytes"):
        unpack((tmp_path / "w.safetensors").read_bytes(), {"w": entry}, tmp_path / "w.safetensors")
