"""A file in int8 holds whole numbers where it should, answers nearly as before, and keeps in float what is wanted in float."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from prunus.core.errors import ModelError
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from prunus.ship.quantize.onnx_int8 import DynamicInt8, StaticInt8, method_for, prepared
from prunus.ship.quantize.put_back import relative_error


def network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    )
    model[1].running_mean.uniform_(-0.2, 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def file():
    return prepared(export_onnx(network(), torch.zeros(2, 3, 8, 8)))


@pytest.fixture(scope="module")
def static(file, images):
    return StaticInt8(file, [{"input": part.numpy()} for part in images.split(16)])


def stored(file):
    """Return the weights in int8 of a file, by name."""
    graph = onnx.load_from_string(file).graph
    return {
        t.name: numpy_helper.to_array(t)
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    }


def test_preparing_changes_no_answer_and_names_every_node(file, images):
    assert relative_error([network()(images).detach()], OnnxModel(file).outputs(images)) < 1e-5
    nodes = onnx.load_from_string(file).graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    assert "BatchNormalization" not in {node.op_type for node in nodes}


def test_all_layers_are_int8_and_the_answers_nearly_the_same(static, file, images):
    made = static.of_all_but(())
    assert len(stored(made)) == len(static.layers) == 3
    assert 0 < relative_error(OnnxModel(file).outputs(images), OnnxModel(made).outputs(images)) < 0.05
    assert static.of_all_but(()) == made, "the same ranges give the same bytes"


def test_a_layer_stays_in_float_or_is_the_only_one_in_int8(static, images, file):
    first = static.layers[0]
    assert len(stored(static.of_all_but([first]))) == 2
    assert len(stored(static.of_only(first))) == 1
    alone = relative_error(OnnxModel(file).outputs(images), OnnxModel(static.of_only(first)).outputs(images))
    assert 0 < alone < 0.05


def test_the_whole_numbers_are_those_of_the_formula():
    """Dynamic: a product's weight is rounded to 127ths of the largest modulus of each of its columns."""
    torch.manual_seed(0)
    linear = nn.Linear(16, 6, bias=False)
    int8 = DynamicInt8(prepared(export_onnx(nn.Sequential(linear), torch.zeros(2, 4, 16))))
    (found,) = stored(int8.of_all_but(())).values()
    weight = linear.weight.detach().numpy().T
    scale = np.abs(weight).max(axis=0) / 127
    assert np.abs(found - weight / scale).max() <= 0.51


def test_what_convolves_is_static_and_what_multiplies_dynamic(file):
    assert method_for(file) == "static"
    assert method_for(prepared(export_onnx(nn.Linear(4, 4), torch.zeros(2, 3, 4)))) == "dynamic"


def test_a_model_without_layers_of_the_kind_is_refused():
    with pytest.raises(ModelError, match=r"int8 \(dynamic\) needs layers with stored weights .* the model has none"):
        DynamicInt8(export_onnx(nn.ReLU(), torch.zeros(2, 3)))
    with pytest.raises(ModelError, match="ONNX Runtime can't prepare the model for int8"):
        prepared(b"no file of ONNX")


def test_every_sizes_of_a_batch_are_taken(static, images):
    session = OnnxModel(static.of_all_but(()))
    whole = session.outputs(images)[0]
    assert torch.allclose(torch.cat([session.outputs(part)[0] for part in images.split(3)]), whole, atol=1e-4)
