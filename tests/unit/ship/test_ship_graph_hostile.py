"""Every graph that was damaged or made to fool the reader is refused in one line; none of it is ever run as code."""

# ruff: noqa: F811, F401 - fixtures are imported by name
from __future__ import annotations

import hashlib
import json
import os

import pytest
import torch

from prunus.core.errors import BundleError
from prunus.ship import load_bundle
from prunus.ship.graph_files.allowed_operations import name_of, operation
from prunus.ship.graph_files.argument_types import fit_arguments
from prunus.ship.manifest import _LARGEST_JSON
from ship_stand_ins import build, made, options, pruned


def forge(made, text):
    """Write another graph, and a manifest that vouches for it."""
    content = text if isinstance(text, bytes) else text.encode()
    (made.folder / "graph.json").write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    made.rewrite(lambda tree: tree["files"].__setitem__("graph.json", entry))


def refused(made, words):
    with pytest.raises(BundleError, match=words) as caught:
        load_bundle(made.folder, prefer="graph")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900


def call(nodes, target=None):
    """Return the first node that calls an operation, or the first of that name."""
    return next(node for node in nodes if node[1] == "call" and target in (None, node[2]))


def changed(made, change):
    tree = json.loads((made.folder / "graph.json").read_text())
    change(tree["nodes"])
    forge(made, json.dumps(tree))


def put(nodes, *rows):
    nodes[-1:-1] = [list(row) for row in rows]


def test_what_the_forger_starts_from_loads(made):
    changed(made, lambda nodes: None)
    assert load_bundle(made.folder, prefer="graph").kind == "graph"


TARGETS = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "aten.save.default",
    "aten.from_file.default",
    "aten.set_.source_Tensor",
    "aten.resize_.default",
    "aten._print.default",
    "aten.warn.default",
    "aten.__class__.mro",
    "aten.__dict__.keys",
    "aten._dir.append",
    "aten.name.default",
    "aten.relu",
    "aten.relu.nothing",
    "aten.relu.__call__",
    "aten.relu.default.redispatch",
    "aten.add.out",
    "aten.max_pool2d_with_indices_backward.default",
    "aten._cudnn_rnn.default",
    "prims.add.default",
    "operator.attrgetter",
    "operator.setitem",
    "torch.load",
    "",
    "aten.rélu.default",
]


@pytest.mark.parametrize("target", TARGETS)
def test_an_operation_off_the_list_is_refused(made, target):
    changed(made, lambda nodes: call(nodes).__setitem__(2, target))
    refused(made, "is no operation that a graph may name")


