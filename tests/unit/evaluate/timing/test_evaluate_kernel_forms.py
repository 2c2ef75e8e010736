"""An exported graph computes what it did, in operations for which runtimes have fast kernels."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.evaluate.timing import onnx_session as module
from prunus.evaluate.timing.onnx_session import OnnxModel, export_onnx
from tests_support import onnxruntime_installed

pytestmark = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")


class Layer(nn.Module):
    """Attention over positions, with a residual stream that norms read after or before its additions."""

    def __init__(self, *, norm_first):
        super().__init__()
        self.first, self.norm_first = nn.Linear(6, 12), norm_first
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.norm_1, self.norm_2 = nn.LayerNorm(12), nn.LayerNorm(12)

    def attend(self, x):
        heads = self.qkv(x).view(*x.shape[:2], 3, 4, 3).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads.unbind(0))
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x):
        y = self.first(x) + x.mean(1, keepdim=True).repeat(1, 1, 2)
        if self.norm_first:
            y = y + self.attend(self.norm_1(y))
            return y * self.norm_2(y)
        return self.norm_2(self.attend(self.norm_1(y)) + y)


def kinds(file):
    import onnx

    model = onnx.load_from_string(file)
    onnx.checker.check_model(model, full_check=True)
    return model.graph, Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("norm_first", [True, False])
def test_no_addition_is_left_for_the_slow_kernel_and_keys_are_turned_at_once(monkeypatch, norm_first):
    torch.manual_seed(0)
    model, example = Layer(norm_first=norm_first).eval(), torch.randn(2, 5, 6)
    file = export_onnx(model, example)
    graph, found = kinds(file)
    made = {output: node.op_type for node in graph.node for output in node.output}
    assert [made[node.input[0]] for node in graph.node if node.op_type == "LayerNormalization"] == ["Sum", "Sum"]
    monkeypatch.setattr(module, "use_fast_forms", lambda graph: None)
    _, before = kinds(export_onnx(model, example))
    assert before["Shape"] > found["Shape"] == 0
    assert found["Reshape"] == before["Reshape"] - 2
    assert found["Transpose"] == before["Transpose"]
    assert found["Slice"] == before["Slice"] - 3
    for size in (1, 4):
        inputs = torch.randn(size, 5, 6)
        with torch.no_grad():
            assert torch.allclose(OnnxModel(file)(inputs), model(inputs), atol=1e-5)


def graph_of(joined, apart, *, rank=4):
    """Return a graph of ``onnx_ir``: reshape, transpose, reshape to sizes that are put together of slices of the input's shape."""
    import onnx
    import onnx_ir
    from onnx import helper

    constants = {"all": [-1], "start": [-(2**63)], "zero": [0], "end": [2**63 - 1], "m1": [-1], "m2": [-2], "m3": [-3]}
    initializers = [helper.make_tensor(name, onnx.TensorProto.INT64, [1], value) for name, value in constants.items()]
    parts = {"before": ("start", "m2"), "too few": ("start", "m3"), "-2": ("m2", "m1"), "-1": ("m1", "end")}
    nodes = [helper.make_node("Shape", ["x"], ["shape"])]
    nodes += [helper.make_node("Slice", ["shape", *ends], [name]) for name, ends in parts.items()]
    nodes += [
        helper.make_node("Concat", joined, ["joined"], axis=0),
        helper.make_node("Reshape", ["x", "joined"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
        helper.make_node("Concat", apart, ["apart"], axis=0),
        helper.make_node("Reshape", ["b", "apart"], ["y"]),
    ]
    shape = [f"s{n}" for n in range(rank)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, [f"t{n}" for n in range(rank)])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx_ir.serde.deserialize_model(model).graph


@pytest.mark.parametrize(
    ("joined", "apart", "rank", "expected"),
    [
        (["all", "-2", "-1"], ["before", "-1", "-2"], 4, [0, 1, 3, 2]),
        (["all", "-2", "-1"], ["before", "-1", "-2"], 3, [0, 2, 1]),
        (["all", "-1", "-2"], ["before", "-1", "-2"], 4, None),  # another reading of the same numbers
        (["all", "-2", "-1"], ["before", "-2", "-1"], 4, None),
        (["all", "-2", "-1"], ["too few", "-1", "-2"], 4, None),
        (["before", "-2", "-1"], ["before", "-1", "-2"], 3, None),
    ],
)
def test_only_reshapes_that_make_a_transposition_become_one(joined, apart, rank, expected):
    graph = graph_of(joined, apart, rank=rank)
    before = [node.op_type for node in graph]
    module.use_fast_forms(graph)
    if expected is None:
        assert [node.op_type for node in graph] == before
    else:
        (node,) = (node for node in graph if node.op_type == "Transpose")
        assert not [node for node in graph if node.op_type in ("Reshape", "Concat")]
        assert list(node.attributes["perm"].value) == expected
        assert [value.name for value in graph.outputs] == [node.outputs[0].name]


class Masked(nn.Module):
    """One attention with a mask that is the same for all examples of a batch, or none."""

    def __init__(self, hidden):
        super().__init__()
        self.qkv = nn.Linear(6, 12)
        shown = torch.ones(1, 1, 5, 5, dtype=torch.bool)
        shown[..., 3:] = not hidden
        self.register_buffer("shown", shown if hidden is not None else None)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 2).permute(2, 0, 3, 1, 4).unbind(0)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=self.shown)


