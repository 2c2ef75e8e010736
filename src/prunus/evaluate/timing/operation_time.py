"""How long does one operation take, alone, in a runtime on this machine?

Each is made anew at the sizes in question: a call of torch, or an ONNX graph of one node. The lower quartile of a few runs
counts, so that what else the machine does hardly shows.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunus.core.code.extras import require
from prunus.evaluate.timing.latency import finish, pick_clock
from prunus.evaluate.timing.onnx_session import open_session

__all__ = ["time_operation"]

_RUNS, _LEAST_S = 9, 0.004


def time_operation(
    runtime: str, kind: str, sizes: tuple[int, ...], fixed: tuple[Any, ...], device: str = "cpu"
) -> float:
    """Return milliseconds of one operation of ``prunus.graph.costs.timed_operations``, whose leading sizes are multiplied together.

    Args:
        sizes: (batch, in, out) or (batch, out) of a convolution, (rows, in, out), (batches, rows, inner, columns), the six of
            attention, or (numbers,) of a move.
        device: on which torch computes.
    """
    call = _in_torch(kind, sizes, fixed, device) if runtime == "torch" else _in_onnx(kind, sizes, fixed)
    with torch.inference_mode():
        for _ in range(2):
            call()
        finish(device)
        _, clock = pick_clock("auto", torch.empty(0, device=device))
        taken: list[float] = []
        while len(taken) < _RUNS or (sum(taken) < _LEAST_S and len(taken) < 50):
            start = clock()
            call()
            finish(device)
            taken.append(clock() - start)
    return 1000 * float(np.quantile(taken, 0.25))


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator())


def _in_torch(kind: str, sizes: tuple[int, ...], fixed: tuple[Any, ...], device: str) -> Callable[[], Any]:
    if kind == "convolution":
        *drawn, groups = _convolution(sizes, fixed)
        given, weight = (tensor.to(device) for tensor in drawn)
        _, _, stride, padding, dilation, transposed, _ = fixed
        steps = [0] * len(stride)
        return lambda: torch.convolution(given, weight, None, stride, padding, dilation, transposed, steps, groups)
    if kind == "linear":
        rows, n_in, n_out = sizes
        one, two = _random(rows, n_in).to(device), _random(n_out, n_in).to(device)
        return lambda: functional.linear(one, two)
    if kind == "product":
        batches, rows, inner, columns = sizes
        left, right = _random(batches, rows, inner).to(device), _random(batches, inner, columns).to(device)
        return lambda: torch.bmm(left, right)
    if kind == "attention":
        query, key, value = (tensor.to(device) for tensor in _attention(sizes))
        return lambda: functional.scaled_dot_product_attention(query, key, value)
    moved = _random(sizes[0]).to(device)
    return lambda: torch.relu(moved)


def _convolution(sizes: tuple[int, ...], fixed: tuple[Any, ...]) -> tuple[Tensor, Tensor, int]:
    """Return an input and a weight, and the number of groups."""
    space, kernel, *_, transposed, each = fixed
    if each is None:
        batch, n_in, n_out = sizes
        groups, inside = 1, (n_in, n_out)
    else:
        groups = max(1, sizes[1] // each[1])
        batch, n_in, inside = sizes[0], groups * each[0], each
    outer = (inside[0] * groups, inside[1]) if transposed else (inside[1] * groups, inside[0])
    return _random(batch, n_in, *space), _random(*outer, *kernel), groups


def _attention(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, width, keys, value_width = sizes
    return (
        _random(batch, heads, queries, width),
        _random(batch, heads, keys, width),
        _random(batch, heads, keys, value_width),
    )


def _in_onnx(kind: str, sizes: tuple[int, ...], fixed: tuple[Any, ...]) -> Callable[[], Any]:
    helper = require("onnx.helper", extra="onnx")
    numpy_helper = require("onnx.numpy_helper", extra="onnx")
    given: dict[str, Tensor]
    held: dict[str, Tensor] = {}
    node = helper.make_node
    if kind == "convolution":
        x, weight, groups = _convolution(sizes, fixed)
        _, kernel, stride, padding, dilation, transposed, _ = fixed
        given, held = {"x": x}, {"w": weight}
        settings = {"strides": stride, "pads": [*padding, *padding], "dilations": dilation, "group": groups}
        nodes = [node("ConvTranspose" if transposed else "Conv", ["x", "w"], ["y"], kernel_shape=kernel, **settings)]
    elif kind == "linear":
        rows, n_in, n_out = sizes
        given, held = {"x": _random(rows, n_in)}, {"w": _random(n_in, n_out)}
        nodes = [node("MatMul", ["x", "w"], ["y"])]
    elif kind == "product":
        batches, rows, inner, columns = sizes
        given = {"x": _random(batches, rows, inner), "w": _random(batches, inner, columns)}
        nodes = [node("MatMul", ["x", "w"], ["y"])]
    elif kind == "attention":
        query, key, value = _attention(sizes)
        given = {"x": query, "k": key.transpose(2, 3).contiguous(), "v": value}
        nodes = [
            node("MatMul", ["x", "k"], ["scores"]),
            node("Softmax", ["scores"], ["weights"], axis=-1),
            node("MatMul", ["weights", "v"], ["y"]),
        ]
    else:
        given = {"x": _random(prod(sizes))}
        nodes = [node("Relu", ["x"], ["y"])]
    number = 1  # onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info(name, number, list(value.shape)) for name, value in given.items()],
        [helper.make_tensor_value_info("y", number, None)],
        [numpy_helper.from_array(value.numpy(), name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = open_session(model.SerializeToString())
    feed = {name: value.numpy() for name, value in given.items()}
    return lambda: session.run(None, feed)