X = {"node": "evil"}
MISTAKES = {
    "dangling": (lambda n: call(n)[3].__setitem__(0, {"node": "nobody"}), "takes 'nobody', which no node before it is"),
    "itself": (lambda n: call(n)[3].__setitem__(0, {"node": call(n)[0]}), "which no node before it is"),
    "a circle": (lambda n: call(n)[3].__setitem__(0, {"node": n[-2][0]}), "which no node before it is"),
    "a name twice": (lambda n: call(n).__setitem__(0, n[0][0]), "a plain name of its own"),
    "code as name": (lambda n: call(n).__setitem__(0, "x = __import__('os')"), "a plain name of its own"),
    "keyword as name": (lambda n: call(n).__setitem__(0, "lambda"), "a plain name of its own"),
    "code as argument": (lambda n: call(n)[4].update({"a=print('x'), b": 1}), "has no .further. argument"),
    "argument twice": (lambda n: call(n, "aten.t.default")[4].update(self=None), "has no .further. argument 'self'"),
    "too many": (lambda n: call(n, "aten.t.default")[3].append(1), "takes at most 1 arguments by position, got 2"),
    "too few": (lambda n: call(n, "aten.addmm.default")[3].pop(), "'mat2' is missing"),
    "other type": (
        lambda n: call(n, "aten.addmm.default")[3].__setitem__(1, [1]),
        "'mat1' must be of type Tensor, got a list",
    ),
    "other shapes": (lambda n: call(n, "aten.addmm.default")[3].reverse(), "it doesn't run"),
    "unknown kind": (lambda n: call(n).__setitem__(1, "module"), "must be .name, one of parameter"),
    "no list": (lambda n: n.__setitem__(0, {"name": "x"}), "node 0 must be"),
    "short row": (lambda n: n[0].pop(), "node 0 must be"),
    "number as target": (lambda n: call(n).__setitem__(2, 5), "must be"),
    "no target": (lambda n: call(n).__setitem__(2, None), "a target goes with every kind"),
    "target of the output": (lambda n: n[-1].__setitem__(2, "x"), "a target goes with every kind"),
    "no output": (lambda n: n.pop(), "one input and one output, got 1 and 0"),
    "two outputs": (lambda n: n[-1][3].append(n[-1][3][0]), "one output, got 2"),
    "after the output": (
        lambda n: n.append(["more", "call", "aten.zeros.default", [[2]], {}]),
        "a call can't come here",
    ),
    "no input": (lambda n: n.remove(next(r for r in n if r[1] == "input")), "which no node before it is"),
    "late input": (lambda n: put(n, ["late", "input", "late", [], {}]), "a input can't come here"),
    "second input": (
        lambda n: n.insert(n.index(call(n)), ["late", "input", "late", [], {}]),
        "a input can't come here|one input and one output, got 2",
    ),
    "late parameter": (lambda n: put(n, ["late", "parameter", "0.weight", [], {}]), "a parameter can't come here"),
    "unknown tensor": (lambda n: n[0].__setitem__(2, "9.weight"), "there is no tensor '9.weight'"),
    "tensor twice": (lambda n: n[1].__setitem__(2, n[0][2]), "comes twice"),
    "arguments of a parameter": (lambda n: n[0][3].append(1), "a parameter has no arguments"),
    "constant of elsewhere": (
        lambda n: put(n, ["c", "constant", "0.weight", [], {}]),
        "a constant is called graph_module.NAME",
    ),
    "output of a number": (lambda n: n[-1].__setitem__(3, [3]), "a bundle's model gives a tensor, got 3"),
    "output of another size": (
        lambda n: (put(n, ["evil", "call", "aten.zeros.default", [[5, 3]], {}]), n[-1].__setitem__(3, [X])),
        "two inputs must give two outputs: got .5, 3.",
    ),
    "absurd tensor": (
        lambda n: put(n, ["evil", "call", "aten.zeros.default", [[2**40]], {}]),
        "'size' must be of type List.int., got a list of 1: int '1099511627776'",
    ),
    "absurd tensors": (
        lambda n: put(n, ["evil", "call", "aten.zeros.default", [[2**31, 2**31]], {}]),
        "node 'evil', aten.zeros.default: it doesn't run|tensors of at most 4294967296 bytes were expected, got",
    ),
    "absurd number": (lambda n: put(n, ["evil", "call", "aten.zeros.default", [[2**70]], {}]), "fit into 64 bits"),
    "long list": (
        lambda n: put(n, ["evil", "call", "operator.mul", [[0], 2**40], {}]),
        "operator.mul is for sizes only",
    ),
    "sum of tensors": (
        lambda n: put(n, ["evil", "call", "operator.add", [{"node": n[0][0]}, 1], {}]),
        "operator.add is for sizes only",
    ),
    "item by text": (
        lambda n: put(n, ["evil", "call", "operator.getitem", [{"node": n[0][0]}, "__class__"], {}]),
        "operator.getitem takes a node of several tensors and a number",
    ),
    "three for two": (lambda n: put(n, ["evil", "call", "operator.add", [1, 2, 3], {}]), "takes 2 arguments, got 3"),
    "unknown tag": (lambda n: call(n)[3].__setitem__(0, {"pickle": "gASVCg=="}), "is no value that a graph may hold"),
    "two tags": (
        lambda n: call(n)[3].__setitem__(0, {"node": n[0][0], "dtype": "x"}),
        "is no value that a graph may hold",
    ),
    "unknown type": (lambda n: call(n)[3].__setitem__(0, {"dtype": "object"}), "is no value that a graph may hold"),
    "other device": (lambda n: call(n)[4].update(device={"device": "cuda:0"}), "is no value that a graph may hold"),
    "unhashable": (lambda n: call(n)[3].__setitem__(0, {"node": ["x"]}), "is no value that a graph may hold"),
    "deep": (lambda n: call(n)[3].__setitem__(0, [[[[[[[[[[[[1]]]]]]]]]]]]), "at most 8 lists deep"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_graph_that_makes_no_sense_is_refused(made, name):
    change, words = MISTAKES[name]
    changed(made, change)
    refused(made, words)


@pytest.mark.parametrize("name", ["forward", "graph", "code", "_parameters", "__class__", "training.x", "a-b", ""])
def test_a_constant_takes_no_name_that_means_something(made, name):
    changed(made, lambda n: put(n, ["c", "constant", f"graph_module.{name}", [], {}]))
    made.rewrite(lambda tree: tree["tensors"].update({f"graph_module.{name}": tree["tensors"]["0.bias"]}))
    with pytest.raises(BundleError, match="list the same tensors"):
        load_bundle(made.folder, prefer="graph")
    from safetensors.torch import load_file, save_file

    path = made.folder / "model.safetensors"
    save_file({**load_file(path), f"graph_module.{name}": torch.zeros(5)}, path)
    content = path.read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    made.rewrite(lambda tree: tree["files"].__setitem__("model.safetensors", entry))
    refused(made, "a constant is called graph_module.NAME")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON"),
        ("[1]", "expected a mapping with format and nodes"),
        ('{"format": 1, "nodes": [], "nodes": []}', "the key 'nodes' twice"),
        ('{"format": 4, "nodes": []}', "expected a graph of format 3, got 4"),
        ('{"format": 3, "nodes": []}', "expected a mapping with format, nodes, answer, places"),
        ('{"format": true, "nodes": []}', "expected a mapping"),
        ('{"format": 1, "nodes": []}', "a list of 1 to 50000 nodes"),
        ('{"format": 1, "nodes": {}}', "a list of 1 to 50000 nodes"),
        ('{"format": 1, "nodes": [NaN]}', "NaN, which is no JSON number"),
        ("[" * 100_000, "expected JSON"),
        (b"\xff\xfe\x00", "expected JSON"),
    ],
)
def test_a_file_that_is_no_graph_is_refused(made, text, words):
    forge(made, text)
    refused(made, words)


