"""Zeros are marked for sparse kernels where those are faster, in the block that they are in, and never where they cost time."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from prunus.evaluate.timing.onnx_session import export_onnx
from prunus.ship.mnn.mnn_file import compression_params, run_mnn, write_mnn
from prunus.ship.mnn.mnn_zeros import WeightLayer, best_block, relative_time, weight_layers
from tests_support import onnxruntime_installed

needs_onnx = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")
needs_mnn = pytest.mark.skipif(
    not onnxruntime_installed() or importlib.util.find_spec("MNN") is None, reason="the extra mnn isn't installed"
)


def weights(density: float, block: int, shape: tuple[int, int] = (64, 256)) -> np.ndarray:
    """Return weights of which a share, in blocks of so many rows, isn't zero."""
    random = np.random.default_rng(0)
    kept = random.random((shape[0] // block, shape[1])) < density
    return np.where(np.repeat(kept, block, axis=0), random.standard_normal(shape), 0)


@pytest.mark.parametrize("rows", [8, 10, 3])
def test_a_density_counts_blocks_as_a_loop_would(rows):
    weight = weights(0.2, 1, (rows, 5))
    whole = rows // 4 * 4
    expected = sum(4 * weight[i : i + 4, j].any() for i in range(0, whole, 4) for j in range(5))
    expected += np.count_nonzero(weight[whole:])
    layer = WeightLayer(weight, 1)
    assert layer.density(4) == pytest.approx(expected / weight.size)
    assert layer.density(1) == np.count_nonzero(weight) / weight.size


@pytest.mark.parametrize(
    ("density", "block", "kind", "best"),
    [
        (1.0, 1, "many", None),
        (0.5, 1, "many", None),
        (0.1, 1, "many", 1),
        (0.5, 4, "many", 4),
        (0.1, 4, "many", 4),
        (0.2, 1, "winograd", None),
        (0.5, 4, "winograd", None),
        (0.1, 4, "winograd", 4),
        (0.1, 1, "single", None),
        (0.1, 4, "single", 4),
        (0.1, 4, "grouped", None),
    ],
)
def test_the_block_is_the_faster_one_and_none_where_zeros_cost_time(density, block, kind, best):
    layers = [WeightLayer(weights(density, block), 49, kind)]
    assert best_block(layers) == best
    assert best is None or relative_time(layers, best) < 0.95


def test_the_layers_with_most_work_decide():
    slow, fast = WeightLayer(weights(0.2, 1), 1, "winograd"), WeightLayer(weights(0.05, 1), 1)
    assert best_block([slow, WeightLayer(fast.weight, 100)]) == 1
    assert best_block([WeightLayer(slow.weight, 100, "winograd"), fast]) is None
    assert best_block([]) is None


class Mixed(nn.Module):
    """One layer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, 3, padding=1)
        self.strided = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.point = nn.Conv2d(8, 16, 1)
        self.tokens = nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.point(self.grouped(self.strided(self.wide(x).relu()).relu()).relu()).relu()
        return self.head(self.tokens(y.flatten(2).transpose(1, 2)).mean(1))


@needs_onnx
def test_layers_are_read_with_their_kind_positions_and_outputs_first():
    torch.manual_seed(0)
    model = Mixed().eval()
    found = weight_layers(export_onnx(model, torch.randn(2, 3, 8, 8)))
    assert [(layer.kind, layer.positions) for layer in found] == [
        ("winograd", 64),
        ("many", 16),
        ("grouped", 16),
        ("many", 16),
        ("many", 16),
        ("single", 1),
    ]
    for layer, name in zip(found, ("wide", "strided", "grouped", "point", "tokens", "head"), strict=True):
        weight = model.get_submodule(name).weight.detach().flatten(1).numpy()
        assert np.array_equal(layer.weight, weight)


def test_the_message_to_the_converter_is_what_protobuf_writes():
    protobuf = pytest.importorskip("google.protobuf")
    assert protobuf
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="m.proto", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for field, number, kind, label, of in fields:
            made.field.add(name=field, number=number, type=kind, label=label, type_name=of and f".{of}")

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    message("Oc", ("oc_blocks", 4, kinds.TYPE_INT32, many, None))
    message(
        "Prune", ("type", 1, kinds.TYPE_INT32, one, None), ("simd_oc_pruner_params", 3, kinds.TYPE_MESSAGE, one, "Oc")
    )
    message("Algo", ("type", 1, kinds.TYPE_INT32, one, None), ("prune_params", 3, kinds.TYPE_MESSAGE, one, "Prune"))
    message("Pipeline", ("version", 1, kinds.TYPE_STRING, one, None), ("algo", 2, kinds.TYPE_MESSAGE, many, "Algo"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    pipeline = message_factory.GetMessageClass(pool.FindMessageTypeByName("Pipeline"))
    for block in (1, 4):
        read = pipeline.FromString(compression_params(block))
        assert read.version == "0.0.0"
        assert [algo.type for algo in read.algo] == [1]
        prune = read.algo[0].prune_params
        assert (prune.type, list(prune.simd_oc_pruner_params.oc_blocks)) == ((0, []) if block == 1 else (1, [block]))


@needs_mnn
@pytest.mark.parametrize("block", [1, 4])
def test_a_marked_file_answers_the_same_from_fewer_bytes(tmp_path, block):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 1), nn.ReLU(), nn.Conv2d(128, 66, 3, padding=1)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            flat = layer.weight.flatten(1)
            kept = torch.rand(-(-flat.shape[0] // block), flat.shape[1]) < 0.1
            flat *= kept.repeat_interleave(block, dim=0)[: len(flat)]
    x = torch.randn(2, 64, 9, 9)
    file = export_onnx(model, x)
    assert best_block(weight_layers(file)) == block
    sizes = {}
    for mark in (None, block):
        path = tmp_path / f"{mark}.mnn"
        write_mnn(file, path, block=mark)
        with torch.no_grad():
            assert torch.allclose(run_mnn(path, [x])[0], model(x), atol=1e-4)
        sizes[mark] = path.stat().st_size
        assert (b"sparseBlockOC" in path.read_bytes()) == (mark is not None)
    assert sizes[block] < 0.4 * sizes[None]
