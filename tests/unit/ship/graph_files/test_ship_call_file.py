"""A bundle's graph answers with names, and a file from a stranger can't make more of it than containers of tensors."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from prunus.core.errors import BundleError
from prunus.core.files.file_hash import sha256_file
from prunus.core.structures.forms import Form, form_of
from prunus.ship import load_bundle, save_bundle
from prunus.ship.graph_files.call_file import read_call, written_form
from ship_stand_ins import rewritten


@dataclasses.dataclass
class Found:
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    boxes: list[torch.Tensor] | None = None


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, left, right):
        seen = self.b(self.a(left).relu())
        return Found(logits=seen - right, boxes=[seen, right * 2])


X = {"right": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "left": torch.ones(3, 4)}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_bundle(
        tmp_path / "b", Net(), dense=Net(), built_by=None, input_shape=(4,), n_outputs=4, task="regression", example=X
    )
    return tmp_path / "b"


def test_a_bundles_graph_answers_with_the_names_of_the_class(folder):
    torch.manual_seed(0)
    model, graph = Net().eval(), load_bundle(folder, prefer="graph").model
    expected, found = model(**X), graph(**X)
    assert form_of(found) == form_of(expected)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.boxes[1], expected.boxes[1])
    torch.testing.assert_close(graph(X["left"], X["right"]).logits, expected.logits)


def test_a_graph_is_saved_again_with_inputs_in_another_order(folder, tmp_path):
    graph = load_bundle(folder, prefer="graph").model
    swapped = {"left": X["left"], "right": X["right"]}
    save_bundle(tmp_path / "c", graph, built_by=None, input_shape=(4,), n_outputs=4, task="regression", example=swapped)
    again = load_bundle(tmp_path / "c")
    torch.testing.assert_close(again.model(**swapped).logits, graph(**X).logits)
    torch.testing.assert_close(again.outputs(swapped)[0], graph(**X).logits)


HOSTILE = {
    "a class": (["torch.nn:Linear", ["tensor"] * 3], "an answer is 'tensor', null, or a list"),
    "a mapping of ours": ({"logits": "tensor"}, "an answer is 'tensor', null, or a list"),
    "fewer tensors": (["list", ["tensor"]], "must hold the 3 outputs of the graph, got 1"),
    "more tensors": (["list", ["tensor"] * 4], "must hold the 3 outputs of the graph, got 4"),
    "a dunder": (["fields", [["__class__", "tensor"], ["b", "tensor"], ["c", "tensor"]]], "begins with a letter"),
    "code": (["named", [["a, b): import os #", "tensor"], ["b", "tensor"], ["c", "tensor"]]], "a plain name"),
    "a keyword": (["named", [["class", "tensor"], ["b", "tensor"], ["c", "tensor"]]], "a plain name"),
    "one key twice": (["mapping", [["a", "tensor"]] * 3], "every key comes once"),
    "a long key": (["mapping", [["a" * 101, "tensor"], ["b", "tensor"], ["c", "tensor"]]], "at most 100 characters"),
    "escape codes": (["mapping", [["\x1b[2J", "tensor"], ["b", "tensor"], ["c", "tensor"]]], "at most 100 characters"),
    "no pairs": (["mapping", ["tensor"] * 3], "the parts of a mapping are"),
    "no list": (["list", "tensor"], "an answer is 'tensor', null, or a list"),
    "a number": (["list", [1, "tensor", "tensor", "tensor"]], "an answer is 'tensor', null, or a list"),
    "very many": (["list", ["tensor"] * 3 + [None] * 2000], "of 1024 parts"),
}


def nested(depth):
    return "tensor" if not depth else ["list", [nested(depth - 1)]]


@pytest.mark.parametrize("case", [*HOSTILE, "very deep"])
def test_an_answer_of_anything_else_is_refused(case):
    answer, words = HOSTILE[case] if case in HOSTILE else (["list", [nested(20), "tensor", "tensor"]], "8 deep")
    with pytest.raises(BundleError, match=words):
        read_call({"answer": answer, "places": ["left", "right"]}, ["left", "right"], 3, ())


@pytest.mark.parametrize(
    ("places", "names", "words"),
    [
        ("left", ["left", "right"], "places must be a list"),
        (["left"] * 300, ["left", "right"], "at most 256 names"),
        (["left", "left"], ["left", "right"], "a name of its own"),
        (["left", "right"], ["left", "lambda"], "a plain name"),
        (["left", 1], ["left", "right"], "a plain name"),
        (["left", "right"], ["right", "left"], "takes 2 by position, and the graph takes right, left"),
    ],
)
def test_names_are_plain_and_fit(places, names, words):
    with pytest.raises(BundleError, match=words):
        read_call({"answer": "tensor", "places": places}, names, 1, ())


def test_the_names_are_those_of_the_manifest(folder):
    path = folder / "graph.json"
    text = path.read_text().replace('"input","left"', '"input","third"')
    path.write_text(text)
    entry = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    rewritten(folder, lambda tree: tree["files"].update({"graph.json": entry}))
    with pytest.raises(BundleError, match="the bundle's model takes right, left, and the graph takes right, third"):
        load_bundle(folder, prefer="graph")


def test_a_graph_of_before_gives_a_list(folder):
    tree = json.loads((folder / "graph.json").read_text())
    found = read_call({"format": 2, "nodes": tree["nodes"]}, [None, None], 3, ("right", "left"))
    assert found.answer.filled([1, 2, 3]) == [1, 2, 3]
    assert found.signature.names == ("right", "left")


@pytest.mark.parametrize("form", [form_of(Found(logits=X["left"])), Form("nothing"), form_of([{"a": X["left"]}, ()])])
def test_a_form_that_was_written_is_read(form):
    tree = json.loads(json.dumps(written_form(form)))
    assert read_call({"answer": tree, "places": []}, [], form.n_tensors, ()).answer == form
