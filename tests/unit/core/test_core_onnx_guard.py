"""A crafted ONNX file is refused in one line before a runtime sees it; what prunus exports passes."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from patience import no_hang
from prunus.core.errors import WeightsError
from prunus.core.files.onnx_guard import check_onnx
from prunus.evaluate.timing.onnx_session import export_onnx, open_session


def x(name="x"):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])


def ints(name, values, kind=np.int64):
    return numpy_helper.from_array(np.array(values, kind), name)


def model(nodes, initializers=(), *, domains=("",), functions=()):
    graph = helper.make_graph(list(nodes), "g", [x()], [x("y")], list(initializers))
    imports = [helper.make_opsetid(domain, 20) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions))


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


def claims(dims, kind=TensorProto.FLOAT, **values):
    made = model([node("Add", ["x", "w"], ["y"])])
    tensor = made.graph.initializer.add(name="w", data_type=kind, dims=dims)
    for key, value in values.items():
        setattr(tensor, key, value) if isinstance(value, bytes) else getattr(tensor, key).extend(value)
    return made


def outside(location, offset=None, length=None, dims=(4,)):
    made = claims(dims)
    tensor = made.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return made


def nested(depth):
    inner = helper.make_graph([node("Constant", [], ["c"], value_float=1.0)], "i", [], [x("c")])
    for _ in range(depth):
        branch = node(
            "If",
            ["b"],
            ["c"],
            then_branch=inner,
            else_branch=inner if depth < 4 else helper.make_graph([], "e", [], []),
        )
        inner = helper.make_graph([branch], "i", [], [x("c")])
    return model(
        [node("If", ["b"], ["y"], then_branch=inner, else_branch=inner)], [numpy_helper.from_array(np.array(True), "b")]
    )


def calling(depth, times=40, *, itself=False):
    def function(number):
        inner = "f0" if itself else f"f{number + 1}"
        nodes = [helper.make_node(inner, ["a"], ["a2"], domain="own") for _ in range(times)]
        last = [node("Relu", ["a"], ["b"])]
        return helper.make_function(
            "own", f"f{number}", ["a"], ["b"], (nodes if number < depth - 1 or itself else []) + last,
            [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)],
        )  # fmt: skip

    call = helper.make_node("f0", ["x"], ["y"], domain="own")
    made = model([call], functions=[function(number) for number in range(depth)])
    made.opset_import.add(domain="own", version=1)
    return made


def shaped(kind, shape, *, data=None, **attributes):
    inputs = ["s"] if data is None else [data, "s"]
    return model([node(kind, inputs, ["y"], **attributes)], [ints("s", shape)])


def hidden():
    """The size is the product of two constants, the first of them an attribute."""
    nodes = [
        node("Constant", [], ["a"], value=ints("v", [2**20])),
        node("Mul", ["a", "b"], ["c"]),
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["rows"]),
        node("Mul", ["c", "rows"], ["d"]),
        node("Concat", ["d", "b"], ["t"], axis=0),
        node("ConstantOfShape", ["t"], ["y"]),
    ]
    return model(nodes, [ints("b", [2**20]), ints("zero", [0])])


def loop(rounds):
    body = helper.make_graph(
        [node("Identity", ["c"], ["c2"])], "b",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, [])],
    )  # fmt: skip
    return model([node("Loop", ["m", ""], ["y"], body=body)], [ints("m", rounds)])


def sparse():
    made = model([node("Relu", ["x"], ["y"])])
    made.graph.sparse_initializer.add(dims=[2**40])
    return made


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def doubled():
    """One attribute with two tensors, which a parser joins: each alone is right."""
    tensors = [ints("v", values).SerializeToString() for values in ([2, 2], [3])]
    attribute = field(1, b"value") + b"".join(field(5, tensor) for tensor in tensors)
    return field(7, field(1, field(2, b"c") + field(4, b"Constant") + field(5, attribute)))


CRAFTED = {
    "cut": (b"\x08\x07:\xff\xff\xff\xff\x0fabc", "cut off"),
    "noise": (bytes(range(1, 200)), "no protobuf|cut off|no ONNX"),
    "empty": (b"", "no ONNX file"),
    "group": (b"\x0b\x0c", "no protobuf"),
    "endless number": (b"\x08" + b"\xff" * 20, "no protobuf"),
    "two graphs": (model([]).SerializeToString() * 2, "2 graphs"),
    "custom domain": (model([helper.make_node("Steal", ["x"], ["y"], domain="evil")], domains=("", "evil")), "custom.*'evil'"),
    "domain that isn't imported": (model([helper.make_node("Steal", ["x"], ["y"], domain="evil")]), "custom.*'evil'"),
    "reads files": (model([helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")]), "EPContext reads other files"),
    "absolute": (outside("/etc/passwd"), "another file|outside of"),
    "terabytes": (claims([2**40]), "has the shape"),
    "too few": (claims([4], raw_data=b"\0" * 8), "has the shape"),
    "too many": (claims([1], float_data=[1.0, 2.0]), "has the shape"),
    "twice": (claims([1], float_data=[1.0], raw_data=b"\0" * 4), "twice"),
    "negative": (claims([-1], raw_data=b""), "can't have the shape"),
    "overflowing": (claims([2**33, 2**33, 2**33]), "has the shape"),
    "unknown type": (claims([1], kind=99, raw_data=b"\0"), "unknown type 99"),
    "sparse": (sparse(), "sparse"),
    "deep": (nested(9), "more than 6 deep"),
    "calls itself": (calling(1, itself=True), "'f0' calls itself"),
    "laughs": (calling(6), "more than 50000 operations, once"),
    "many nodes": (model([node("Relu", ["x"], ["y"])] * 50_001), "more than 50000 operations"),
    "constant": (shaped("ConstantOfShape", [2**20, 2**20]), "ConstantOfShape asks for 1.1e"),
    "expand": (shaped("Expand", [2**40], data="x"), "Expand asks for"),
    "tile": (shaped("Tile", [2**20, 2**20], data="x"), "Tile asks for"),
    "pad": (shaped("Pad", [0, 0, 2**40, 0], data="x"), "Pad asks for"),
    "range": (model([node("Range", ["a", "b", "c"], ["y"])], [ints("a", 0), ints("b", 2**40), ints("c", 1)]), "Range asks for"),
    "resize": (model([node("Resize", ["x", "", "", "s"], ["y"])], [ints("s", [2**20, 2**20])]), "Resize asks for"),
    "random": (model([node("RandomNormal", [], ["y"], shape=[2**20, 2**20])]), "RandomNormal asks for"),
    "one hot": (model([node("OneHot", ["x", "d", "v"], ["y"])], [ints("d", 2**40), ints("v", [0, 1])]), "OneHot asks for"),
    "hidden": (hidden(), "ConstantOfShape asks for"),
    "rounds": (loop(2**40), "rounds"),
    "two tensors": (doubled(), "two tensors or graphs"),
}  # fmt: skip


def content(made):
    return made if isinstance(made, bytes) else made.SerializeToString()


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_refused_in_one_line_soon_and_with_little_memory(name):
    made, said = CRAFTED[name]
    file = content(made)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with no_hang(), pytest.raises(WeightsError, match=said) as error:
        check_onnx(file, where="a.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert str(error.value).startswith("a.onnx is refused: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    with pytest.raises(WeightsError, match="is refused"):
        open_session(file)


@pytest.mark.parametrize(
    ("location", "offset", "length", "said"),
    [
        ("/etc/passwd", 0, 16, "outside of the file's folder"),
        ("../secret", 0, 16, "outside of"),
        ("sub/../../secret", 0, 16, "outside of"),
        ("..\\secret", 0, 16, "outside of"),
        ("C:/secret", 0, 16, "outside of"),
        ("", 0, 16, "outside of"),
        ("link", 0, 16, "no plain file"),
        ("away/data", 0, 16, "no plain file"),
        ("sub", 0, 16, "no plain file"),
        ("pipe", 0, 16, "no plain file"),
        ("absent", 0, 16, "no plain file"),
        ("data", 2**62, 16, "claims 16 bytes from byte"),
        ("data", -1, 16, "from byte -1"),
        ("data", 0, 2**50, "claims"),
        ("data", "1e3", 16, "no number"),
        ("data", 60, 16, "which has 64"),
    ],
)
def test_data_outside_of_the_file_lie_in_a_plain_file_of_its_folder_or_are_refused(
    tmp_path, location, offset, length, said
):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "data").write_bytes(b"\0" * 64)
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to(tmp_path)
    (tmp_path / "data").write_bytes(b"\0" * 64)
    __import__("os").mkfifo(folder / "pipe")
    check_onnx(content(outside("data", 0, 16)), folder=folder)
    with pytest.raises(WeightsError, match="lies in another file, 'data': all has to be in one"):
        check_onnx(content(outside("data", 0, 16)))
    with pytest.raises(WeightsError, match=said):
        check_onnx(content(outside(location, offset, length)), folder=folder)


class Lengths(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(9, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, ids):
        return self.out(self.lstm(self.embed(ids))[0].mean(1))


@pytest.mark.parametrize(
    ("made", "inputs"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.zeros(2, 3, 8, 8)),
        (Lengths(), torch.zeros(2, 5, dtype=torch.int64)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.zeros(2, 5, 8)),
    ],
    ids=["conv", "lstm", "attention"],
)  # fmt: skip
def test_what_prunus_exports_passes(made, inputs):
    check_onnx(export_onnx(made.eval(), inputs))


def test_typed_values_and_odd_types_are_counted_as_onnx_does():
    for kind in (TensorProto.INT4, TensorProto.UINT4):
        check_onnx(content(claims([3], kind=kind, raw_data=b"\0\0")))
        with pytest.raises(WeightsError, match="has the shape"):
            check_onnx(content(claims([3], kind=kind, raw_data=b"\0\0\0")))
    for array in (
        np.zeros((3, 2), np.complex64),
        np.array([-1, 5]),
        np.array([True]),
        np.zeros((0, 7)),
        np.array(2.5, np.float16),
    ):
        check_onnx(content(model([node("Relu", ["x"], ["y"])], [numpy_helper.from_array(array, "w")])))
    typed = [
        helper.make_tensor("a", TensorProto.INT64, [3], [-1, 0, 2**40]),
        helper.make_tensor("b", TensorProto.COMPLEX64, [1], [1 + 2j]),
        helper.make_tensor("c", TensorProto.STRING, [2], [b"a", b"b"]),
        helper.make_tensor("d", TensorProto.DOUBLE, [2], [1.0, 2.0]),
        helper.make_tensor("e", TensorProto.BOOL, [2], [True, False]),
    ]
    check_onnx(content(model([node("Relu", ["x"], ["y"])], typed)))


def test_every_cut_of_a_file_is_refused_or_harmless_and_never_an_error_of_another_kind():
    whole = content(shaped("ConstantOfShape", [4, 4]))
    check_onnx(whole)
    for end in range(len(whole)):
        try:
            check_onnx(whole[:end])
        except WeightsError:
            continue
    generator = np.random.default_rng(0)
    for _ in range(2000):
        bytes_ = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            bytes_[place] = generator.integers(0, 256)
        try:
            check_onnx(bytes(bytes_))
        except WeightsError:
            continue
