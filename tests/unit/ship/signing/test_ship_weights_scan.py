"""Does the look at a file of weights see what is there, however it is stored?"""

from __future__ import annotations

import hashlib
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from prunus.core.errors import BundleError
from prunus.ship.manifest import TensorEntry
from prunus.ship.signing.hashed_file import HashedFile
from prunus.ship.signing.weights_scan import scan_weights
from prunus.ship.sparse import highest_bytes, pack_sparse, unpack_sparse

FLOATS = {torch.float64: 8, torch.float32: 4, torch.float16: 2, torch.bfloat16: 2}
BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def scanned(tensor, tmp_path, *, compressed):
    dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    if compressed:
        packed, parts = pack_sparse(tensor)
        entry = TensorEntry(dtype=dtype, shape=shape, stored="bitmask", parts=parts)
    else:
        packed, entry = tensor, TensorEntry(dtype=dtype, shape=shape)
    content = save({"w": packed})
    found = scan_weights(io.BytesIO(content), len(content), {"w": entry}, tmp_path / "model.safetensors")
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    return found


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_value_is_seen_as_what_torch_says_it_is(dtype, compressed, tmp_path):
    largest = torch.finfo(dtype).max
    values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        largest,
        -largest,
        torch.finfo(dtype).smallest_normal,
        math.inf,
        -math.inf,
        math.nan,
    ]
    bits = torch.tensor(values, dtype=dtype).view(BITS[FLOATS[dtype]])
    near = [
        (bits + step).view(dtype) for step in (-1, 0, 1)
    ]  # the numbers beside, and every kind of NaN that lies there
    for value in torch.cat(near):
        tensor = torch.zeros(20_000, dtype=dtype)
        tensor[::2] = -0.25  # what the sign bit of would look large
        tensor[4321] = value
        found = scanned(tensor, tmp_path, compressed=compressed)
        assert (found.problem is not None) == bool(tensor.isnan().any()), value
        assert ("w" in found.infinite) == bool(tensor.isinf().any()), value


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.sampled_from(list(FLOATS)))
def test_the_highest_bytes_are_those_of_the_tensor(n, seed, dtype):
    draw = torch.Generator().manual_seed(seed)
    tensor = torch.zeros(64 * n + seed % 8, dtype=dtype)
    kept = torch.rand(len(tensor), generator=draw) < 0.2
    tensor[kept] = torch.randn(int(kept.sum()), generator=draw).to(dtype)
    if (packed := pack_sparse(tensor)) is None:
        return
    found = highest_bytes(packed[0].numpy(), packed[1], len(tensor), dtype)
    whole = tensor[tensor != 0].view(torch.uint8).reshape(-1, FLOATS[dtype])[:, -1]
    assert np.array_equal(found, whole.numpy())


def test_what_fills_the_masks_last_byte_up_is_no_element():
    tensor = torch.zeros(1001)
    tensor[::10] = 1.5
    packed, parts = pack_sparse(tensor)
    mask = np.packbits((tensor != 0).numpy())
    mask[-1] |= 0x7F
    rest = packed.numpy()[parts[0] :]
    filled = np.concatenate([mask, rest])
    parts = (len(mask), *parts[1:])
    assert torch.equal(unpack_sparse(torch.from_numpy(filled), parts, (1001,), torch.float32), tensor)
    assert len(highest_bytes(filled, parts, 1001, torch.float32)) == 101


@pytest.mark.parametrize("part", range(5))
def test_a_part_that_does_not_decompress_is_refused_also_where_no_exponent_lies_in_it(part):
    tensor = torch.zeros(40_000)
    tensor[::3] = 0.5
    packed, parts = pack_sparse(tensor)
    start = sum(parts[:part])
    packed[start : start + parts[part]] = 7
    with pytest.raises(BundleError, match="mask" if part == 0 else f"byte {part - 1}"):
        highest_bytes(packed.numpy(), parts, 40_000, torch.float32)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5 * 2**20), max_size=8), st.booleans())
def test_what_is_read_is_the_file_in_whatever_steps(steps, in_one_go):
    content = np.random.default_rng(len(steps)).bytes(sum(steps) + 1000)
    hashed = HashedFile(io.BytesIO(content), len(content), "f")
    try:
        place = 0
        for number, step in enumerate(steps):
            whole = in_one_go == bool(number % 2)
            found = hashed.read(step).tobytes() if whole else b"".join(bytes(piece) for piece in hashed.pieces(step))
            assert found == content[place : place + step]
            place += step
        assert hashed.sha256() == hashlib.sha256(content).hexdigest()
    finally:
        hashed.close()