@pytest.mark.parametrize("hidden", [None, False, True])
def test_a_mask_that_hides_nothing_and_the_search_for_hidden_rows_go_and_others_stay(hidden):
    torch.manual_seed(0)
    model = Masked(hidden).eval()
    file = export_onnx(model, torch.randn(2, 5, 6))
    _, found = kinds(file)
    assert (found["IsNaN"], found["Where"]) == ((1, 1) if hidden else (0, 0))
    for size in (1, 3):
        inputs = torch.randn(size, 5, 6)
        with torch.no_grad():
            assert torch.allclose(OnnxModel(file)(inputs), model(inputs), atol=1e-5)


def masked_graph(scores, mask, *, shown=1, kept=0.0):
    """Return a graph of ``onnx_ir`` that adds a mask, spread to a shape, to what an input of another shape is."""
    import onnx
    import onnx_ir
    from onnx import helper

    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["shown", "sizes"], ["wide"]),
            helper.make_node("Where", ["wide", "kept", "lost"], ["mask"]),
            helper.make_node("Add", ["x", "mask"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["y"]),
        ],
        "g",
        [info("x", 1, scores), info("sizes", onnx.TensorProto.INT64, [len(mask)])],
        [info("y", 1, None)],
        [
            helper.make_tensor("shown", onnx.TensorProto.BOOL, [2], [1, shown]),
            helper.make_tensor("kept", 1, [], [kept]),
            helper.make_tensor("lost", 1, [], [-1e9]),
        ],
        value_info=[info("mask", 1, mask)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx_ir.serde.deserialize_model(model).graph


@pytest.mark.parametrize(
    ("scores", "mask", "facts", "goes"),
    [
        (["n", 3, 2], ["n", 1, 2], {}, True),
        (["n", 3, 2], [1, 2], {}, True),
        (["n", 3, 2], ["m", 3, 2], {}, False),  # it may spread what it is added to
        ([1, 3, 2], [4, 3, 2], {}, False),
        ([3, 2], ["n", 3, 2], {}, False),
        ([None, 3, 2], ["n", 3, 2], {}, False),
        (["n", 3, 2], ["n", 1, 2], {"shown": 0}, False),
        (["n", 3, 2], ["n", 1, 2], {"kept": 0.5}, False),
    ],
)
def test_a_mask_goes_only_where_what_it_is_added_to_stays_as_it_is(scores, mask, facts, goes):
    graph = masked_graph(scores, mask, **facts)
    module.use_fast_forms(graph)
    assert ("Add" in [node.op_type for node in graph]) is not goes


@pytest.mark.parametrize(("masked", "goes"), [(False, True), (True, False)])
def test_rows_are_searched_for_nan_where_their_scores_are_no_mere_product(masked, goes):
    import onnx_ir
    from onnx import helper

    info = helper.make_tensor_value_info
    scores = [
        helper.make_node("MatMul", ["x", "x"], ["product"]),
        helper.make_node("Mul", ["product", "half"], ["half p"]),
    ]
    added = [helper.make_node("Add", ["half p", "x"], ["scores"])] if masked else []
    nodes = [
        *scores,
        *added,
        helper.make_node("Softmax", ["scores" if masked else "half p"], ["weights"]),
        helper.make_node("IsNaN", ["weights"], ["lost"]),
        helper.make_node("Where", ["lost", "zero", "weights"], ["guarded"]),
        helper.make_node("Relu", ["guarded"], ["y"]),
    ]
    numbers = [helper.make_tensor("half", 1, [], [0.5]), helper.make_tensor("zero", 1, [], [0.0])]
    graph = helper.make_graph(nodes, "g", [info("x", 1, [2, 2])], [info("y", 1, [2, 2])], numbers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = onnx_ir.serde.deserialize_model(model).graph
    module.use_fast_forms(made)
    assert ("Where" not in [node.op_type for node in made]) is goes
