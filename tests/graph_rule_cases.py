"""One call of every operation that has a rule: operands of different sizes on every axis, and how many axes stay free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["CASES", "ELSEWHERE", "Case", "operands_of", "tensors"]

A = torch.ops.aten


class Case(NamedTuple):
    """A function of operands, their shapes (or the operands), and how many leaf axes larger than one it leaves free."""

    function: Callable[..., Any]
    operands: tuple[Any, ...]
    free: int


def _case(function: Callable[..., Any], *operands: Any, free: int) -> Case:
    return Case(function, operands, free)


def _same(function: Callable[..., Any], free: int = 3) -> Case:
    return Case(function, ((2, 3, 5),), free)


NUMBERS = torch.tensor([2, 0, 1])
POINTS = torch.tensor([[0, 2, 1], [1, 0, 2]])
MASK = torch.tensor([True, False, True])

CASES: dict[str, Case] = {
    # products
    "mm": _case(torch.mm, (2, 3), (3, 5), free=3),
    "bmm": _case(torch.bmm, (2, 3, 5), (2, 5, 7), free=4),
    "dot": _case(torch.dot, (5,), (5,), free=1),
    "vdot": _case(lambda x, y: torch.vdot(torch.complex(x, x), torch.complex(y, y)).real, (5,), (5,), free=1),
    "mv": _case(torch.mv, (3, 5), (5,), free=2),
    "addmm": _case(torch.addmm, (5,), (2, 3), (3, 5), free=3),
    "baddbmm": _case(torch.baddbmm, (1, 3, 7), (2, 3, 5), (2, 5, 7), free=4),
    "addbmm": _case(torch.addbmm, (3, 7), (2, 3, 5), (2, 5, 7), free=4),
    "addmv": _case(torch.addmv, (3,), (3, 5), (5,), free=2),
    "addr": _case(torch.addr, (3, 5), (3,), (5,), free=2),
    "convolution": _case(torch.conv2d, (2, 4, 8, 9), (6, 2, 3, 5), (6,), 1, 0, 1, 2, free=4),
    "_convolution": _case(
        lambda x, w: A._convolution(x, w, None, [1], [0], [1], False, [0], 1, False, False, True, True),
        (2, 3, 7), (5, 3, 1), free=4,
    ),
    "_grouped_mm": _case(
        lambda x, w: torch._grouped_mm(
            x.bfloat16(), w.bfloat16(), offs=torch.tensor([2, 4, 6], dtype=torch.int32)
        ).float(),
        (6, 8), (3, 8, 16), free=2,
    ),
    "_trilinear": _case(lambda x, w, y: torch.nn.functional.bilinear(x, y, w), (2, 3), (7, 3, 5), (2, 5), free=4),
    "_euclidean_dist": _case(lambda x, y: A._euclidean_dist(x, y), (2, 3, 5), (2, 7, 5), free=4),
    "_cdist_forward": _case(lambda x, y: torch.cdist(x, y, p=1.0), (2, 3, 5), (2, 7, 5), free=4),
    "_weight_norm_interface": _case(lambda v, g: torch._weight_norm(v, g, 0), (3, 5), (3, 1), free=2),
    "_scaled_dot_product_flash_attention_for_cpu": _case(
        torch.nn.functional.scaled_dot_product_attention, (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), free=6
    ),
    # looked up and written
    "embedding": _case(lambda w: torch.nn.functional.embedding(POINTS, w), (4, 5), free=1),
    "_embedding_bag_forward_only": _case(lambda w: torch.nn.functional.embedding_bag(POINTS, w), (4, 5), free=1),
    "_embedding_bag": _case(lambda w: A._embedding_bag(w, POINTS.flatten(), torch.tensor([0, 3]))[0], (4, 5), free=1),
    "linalg_cross": _case(lambda x, y: torch.linalg.cross(x, y, dim=1), (2, 3, 5), (1, 3, 5), free=2),
    "_fft_r2c": _case(lambda x: torch.fft.rfft(x, dim=1).real, (2, 3, 5), free=2),
    "_fft_c2r": _case(lambda x: torch.fft.irfft(torch.complex(x, x), n=4, dim=1), (2, 3, 5), free=2),
    "_fft_c2c": _case(lambda x: torch.fft.fft(torch.complex(x, x), dim=0).imag, (2, 3, 5), free=2),
    "index_select": _case(lambda x: x.index_select(1, NUMBERS), (2, 3, 5), free=2),
    "index": _case(lambda x: x[:, NUMBERS], (2, 3, 5), free=2),
    "_unsafe_index": _case(lambda x: A._unsafe_index(x, [None, NUMBERS]), (2, 3, 5), free=2),
    "index_put": _case(lambda x, y: x.index_put((NUMBERS[:2],), y), (3, 5, 7), (2, 5, 7), free=2),
    "_index_put_impl": _case(
        lambda x, y: A._index_put_impl_(x.clone(), [None, NUMBERS], y, True), (2, 3, 5), (2, 3, 5), free=2
    ),
    "_unsafe_index_put": _case(
        lambda x, y: A._unsafe_index_put(x, [None, None, MASK], y, True), (2, 5, 3), (2, 5, 2), free=2
    ),
    "scatter": _case(lambda x, i, y: x.scatter(0, i, y), (3, 5), POINTS.repeat(1, 2)[:, :5], (2, 5), free=1),
    "scatter_add": _case(lambda x, i, y: x.scatter_add(0, i, y), (3, 5), POINTS.repeat(1, 2)[:, :5], (2, 5), free=2),
    "scatter_reduce": _case(
        lambda x, i, y: x.scatter_reduce(0, i, y, "amax"), (3, 5), POINTS.repeat(1, 2)[:, :5], (2, 5), free=2
    ),
    "index_add": _case(lambda x, i, y: x.index_add(1, i, y), (2, 3, 5), NUMBERS[:2].repeat(2), (2, 4, 5), free=3),
    "index_copy": _case(lambda x, i, y: x.index_copy(1, i, y), (2, 3, 5), NUMBERS[:2], (2, 2, 5), free=2),
    "index_fill": _case(lambda x, i: x.index_fill(1, i, 2.0), (2, 3, 5), NUMBERS[:2], free=2),
    "masked_scatter": _case(lambda x, y: x.masked_scatter(MASK, y), (2, 3), (2, 3), free=0),
    "segment_reduce": _case(
        lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([2, 1])), (3, 5, 7), free=2
    ),
    "gather": _case(lambda x, i: x.gather(0, i), (3, 5), POINTS.repeat(1, 2)[:, :5], free=1),
    # normalisations
    "native_batch_norm": _case(
        lambda x, w, b, m, v: torch.nn.functional.batch_norm(x, m, v, w, b),
        (2, 3, 5), (3,), (3,), (3,), (3,), free=3,
    ),
    "_native_batch_norm_legit_no_training": _case(
        lambda x, w, m, v: A._native_batch_norm_legit_no_training(x, w, None, m, v, 0.1, 1e-5)[0],
        (2, 3, 5), (3,), (3,), (3,), free=3,
    ),
    "_native_batch_norm_legit": _case(
        lambda x, w: A._native_batch_norm_legit.no_stats(x, w, None, True, 0.1, 1e-5)[0], (2, 3, 5), (3,), free=3
    ),
    "_native_batch_norm_legit_functional": _case(
        lambda x, m, v: A._native_batch_norm_legit_functional(x, None, None, m, v, False, 0.1, 1e-5)[0],
        (2, 3, 5), (3,), (3,), free=3,
    ),
    "_batch_norm_no_update": _case(
        lambda x, m, v: A._batch_norm_no_update(x, None, None, m, v, 0.1, 1e-5)[0], (2, 3, 5), (3,), (3,), free=3
    ),
    "_batch_norm_with_update": _case(
        lambda x, m, v: A._batch_norm_with_update(x, None, None, m.clone(), v.clone(), 0.1, 1e-5)[0],
        (2, 3, 5), (3,), (3,), free=3,
    ),
    "native_layer_norm": _case(
        lambda x, w, b: torch.nn.functional.layer_norm(x, (3, 5), w, b), (2, 3, 5), (3, 5), (3, 5), free=3
    ),
    "native_group_norm": _case(
        lambda x, w, b: torch.nn.functional.group_norm(x, 2, w, b), (3, 10, 7), (10,), (10,), free=3
    ),
    # element by element
    "copy": _case(lambda x, y: x.clone().copy_(y), (2, 3, 5), (3, 1), free=3),
    "masked_fill": _case(lambda x, y: x.masked_fill(y > 0.5, 0.0), (2, 3, 5), (3, 1), free=3),
    "native_dropout": _case(lambda x: torch.native_dropout(x, 0.0, True)[0], (2, 3), free=2),
    "clamp": _case(lambda x, y: x.clamp(min=y), (2, 3, 5), (3, 1), free=3),
    "floor_divide": _case(lambda x, y: x.floor_divide(y + 0.1), (2, 3, 5), (3, 1), free=3),
    "where": _case(lambda x, y: torch.where(y > 0.5, x, y), (2, 3, 5), (3, 1), free=3),
    "lerp": _case(lambda x, y, z: torch.lerp(x, y, z), (2, 3, 5), (3, 1), (5,), free=3),
    "addcmul": _case(lambda x, y, z: torch.addcmul(x, y, z), (2, 3, 5), (3, 1), (5,), free=3),
    "addcdiv": _case(lambda x, y, z: torch.addcdiv(x, y, z + 0.1), (2, 3, 5), (3, 1), (5,), free=3),
    "_prelu_kernel": _case(lambda x, w: torch.prelu(x - 0.5, w), (2, 3, 5), (3,), free=3),
    "polar": _case(lambda x, y: torch.polar(x, y).real, (2, 3, 5), (3, 1), free=3),
    "complex": _case(lambda x, y: torch.complex(x, y).imag, (2, 3, 5), (3, 1), free=3),
    "bernoulli": _same(lambda x: torch.bernoulli(x.round())),
    "bernoulli_": _same(lambda x: x.clone().bernoulli_(1.0)),
    "clone": _same(torch.clone),
    "_to_copy": _same(lambda x: x.double()),
    "detach": _same(lambda x: A.detach(x) * 2),
    "alias": _same(lambda x: A.alias(x) * 2),
    "lift_fresh_copy": _same(lambda x: A.lift_fresh_copy(x)),
    "_conj": _same(lambda x: torch.conj(torch.complex(x, x)).resolve_conj().imag),
    "fill": _same(lambda x: x.clone().fill_(2.0)),
    "zero": _same(lambda x: x.clone().zero_()),
    "zeros_like": _same(torch.zeros_like),
    "ones_like": _same(torch.ones_like),
    "empty_like": _same(lambda x: torch.where(x == x, x, torch.empty_like(x))),
    "rand_like": _same(lambda x: torch.rand_like(x) > 2),
    "randn_like": _same(lambda x: torch.randn_like(x) > 99),
    "full_like": _same(lambda x: torch.full_like(x, 2.0)),
    "nan_to_num": _same(lambda x: torch.nan_to_num(x.log())),
    "_softmax": _same(lambda x: x.softmax(1)),
    "_log_softmax": _same(lambda x: x.log_softmax(1)),
    "_safe_softmax": _same(lambda x: torch._safe_softmax(x, 1)),
    "hardswish": _same(torch.nn.functional.hardswish),
    "log_sigmoid_forward": _same(torch.nn.functional.logsigmoid),
    "fake_quantize_per_tensor_affine_cachemask": _same(
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255)
    ),
    "renorm": _same(lambda x: x.renorm(2, 1, 0.5)),
    "bucketize": _case(lambda x, y: torch.bucketize(x, y.cumsum(0)), (2, 3), (5,), free=2),
    "triu": _same(torch.triu, 1),
    "tril": _same(torch.tril, 1),
    "as_strided": _same(lambda x: x.as_strided((2, 3, 5), (15, 5, 1)) * 2),
    # made anew
    "empty": _case(lambda x: torch.where(x == x, x, torch.empty(3, 1)), (3, 5), free=2),
    "zeros": _case(lambda x: torch.zeros(3, 1) + x, (3, 5), free=2),
    "ones": _case(lambda x: torch.ones(3, 1) + x, (3, 5), free=2),
    "full": _case(lambda x: torch.full((3, 1), 2.0) + x, (3, 5), free=2),
    "rand": _case(lambda x: (torch.rand(3, 1) > 2) + x, (3, 5), free=2),
    "randn": _case(lambda x: (torch.randn(3, 1) > 99) + x, (3, 5), free=2),
    "new_zeros": _case(lambda x: x.new_zeros(3, 1) + x, (3, 5), free=2),
    "new_ones": _case(lambda x: x.new_ones(3, 1) + x, (3, 5), free=2),
    "new_empty": _case(lambda x: torch.where(x == x, x, x.new_empty(3, 1)), (3, 5), free=2),
    "new_full": _case(lambda x: x.new_full((3, 1), 2.0) + x, (3, 5), free=2),
    "empty_strided": _case(lambda x: torch.where(x == x, x, torch.empty_strided((3, 1), (1, 1))), (3, 5), free=2),
    "new_empty_strided": _case(lambda x: torch.where(x == x, x, x.new_empty_strided((3, 1), (1, 1))), (3, 5), free=2),
    "scalar_tensor": _case(lambda x: torch.scalar_tensor(2.0) + x, (3, 5), free=2),
    "arange": _case(lambda x: torch.arange(3)[:, None] + x, (3, 5), free=1),
    "linspace": _case(lambda x: torch.linspace(0, 1, 3)[:, None] + x, (3, 5), free=1),
    "eye": _case(lambda x: torch.eye(3, 5) + x, (3, 5), free=0),
    "randperm": _case(lambda x: (torch.randperm(3)[:, None] > 99) + x, (3, 5), free=1),
    "tril_indices": _case(lambda x: torch.tril_indices(2, 2)[:, :, None] + x, (2, 3, 5), free=1),
    "triu_indices": _case(lambda x: torch.triu_indices(2, 2)[:, :, None] + x, (2, 3, 5), free=1),
    "hann_window": _case(lambda x: torch.hann_window(3)[:, None] + x, (3, 5), free=1),
    # dropped, ordered, counted
    **{
        name: _same(getattr(torch, name) if hasattr(torch, name) else getattr(torch.linalg, name))
        for name in ("sum", "mean", "amax", "amin", "prod", "any", "all", "var", "std", "nansum", "count_nonzero")
    },
    "logsumexp": _same(lambda x: x.logsumexp(1)),
    "norm": _same(lambda x: A.norm(x, 2, [1])),
    "linalg_vector_norm": _same(lambda x: torch.linalg.vector_norm(x, dim=1)),
    "var_mean": _same(lambda x: torch.var_mean(x, 1)),
    "std_mean": _same(lambda x: torch.std_mean(x, 1, keepdim=True)),
    "aminmax": _same(lambda x: torch.aminmax(x, dim=1)),
    "argmax": _same(lambda x: x.argmax(1), 2),
    "argmin": _same(lambda x: x.argmin(1), 2),
    "max": _same(lambda x: x.max(1), 2),
    "min": _same(lambda x: x.min(1).values),
    "median": _same(lambda x: x.median(1), 2),
    "nanmedian": _same(lambda x: x.nanmedian(1).values),
    "mode": _same(lambda x: x.mode(1), 2),
    "kthvalue": _same(lambda x: x.kthvalue(2, 1), 2),
    **{
        name: _same(lambda x, name=name: getattr(x, name)(1), 2)
        for name in ("cumsum", "cumprod", "sort", "logcumsumexp", "cummax", "cummin", "flip")
    },
    "topk": _same(lambda x: x.topk(2, 1), 2),
    "roll": _same(lambda x: x.roll(1, 1), 2),
    "histc": _same(lambda x: torch.histc(x, 4, 0, 1)),
    "bincount": _case(lambda x: torch.bincount(x, minlength=5), torch.tensor([1, 0, 3]), free=1),
    "unique_consecutive": _case(torch.unique_consecutive, torch.tensor([1, 1, 3]), free=0),
    "_unique2": _case(lambda x: torch.unique(x), torch.tensor([1, 3, 1]), free=1),
    # views
    "view": _case(lambda x: x.view(6, 5), (2, 3, 5), free=3),
    "_unsafe_view": _case(lambda x: A._unsafe_view(x, [6, 5]), (2, 3, 5), free=3),
    "_reshape_alias": _case(lambda x: A._reshape_alias(x, [6, 5], [5, 1]) * 2, (2, 3, 5), free=3),
    "view_copy": _case(lambda x: torch.view_copy(x, (6, 5)), (2, 3, 5), free=3),
    "permute": _same(lambda x: x.permute(2, 0, 1)),
    "permute_copy": _same(lambda x: torch.permute_copy(x, (2, 0, 1))),
    "transpose": _same(lambda x: x.transpose(0, 2)),
    "t": _case(torch.t, (3, 5), free=2),
    "unsqueeze": _same(lambda x: x.unsqueeze(1)),
    "unsqueeze_copy": _same(lambda x: torch.unsqueeze_copy(x, 1)),
    "squeeze": _case(lambda x: x.squeeze(1), (2, 1, 5), free=2),
    "squeeze_copy": _case(lambda x: torch.squeeze_copy(x, 1), (2, 1, 5), free=2),
    "expand": _case(lambda x: x.expand(2, 3, 5), (3, 1), free=3),
    "expand_copy": _case(lambda x: torch.expand_copy(x, (2, 3, 5)), (3, 1), free=3),
    "repeat": _case(lambda x: x.repeat(2, 3, 1), (3, 5), free=4),
    "repeat_interleave": _case(
        lambda x: torch.repeat_interleave(x, output_size=6), torch.tensor([1, 2, 3]), free=0
    ),
    "cat": _case(lambda x, y: torch.cat([x, y], 1), (2, 3, 5), (2, 7, 5), free=4),
    "stack": _case(lambda x, y: torch.stack([x, y], 1), (3, 5), (3, 5), free=2),
    "split": _case(lambda x: x.split(2, 1), (2, 5, 7), free=4),
    "split_with_sizes": _case(lambda x: x.split([2, 3], 1), (2, 5, 7), free=4),
    "unsafe_split": _case(lambda x: torch.unsafe_split(x, 2, 1), (2, 5, 7), free=4),
    "unsafe_split_with_sizes": _case(lambda x: torch.unsafe_split_with_sizes(x, [2, 3], 1), (2, 5, 7), free=4),
    "split_copy": _case(lambda x: torch.split_copy(x, 2, 1), (2, 5, 7), free=4),
    "split_with_sizes_copy": _case(lambda x: torch.split_with_sizes_copy(x, [2, 3], 1), (2, 5, 7), free=4),
    "slice": _case(lambda x: x[:, 2:], (2, 5, 7), free=4),
    "slice_copy": _case(lambda x: torch.slice_copy(x, 1, 2, 5), (2, 5, 7), free=4),
    "select": _same(lambda x: x.select(1, 2), 2),
    "select_copy": _same(lambda x: torch.select_copy(x, 1, 2), 2),
    "unbind": _same(lambda x: x.unbind(1), 2),
    "unbind_copy": _same(lambda x: torch.unbind_copy(x, 1), 2),
    "constant_pad_nd": _same(lambda x: torch.nn.functional.pad(x, (1, 2))),
    "glu": _case(torch.nn.functional.glu, (2, 3, 10), free=3),
    "diagonal": _case(torch.diagonal, (3, 3, 5), free=2),
    "diagonal_copy": _case(torch.diagonal_copy, (3, 3, 5), free=2),
    "diag_embed": _case(torch.diag_embed, (2, 3), free=2),
    "view_as_real": _case(lambda x: torch.view_as_real(torch.complex(x, x)), (3, 5), free=2),
    "view_as_real_copy": _case(lambda x: torch.view_as_real_copy(torch.complex(x, x)), (3, 5), free=2),
    "view_as_complex_copy": _case(lambda x: torch.view_as_complex_copy(x).real, (3, 5, 2), free=2),
    "view_as_complex": _case(lambda x: torch.view_as_complex(x).real, (3, 5, 2), free=2),
    # positions in space
    **{f"avg_pool{n}d": _case(getattr(A, f"avg_pool{n}d"), (2, 3, 6, 8, 4)[: n + 2], [2] * n, free=2) for n in (2, 3)},
    **{
        f"_adaptive_avg_pool{n}d": _case(getattr(A, f"_adaptive_avg_pool{n}d"), (2, 3, 6, 8, 4)[: n + 2], [2] * n, free=2)
        for n in (2, 3)
    },
    **{
        f"adaptive_max_pool{n}d": _case(getattr(A, f"adaptive_max_pool{n}d"), (2, 3, 6, 8, 4)[: n + 2], [2] * n, free=2)
        for n in (2, 3)
    },
    **{
        f"max_pool{n}d_with_indices": _case(
            getattr(A, f"max_pool{n}d_with_indices"), (2, 3, 6, 8, 4)[: n + 2], [2] * n, free=2
        )
        for n in (2, 3)
    },
    **{
        f"fractional_max_pool{n}d": _case(
            lambda x, n=n: getattr(A, f"fractional_max_pool{n}d")(x, [2] * n, [3] * n, torch.full((2, 3, n), 0.5)),
            (2, 3, 6, 8, 7)[: n + 2], free=2,
        )
        for n in (2, 3)
    },
    **{
        f"{kind}_pad{n}d": _case(getattr(A, f"{kind}_pad{n}d"), (2, 3, 6, 8, 4)[: n + 2], [1] * (2 * n), free=2)
        for kind in ("reflection", "replication")
        for n in (1, 2, 3)
    },
    **{
        name: _case(
            lambda x, size, *rest, name=name: getattr(A, name)(x, size, *rest, *[None] * len(size)),
            (2, 3, 6, 8, 4)[: n + 2], [7, 5, 9][:n], *([False] if corners else []), free=2,
        )
        for name, n, corners in (
            ("upsample_nearest1d", 1, False),
            ("upsample_nearest2d", 2, False),
            ("upsample_nearest3d", 3, False),
            ("_upsample_nearest_exact1d", 1, False),
            ("_upsample_nearest_exact2d", 2, False),
            ("_upsample_nearest_exact3d", 3, False),
            ("upsample_linear1d", 1, True),
            ("upsample_bilinear2d", 2, True),
            ("upsample_trilinear3d", 3, True),
            ("upsample_bicubic2d", 2, True),
            ("_upsample_bilinear2d_aa", 2, True),
            ("_upsample_bicubic2d_aa", 2, True),
        )
    },
    "grid_sampler_2d": _case(
        lambda x, grid: torch.nn.functional.grid_sample(x, grid, align_corners=False), (2, 3, 4, 5), (2, 7, 6, 2), free=2
    ),
    "grid_sampler_3d": _case(
        lambda x, grid: torch.nn.functional.grid_sample(x, grid, align_corners=False), (2, 3, 4, 5, 6), (2, 7, 6, 4, 3), free=2
    ),
    "max_unpool2d": _case(
        lambda x, i: torch.nn.functional.max_unpool2d(x, i, 2), (2, 3, 2, 1),
        torch.tensor([[[[0], [6]]] * 3] * 2), free=2,
    ),
    "max_unpool3d": _case(
        lambda x, i: torch.nn.functional.max_unpool3d(x, i, 2), (2, 3, 1, 2, 1),
        torch.tensor([[[[[0], [6]]]] * 3] * 2), free=2,
    ),
    "pixel_shuffle": _case(lambda x: torch.pixel_shuffle(x, 2), (3, 20, 2, 7), free=2),
    "pixel_unshuffle": _case(lambda x: torch.pixel_unshuffle(x, 2), (3, 5, 4, 6), free=2),
    "channel_shuffle": _case(lambda x: torch.channel_shuffle(x, 2), (3, 10, 7, 5), free=5),
    "native_channel_shuffle": _case(lambda x: torch.native_channel_shuffle(x, 2), (3, 10, 7, 5), free=5),
    "im2col": _case(lambda x: torch.nn.functional.unfold(x, 2), (2, 3, 4, 5), free=2),
    "col2im": _case(lambda x: torch.nn.functional.fold(x, (3, 4), 2), (2, 20, 6), free=2),
    # recurrent layers
    "lstm": _case(
        lambda x, h, c, *w: torch.lstm(x, (h, c), w, True, 1, 0.0, False, False, True),
        (2, 3, 5), (1, 2, 7), (1, 2, 7), (28, 5), (28, 7), (28,), (28,), free=3,
    ),
    "gru": _case(
        lambda x, h, *w: torch.gru(x, h, w, True, 1, 0.0, False, False, True),
        (2, 3, 5), (1, 2, 7), (21, 5), (21, 7), (21,), (21,), free=3,
    ),
    **{
        name: _case(
            lambda x, h, *w, name=name: getattr(torch, name)(x, h, w, True, 1, 0.0, False, False, True),
            (2, 3, 5), (1, 2, 7), (7, 5), (7, 7), (7,), (7,), free=3,
        )
        for name in ("rnn_tanh", "rnn_relu")
    },
}  # fmt: skip
"""By the name of the operation in :data:`prunus.graph.solver.solve.RULES`."""

ELSEWHERE: dict[str, str] = {
    "pointwise": "no operation: ATen's own tag leads there, and clamp, where and others are met",
    "no rule": "no operation: what has no rule leads there",
    "_assert_tensor_metadata": "the tracer drops it, since it has no result; a recording of what runs has it",
    "lift_fresh": "the tracer writes lift_fresh_copy; a recording of what runs has it",
    "index_reduce": "met in test_graph_rules_index_reduce, where its warning is caught",
}
"""Rules that no call leads to, and why they stay."""


def operands_of(case: Any) -> list[Any]:
    """Return the operands of a call: tensors of the given shapes, and what is given as it is."""
    draw = torch.Generator().manual_seed(3)
    return [torch.rand(o, generator=draw) if isinstance(o, tuple) else o for o in case.operands]


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors of a result, in order."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
