from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.ship.sparse import pack_sparse, unpack_sparse

SHAPES = st.lists(st.integers(0, 12), min_size=0, max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@settings(deadline=None, derandomize=True)
@given(SHAPES, DTYPES, st.floats(0, 1), st.integers(0, 99))
def test_packing_loses_no_bit_and_is_only_used_where_it_is_smaller(shape, dtype, zeros, seed):
    draw = torch.Generator().manual_seed(seed)
    tensor = torch.randn(shape, generator=draw).to(dtype)
    tensor = torch.where(torch.rand(shape, generator=draw) < zeros, torch.zeros_like(tensor), tensor)
    tensor = torch.where(torch.rand(shape, generator=draw) < 0.1, -torch.zeros_like(tensor), tensor)
    packed = pack_sparse(tensor.contiguous())
    if packed is None:
        return
    stored, parts = packed
    assert sum(parts) == stored.numel() < math.prod(shape) * tensor.element_size()
    back = unpack_sparse(stored, parts, tuple(shape), dtype)
    integers = BITS[tensor.element_size()]
    assert back.dtype == dtype
    assert torch.equal(back.view(integers), tensor.view(integers))