def test_a_changed_graph_is_not_even_parsed(made):
    path = made.folder / "graph.json"
    path.write_text(path.read_text().replace("relu", "tanh"))
    with pytest.raises(BundleError, match="was changed after it was written: expected SHA-256"):
        load_bundle(made.folder)


def test_a_graph_that_is_a_link_or_too_large_is_not_read(made, tmp_path, monkeypatch):
    path = made.folder / "graph.json"
    monkeypatch.setitem(_LARGEST_JSON, "graph.json", 99)
    refused(made, f"expected at most 99 bytes, got {path.stat().st_size}")
    path.unlink()
    path.symlink_to(tmp_path / "outside")
    refused(made, "plain files only, got a link")


def test_a_builder_of_the_sender_is_not_run_where_the_graph_does(made, monkeypatch):
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("the sender's code ran"))
    made.rewrite(lambda tree: tree["model"].update(builder="os:system", args={"command": "true"}))
    bundle = load_bundle(made.folder)
    assert bundle.kind == "graph"
    assert "'os:system'" in bundle.note


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2J", "x" * 501])
def test_a_reason_that_would_act_on_a_terminal_is_refused(made, reason):
    made.rewrite(lambda tree: tree.update(no_graph=reason))
    refused(made, "no_graph")


def test_every_operation_has_one_name_and_what_has_none_is_not_written():
    for name in ("aten.view.default", "aten.add.Tensor", "operator.getitem", "aten.sym_size.int", "aten.gelu.default"):
        assert name_of(operation(name)) == name
    with pytest.raises(BundleError, match="no operation"):
        name_of(print)
    with pytest.raises(BundleError, match="no operation"):
        name_of(torch.ops.prims.add.default)


def test_arguments_fit_as_the_schema_says():
    addmm = operation("aten.addmm.default")
    one = torch.fx.Graph().placeholder("one")
    made = {one: "tensor"}
    assert fit_arguments(addmm, [one, one, one], {"beta": 1}, made) == ""
    assert fit_arguments(addmm, [one, one], {"mat2": one}, made) == ""
    assert "at most 3" in fit_arguments(addmm, [one, one, one, 4], {}, made)
    assert "'mat2' is missing" in fit_arguments(addmm, [one, one], {}, made)
