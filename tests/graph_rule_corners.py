"""Calls of operations at their corners: negative dimensions, broadcasting, empty ones, several groups, what cuts across parts."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from graph_rule_cases import Case

__all__ = ["CORNERS"]

A = torch.ops.aten
NUMBERS = torch.tensor([2, 0, 1])
PAIRS = torch.tensor([[0, 2, 1], [1, 0, 2]])
MASK = torch.tensor([True, False, True])


def _sdpa(*operands: Any, **settings: Any) -> Any:
    return functional.scaled_dot_product_attention(*operands, **settings)


def _lstm(
    x: Any, h: Any, c: Any, *w: Any, layers: int = 1, both: bool = False, first: bool = True, bias: bool = True
) -> Any:
    return torch.lstm(x, (h, c), w, bias, layers, 0.0, False, both, first)


def _flat(x: Any) -> Any:
    """Make channels (10) of two dimensions (2 x 5), so that nothing but these can be split off."""
    return x.flatten(1, 2)


_CORNERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "addmm": {
        "a matrix is added": (3, torch.addmm, (2, 5), (2, 3), (3, 5)),
        "a column is added": (3, torch.addmm, (2, 1), (2, 3), (3, 5)),
    },
    "baddbmm": {"a matrix is added": (4, torch.baddbmm, (3, 7), (2, 3, 5), (2, 5, 7))},
    "addbmm": {"a row is added": (4, torch.addbmm, (7,), (2, 3, 5), (2, 5, 7))},
    "addmv": {"one number is added": (2, torch.addmv, (1,), (3, 5), (5,))},
    "addr": {
        "a row is added": (2, torch.addr, (5,), (3,), (5,)),
        "one number is added": (2, torch.addr, (), (3,), (5,)),
        "a column is added": (2, torch.addr, (3, 1), (3,), (5,)),
    },
    "convolution": {
        "one position": (5, functional.conv2d, (2, 4, 5, 7), (3, 4, 1, 1), (3,)),
        "one position, with a step": (3, lambda x, w: functional.conv1d(x, w, stride=2), (2, 4, 7), (3, 4, 1)),
        "as many positions as before": (3, lambda x, w: functional.conv1d(x, w, padding=1), (2, 4, 7), (5, 4, 3)),
        "every channel by itself": (3, lambda x, w: functional.conv1d(x, w, groups=5), (2, 5, 7), (10, 1, 3)),
        "transposed": (3, functional.conv_transpose1d, (2, 4, 7), (4, 5, 3), (5,)),
        "transposed, in groups": (5, lambda x, w, b: functional.conv_transpose1d(x, w, b, groups=2), (2, 6, 7), (6, 5, 1), (10,)),
        "groups cut across parts": (3, lambda x, w: functional.conv1d(x, w.flatten(0, 1), groups=5), (3, 15, 7), (2, 5, 3, 1)),
    },
    "_scaled_dot_product_flash_attention_for_cpu": {
        "causal": (4, lambda q, k, v: _sdpa(q, k, v, is_causal=True), (2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 8)),
        "a mask": (6, _sdpa, (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (5, 7)),
        "a mask for each example": (6, _sdpa, (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (2, 1, 1, 7)),
        "a mask for each head": (6, _sdpa, (2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8), (1, 3, 5, 1)),
    },
    "_trilinear": {
        "one sum": (3, lambda x, y, z: A._trilinear(x, y, z, [], [0], [1], [2]), (2, 3, 5), (3, 5), (2, 5)),
        "no sum": (3, lambda x, y, z: A._trilinear(x, y, z, [1], [0], [0], []), (2, 5), (3, 5), (3, 5)),
    },
    "_weight_norm_interface": {"along the last": (2, lambda v, g: torch._weight_norm(v, g, 1), (3, 5), (1, 5))},
    "embedding": {"one number each": (1, lambda w: functional.embedding(NUMBERS, w), (4, 5))},
    "_embedding_bag": {
        "weighted": (1,
            lambda w, s: A._embedding_bag(w, PAIRS.flatten(), torch.tensor([0, 3]), False, 0, False, s)[0], (4, 5), (6,),
        ),
    },
    "linalg_cross": {
        "along the last": (2, lambda x, y: torch.linalg.cross(x, y), (2, 5, 3), (2, 1, 3)),
        "along the first": (1, lambda x, y: torch.linalg.cross(x, y, dim=0), (3, 5), (3, 5)),
    },
    "_fft_c2c": {"two dimensions": (1, lambda x: torch.fft.fft2(torch.complex(x, x), dim=(-1, 0)).real, (2, 3, 5))},
    "_fft_r2c": {"the last": (1, lambda x: torch.fft.rfft(x).real, (3, 5))},
    "index_select": {"the last": (2, lambda x: x.index_select(-1, NUMBERS), (2, 5, 3))},
    "index": {
        "pairs of numbers": (2, lambda x: x[:, PAIRS], (2, 3, 5)),
        "two dimensions side by side": (2, lambda x: x[:, PAIRS, NUMBERS], (2, 3, 4, 5)),
        "two dimensions apart": (1, lambda x: x[NUMBERS, :, NUMBERS], (3, 5, 4)),
        "a mask": (2, lambda x: x[:, MASK], (2, 3, 5)),
        "a mask of two dimensions": (1, lambda x: x[:, torch.ones(3, 5, dtype=torch.bool)], (2, 3, 5)),
        "a mask and numbers": (1, lambda x: x[MASK, NUMBERS[:2]], (3, 5, 7)),
        "a mask that is computed": (1, lambda x, y: x[y > -1], (3, 5), (3,)),
        "numbers that are computed": (2, lambda x, y: x[:, (y * 2).long()], (2, 3, 5), (4,)),
        "every entry": (2, lambda x: x[:, torch.arange(3)], (2, 3, 5)),
        "every entry, in steps of one": (1, lambda x: x[torch.arange(0, 3, 1)], (3, 5)),
        "every second entry": (1, lambda x: x[torch.arange(0, 3, 2)], (3, 5)),
        "all but the first": (1, lambda x: x[torch.arange(1, 4)], (4, 5)),
        "the first ones": (1, lambda x: x[torch.arange(3)], (4, 5)),
        "every entry, shifted by nothing": (1, lambda x: x[torch.arange(3) + 0], (3, 5)),
        "every entry, shifted": (1, lambda x: x[torch.arange(3) + 1], (4, 5)),
        "every entry, backwards": (1, lambda x: x[2 - torch.arange(3)], (3, 5)),
        "every entry of two": (1, lambda x: x[torch.arange(3)[:, None], torch.arange(5)], (3, 5, 2)),
        "a diagonal": (1, lambda x: x[torch.arange(3), torch.arange(3)], (3, 3, 2)),
        "the last": (2, lambda x: x[..., NUMBERS], (2, 5, 3)),
    },
    "index_put": {
        "without the dimensions in front": (2, lambda x, y: A.index_put(x, [None, NUMBERS[:2]], y), (5, 3, 7), (2, 7)),
        "with them": (2, lambda x, y: A.index_put(x, [None, NUMBERS[:2]], y), (5, 3, 7), (5, 2, 7)),
        "the same for all in front": (2, lambda x, y: A.index_put(x, [None, NUMBERS[:2]], y), (5, 3, 7), (1, 2, 7)),
        "the same for all behind": (2, lambda x, y: A.index_put(x, [None, NUMBERS[:2]], y), (5, 3, 7), (5, 2, 1)),
        "one number": (2, lambda x, y: A.index_put(x, [None, NUMBERS[:2]], y), (5, 3, 7), ()),
        "two dimensions side by side": (2, lambda x, y: A.index_put(x, [None, PAIRS, NUMBERS], y), (2, 3, 4, 5), (2, 2, 3, 5)),
        "two dimensions apart": (1, lambda x, y: A.index_put(x, [NUMBERS, None, NUMBERS], y), (3, 5, 4), (3, 5)),
        "a mask": (1, lambda x, y: A.index_put(x, [MASK], y), (3, 5), (2, 5)),
        "a mask that is computed": (1, lambda x, y, z: A.index_put(x, [z > -1], y), (3, 5), (5,), (3,)),
        "a mask and numbers": (1, lambda x, y: A.index_put(x, [MASK, NUMBERS[:2]], y), (3, 5, 7), (2, 7)),
        "numbers that are computed": (1,
            lambda x, y, z: A.index_put(x, [(z * 2).long()], y, True), (3, 5), (4, 5), (4,),
        ),
        "the last": (1, lambda x, y: A.index_put(x, [None, NUMBERS[:2]], y), (5, 3), (5, 2)),
    },
    "scatter": {
        "along the last": (0, lambda x, y: x.scatter(-1, PAIRS, y), (2, 5), (2, 3)),
        "one number": (0, lambda x: x.scatter(1, PAIRS, 2.0), (2, 5)),
        "only the first rows": (0, lambda x, y: x.scatter(1, PAIRS, y), (4, 5), (2, 3)),
        "from the first rows": (0, lambda x, y: x.scatter(1, PAIRS, y), (2, 5), (4, 3)),
        "added": (0, lambda x: x.scatter(0, PAIRS, 2.0, reduce="add"), (3, 3)),
    },
    "scatter_add": {
        "along the last": (0, lambda x, y: x.scatter_add(-1, PAIRS, y), (2, 5), (2, 3)),
        "more than is read": (0, lambda x, y: x.scatter_add(1, PAIRS, y), (2, 5), (2, 4)),
        "numbers that are computed": (2, lambda x, y, z: x.scatter_add(0, (z * 2).long(), y), (3, 5), (4, 5), (4, 5)),
    },
    "index_add": {
        "along the last": (1, lambda x, y: x.index_add(-1, NUMBERS, y), (2, 5), (2, 3)),
        "to a number": (0, lambda x, y: x.index_add(0, torch.tensor([0]), y), (), ()),
        "numbers that are computed": (2, lambda x, y, z: x.index_add(0, (z * 2).long(), y), (3, 5), (4, 5), (4,)),
    },
    "index_copy": {
        "numbers that are computed": (1,
            lambda x, y, z: x.index_copy(0, (z * 0).long() + NUMBERS, y), (4, 5), (3, 5), (3,)),
    },
    "index_fill": {"by a tensor": (1, lambda x, y: x.index_fill(-1, NUMBERS, y), (2, 5), ())},
    "gather": {
        "along the last": (0, lambda x: x.gather(-1, PAIRS), (2, 5)),
        "only the first rows": (0, lambda x: x.gather(1, PAIRS), (4, 5)),
        "numbers that are computed": (1, lambda x, y: x.gather(0, (y * 2).long()), (3, 5), (4, 5)),
    },
    "segment_reduce": {
        "each row's own": (1,
            lambda x: torch.segment_reduce(x, "sum", lengths=torch.tensor([[2, 1], [1, 2]]), axis=1), (2, 3, 5),
        ),
    },
    "native_batch_norm": {"no scale": (3, lambda x: functional.batch_norm(x, None, None, training=True), (4, 3, 5))},
    "native_layer_norm": {
        "the last": (3, lambda x, w: functional.layer_norm(x, (5,), w), (2, 3, 5), (5,)),
        "no scale": (3, lambda x: functional.layer_norm(x, (3, 5)), (2, 3, 5)),
    },
    "native_group_norm": {
        "a group for each channel": (3, lambda x, w: functional.group_norm(x, 5, w), (3, 5, 7), (5,)),
        "groups of two": (3, lambda x: functional.group_norm(x, 5), (3, 10, 7)),
        "one group": (3, lambda x, w, b: functional.group_norm(x, 1, w, b), (3, 5, 7), (5,), (5,)),
        "groups cut across parts": (2, lambda x: functional.group_norm(_flat(x), 5), (3, 2, 5, 7)),
    },
    "where": {"numbers without a dimension": (2, lambda x, y: torch.where(x > 0.5, x, y), (2, 3), ())},
    "lerp": {"from the right": (3, lambda x, y, z: torch.lerp(x, y, z), (5,), (2, 3, 5), (3, 1))},
    "triu": {"of many": (2, torch.triu, (2, 3, 5, 5))},
    "as_strided": {
        "transposed": (0, lambda x: x.as_strided((3, 3), (1, 3)) * 2, (3, 3)),
        "where it lies": (2, lambda x: x[1:].as_strided((2, 3), (3, 1)) * 2, (3, 3)),
        "later": (2, lambda x: x[1:].as_strided((2, 3), (3, 1), 3) * 2, (3, 3)),
        "from the start again": (0, lambda x: x[1:].as_strided((2, 3), (3, 1), 0) * 2, (3, 3)),
        "fewer": (0, lambda x: x.as_strided((2, 3), (3, 1)) * 2, (3, 3)),
        "ones step anywhere": (2, lambda x: x.as_strided((3, 5, 1, 1), (5, 1, 5, 5)) * 2, (3, 5, 1, 1)),  # average pooling
    },
    "bincount": {"weighted": (0, lambda w: torch.bincount(NUMBERS, w), (3,))},
    "unique_consecutive": {
        "and how many": (0, lambda x: torch.unique_consecutive(x.round(), return_counts=True), (7,)),
    },
    "_unique2": {"and which": (0, lambda x: torch.unique(x.round(), return_inverse=True), (7,))},
    "sum": {
        "two dimensions": (3, lambda x: x.sum((0, -1)), (2, 3, 5)),
        "kept as one": (3, lambda x: x.sum(-1, keepdim=True), (2, 3, 5)),
        "all, kept as one": (2, lambda x: A.sum.dim_IntList(x, None, True), (2, 3)),
        "no dimension": (2, lambda x: A.sum.dim_IntList(x, []), (2, 3)),
        "of a number": (0, lambda x: x.sum(0), ()),
    },
    "amax": {"kept as one": (3, lambda x: x.amax(1, keepdim=True), (2, 3, 5))},
    "var_mean": {"kept as one": (3, lambda x: torch.var_mean(x, -2, keepdim=True), (2, 3, 5))},
    "argmax": {
        "of all": (0, torch.argmax, (3, 5)),
        "kept as one": (2, lambda x: x.argmax(-1, keepdim=True), (2, 3, 5)),
        "of a number": (0, lambda x: x.argmax(0), ()),
    },
    "max": {
        "of all": (2, torch.max, (3, 5)),
        "values alone": (3, lambda x: x.max(-1).values, (2, 3, 5)),
        "where": (2, lambda x: x.max(-1, keepdim=True).indices, (2, 3, 5)),
    },
    "min": {"of all": (2, torch.min, (3, 5)), "where": (1, lambda x: x.min(0), (3, 5))},
    "median": {"of all": (2, torch.median, (3, 5)), "values alone": (2, lambda x: x.median(0).values, (3, 5))},
    "nanmedian": {"of all": (2, torch.nanmedian, (3, 5))},
    "mode": {"values alone": (2, lambda x: x.round().mode(1).values, (3, 5))},
    "kthvalue": {"values alone": (1, lambda x: x.kthvalue(2, 1).values, (3, 5))},
    "cumsum": {"the last": (1, lambda x: x.cumsum(-1), (3, 5)), "of a number": (0, lambda x: x.cumsum(0), ())},
    "flip": {"two dimensions": (1, lambda x: x.flip(0, -1), (2, 3, 5)), "nothing": (0, lambda x: x.flip(()) * 2, (3, 5))},
    "roll": {"all, in a row": (0, lambda x: x.roll(2), (3, 5))},
    "topk": {"as many as there are": (1, lambda x: x.topk(5), (3, 5))},
    "view": {
        "in a row": (3, lambda x: x.view(-1), (2, 3, 5)),
        "the last two": (3, lambda x: x.view(2, 15), (2, 3, 5)),
        "out of a row": (2, lambda x: x.view(3, 4), (12,)),
        "out of two": (4, lambda x: x.view(3, 2, 2, 5), (6, 10)),
        "the same": (3, lambda x: x.view(2, 3, 5), (2, 3, 5)),
        "with ones": (2, lambda x: x.view(1, 2, 1, 3, 1), (2, 1, 3)),
        "a one": (0, lambda x: x.view(1), ()),
        "a number": (0, lambda x: x.view(()), (1, 1)),
        "empty": (1, lambda x: x.view(4, 0), (2, 0)),
        "out of a product": (4, lambda x: _flat(x).view(3, 2, 5, 2), (3, 2, 5, 2)),
        "across a product": (2, lambda x: _flat(x).view(3, 5, 2, 2), (3, 2, 5, 2)),
        "across dimensions": (0, lambda x: x.view(4, 6), (6, 4)),
        "a part and the next": (3, lambda x: x.view(2, 12), (4, 6)),
        "parts side by side": (1, lambda x, y: torch.cat([x, y]).view(2, 4), (3,), (5,)),
    },
    "permute": {"from the end": (3, lambda x: x.permute(-1, 0, 1), (2, 3, 5))},
    "transpose": {
        "from the end": (3, lambda x: x.transpose(-1, -3), (2, 3, 5)),
        "the first two": (3, lambda x: x.transpose(0, 1), (2, 3, 5)),
    },
    "t": {"of a vector": (1, torch.t, (3,))},
    "squeeze": {
        "all": (2, torch.squeeze, (1, 3, 1, 5)),
        "two": (2, lambda x: x.squeeze((0, -2)), (1, 3, 1, 5)),
        "what is empty": (1, lambda x: x.squeeze(1) * 2, (0, 1, 3)),
        "what isn't one": (1, lambda x: x.squeeze(1) * 2, (1, 3)),
    },
    "unsqueeze": {"behind": (2, lambda x: x.unsqueeze(-1), (3, 5)), "before the last": (2, lambda x: x.unsqueeze(-2), (3, 5))},
    "expand": {
        "in front and within": (3, lambda x: x.expand(2, -1, 5), (3, 1)),
        "as it is": (2, lambda x: x.expand(3, 5) * 2, (3, 5)),
    },
    "repeat": {
        "once": (2, lambda x: x.repeat(1, 1), (3, 5)),
        "what is one": (2, lambda x: x.repeat(1, 4), (3, 1)),
        "never": (2, lambda x: x.repeat(0, 1), (3, 5)),
        "what is empty": (2, lambda x: x.repeat(2, 2), (0, 5)),
    },
    "cat": {
        "the last": (3, lambda x, y: torch.cat([x, y, x], -1), (3, 5), (3, 2)),
        "with nothing": (2, lambda x, y: torch.cat([y, x]), (3, 5), (0,)),
        "with what is empty": (2, lambda x, y: torch.cat([x, y]), (3, 5), (0, 5)),
        "of one": (2, lambda x: torch.cat([x]) * 2, (3, 5)),
        "of vectors": (2, lambda x, y: torch.cat([x, y]), (3,), (5,)),
        "of ones": (1, lambda x, y: torch.cat([x, y], 1), (3, 1), (3, 1)),
    },
    "stack": {
        "behind": (2, lambda x, y: torch.stack([x, y], -1), (3, 5), (3, 5)),
        "in front": (1, lambda x, y: torch.stack([x, y]), (3,), (3,)),
    },
    "split": {"the last": (4, lambda x: x.split(2, -1), (3, 7)), "the first": (3, lambda x: x.split(2), (4, 3))},
    "split_with_sizes": {
        "one of them empty": (3, lambda x: x.split([2, 0, 3], -1), (2, 5)),
        "across parts": (1, lambda x: _flat(x).split([3, 7], 1), (3, 2, 5)),
        "between parts": (2, lambda x: _flat(x).split([5, 5], 1), (3, 2, 5)),
    },
    "slice": {
        "the middle": (3, lambda x: x[..., 1:3], (3, 5)),
        "from the end": (2, lambda x: x[-2:], (3, 5)),
        "nothing": (2, lambda x: x[:, 2:2], (3, 5)),
        "every second": (2, lambda x: x[:, ::2], (3, 6)),
        "every second, from the second": (2, lambda x: x[:, 1::2], (3, 6)),
        "every second of an odd number": (1, lambda x: x[:, ::2], (3, 5)),
        "every second of the first": (1, lambda x: x[:, :4:2], (3, 6)),
        "every fourth, once": (1, lambda x: x[:, 1:2:4], (3, 6)),
        "every second across a product": (1, lambda x: _flat(x)[:, ::5], (3, 5, 2)),
        "every fifth of a product": (2, lambda x: _flat(x)[:, ::5], (3, 2, 5)),
        "across parts": (1, lambda x: _flat(x)[:, 3:], (3, 2, 5)),
    },
    "slice_copy": {"all": (2, lambda x: torch.slice_copy(x, 1, 0, 5), (3, 5))},
    "select": {"the last": (2, lambda x: x[..., 0], (2, 3, 5)), "the first": (2, lambda x: x[1], (2, 3, 5))},
    "unbind": {"the last": (2, lambda x: x.unbind(-1), (2, 3, 5))},
    "constant_pad_nd": {
        "three dimensions": (3, lambda x: functional.pad(x, (1, 2, 0, 3, 1, 0)), (2, 3, 5)),
        "nothing": (3, lambda x: A.constant_pad_nd(x, [0, 0, 1, 0]), (2, 3, 5)),
        "in front alone": (2, lambda x: functional.pad(x, (2, 0)), (2, 3)),
        "cropped": (1, lambda x: functional.pad(x, (-1, 0)), (2, 5)),
        "cropped at the end": (1, lambda x: functional.pad(x, (2, -1)), (2, 5)),
        "cropped before the last": (2, lambda x: functional.pad(x, (0, 0, -1, -1)), (2, 5, 3)),
    },
    "glu": {
        "not the last": (3, lambda x: functional.glu(x, 1), (2, 6, 5)),
        "a product": (3, lambda x: functional.glu(_flat(x), 1), (3, 2, 5, 7)),
    },
    "diagonal": {
        "of the last two": (2, lambda x: x.diagonal(dim1=-2, dim2=-1), (2, 3, 3)),
        "of dimensions apart": (2, lambda x: x.diagonal(0, 2, 0), (3, 5, 3)),
        "above": (1, lambda x: x.diagonal(1), (3, 3, 5)),
        "below": (0, lambda x: x.diagonal(-1), (3, 3)),
        "of a rectangle": (0, lambda x: x.diagonal(), (3, 5)),
    },
    "diag_embed": {
        "above": (1, lambda x: torch.diag_embed(x, 2), (2, 3)),
        "below": (1, lambda x: torch.diag_embed(x, -1), (2, 3)),
        "in front": (2, lambda x: torch.diag_embed(x, 0, 0, 1), (2, 3)),
        "on both sides": (2, lambda x: torch.diag_embed(x, 0, 2, 0), (2, 3)),
    },
    "avg_pool2d": {"no batch": (1, lambda x: A.avg_pool2d(x, [2, 2]), (3, 6, 8))},
    "max_pool2d_with_indices": {"no batch": (1, lambda x: functional.max_pool2d(x, 2, return_indices=True), (3, 6, 8))},
    "replication_pad1d": {"no batch": (1, lambda x: A.replication_pad1d(x, [1, 2]), (3, 6))},
    "max_unpool2d": {"no batch": (0, lambda x: functional.max_unpool2d(x, torch.tensor([[[0], [6]]] * 3), 2), (3, 2, 1))},
    "pixel_shuffle": {
        "no batch": (1, lambda x: torch.pixel_shuffle(x, 2), (12, 2, 5)),
        "of nothing but positions": (1, lambda x: torch.pixel_shuffle(x, 2), (3, 4, 2, 5)),
        "across parts": (1, lambda x: torch.pixel_shuffle(_flat(x), 2), (3, 4, 3, 2, 5)),
        "of parts": (2, lambda x: torch.pixel_shuffle(_flat(x), 2), (3, 5, 4, 2, 7)),
    },
    "pixel_unshuffle": {"no batch": (1, lambda x: torch.pixel_unshuffle(x, 2), (3, 4, 6))},
    "channel_shuffle": {"across parts": (3, lambda x: torch.channel_shuffle(_flat(x), 5), (3, 2, 5, 7, 2))},
    "im2col": {
        "no batch": (1, lambda x: functional.unfold(x, (2, 3)), (3, 4, 5)),
        "a kernel of a row": (2, lambda x: functional.unfold(x, (1, 3)), (2, 3, 4, 5)),
    },
    "col2im": {
        "no batch": (1, lambda x: functional.fold(x, (3, 4), 2), (12, 6)),
        "across parts": (1, lambda x: functional.fold(_flat(x), (3, 4), (1, 2)), (3, 2, 5, 9)),
    },
    "lstm": {
        "steps first": (3, lambda *a: _lstm(*a, first=False), (4, 2, 5), (1, 2, 3), (1, 2, 3), (12, 5), (12, 3), (12,), (12,)),
        "no biases": (3, lambda *a: _lstm(*a, bias=False), (2, 4, 5), (1, 2, 3), (1, 2, 3), (12, 5), (12, 3)),
        "two layers": (3,
            lambda *a: _lstm(*a, layers=2), (2, 4, 5), (2, 2, 3), (2, 2, 3),
            (12, 5), (12, 3), (12,), (12,), (12, 3), (12, 3), (12,), (12,),
        ),
        "both ways": (3,
            lambda *a: _lstm(*a, both=True), (2, 4, 5), (2, 2, 3), (2, 2, 3), *[(12, 5), (12, 3), (12,), (12,)] * 2,
        ),
        "two layers, both ways": (3,
            lambda *a: _lstm(*a, both=True, layers=2, bias=False), (2, 4, 5), (4, 2, 3), (4, 2, 3),
            *[(12, 5), (12, 3)] * 2, *[(12, 6), (12, 3)] * 2,
        ),
        "projected": (4, _lstm, (2, 4, 5), (1, 2, 3), (1, 2, 7), (28, 5), (28, 3), (28,), (28,), (3, 7)),
        "projected, no biases": (4, lambda *a: _lstm(*a, bias=False), (2, 4, 5), (1, 2, 3), (1, 2, 7), (28, 5), (28, 3), (3, 7)),
    },
    "gru": {
        "steps first": (3,
            lambda x, h, *w: torch.gru(x, h, w, False, 1, 0.0, False, False, False), (4, 2, 5), (1, 2, 3), (9, 5), (9, 3),
        ),
        "both ways": (3,
            lambda x, h, *w: torch.gru(x, h, w, False, 1, 0.0, False, True, True),
            (2, 4, 5), (2, 2, 3), *[(9, 5), (9, 3)] * 2,
        ),
    },
}  # fmt: skip

CORNERS: dict[str, tuple[str, Case]] = {
    f"{rule}: {what}": (rule, Case(function, tuple(operands), free))
    for rule, cases in _CORNERS.items()
    for what, (free, function, *operands) in cases.items()
}
"""A rule, and a call with the number of axes that it leaves free."""
