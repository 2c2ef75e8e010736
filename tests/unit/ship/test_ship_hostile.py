"""Every bundle that was damaged or made to fool the reader is refused in one line, before its weights are parsed."""

# ruff: noqa: F811, F401 - fixtures are imported by name
from __future__ import annotations

import hashlib
import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.core.errors import BundleError, RunError
from prunus.ship import bundle_sha256, load_bundle
from ship_stand_ins import build, made, options, pruned

WEIGHTS = "model.safetensors"


def refused(made, words):
    with pytest.raises(BundleError, match=words) as caught:
        load_bundle(made.folder)
    assert "\n" not in str(caught.value)


def fix_hash(made):
    """Make the manifest agree with the changed weight file."""
    content = (made.folder / WEIGHTS).read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    made.rewrite(lambda tree: tree["files"].__setitem__(WEIGHTS, entry))


def test_truncated_weights_are_refused(made):
    content = (made.folder / WEIGHTS).read_bytes()
    (made.folder / WEIGHTS).write_bytes(content[:-5])
    refused(made, rf"expected {len(content)} bytes, got {len(content) - 5}")


def test_one_changed_byte_is_refused(made):
    content = bytearray((made.folder / WEIGHTS).read_bytes())
    content[-3] ^= 1
    (made.folder / WEIGHTS).write_bytes(content)
    refused(made, "was changed after it was written: expected SHA-256")
    with pytest.raises(BundleError):
        bundle_sha256(made.folder)


@pytest.mark.parametrize("cut", [0, 4, 20, -5])
def test_truncated_weights_with_a_matching_hash_are_refused(made, cut):
    path = made.folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:cut])
    fix_hash(made)
    refused(made, "expected a safetensors file")


def test_a_safetensors_header_that_claims_too_much_is_refused(made):
    header = {"0.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps(header).encode()
    (made.folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)
    fix_hash(made)
    refused(made, "expected a safetensors file")


def test_a_pickle_is_not_opened(made):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    torch.save({"0.weight": Evil()}, made.folder / WEIGHTS)
    fix_hash(made)
    refused(made, "expected a safetensors file")


@pytest.mark.parametrize("name", ["manifest.json", WEIGHTS])
def test_a_missing_file_is_named(made, name):
    (made.folder / name).unlink()
    refused(made, f"{name} is missing")


def test_a_folder_that_isn_t_there_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path / "file")


@pytest.mark.parametrize("name", ["manifest.json", WEIGHTS])
def test_a_link_is_not_followed(made, name, tmp_path):
    (made.folder / name).rename(tmp_path / "outside")
    (made.folder / name).symlink_to(tmp_path / "outside")
    refused(made, "plain files only, got a link")


def test_a_pipe_is_not_waited_for(made):
    (made.folder / WEIGHTS).unlink()
    os.mkfifo(made.folder / WEIGHTS)
    refused(made, "plain files only")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "x\n", "manifest.json", ".hidden"]
)
def test_a_file_name_that_leaves_the_folder_is_refused(made, name):
    entry = made.manifest()["files"][WEIGHTS]
    made.rewrite(lambda tree: tree["files"].__setitem__(name, entry))
    refused(made, "manifest.json: ")


MISTAKES = {
    "unknown key": (lambda t: t.update(more=1), "more: "),
    "unknown key inside": (lambda t: t["model"].update(more=1), r"model\.more: "),
    "missing key": (lambda t: t.pop("task"), "task: "),
    "newer format": (lambda t: t.update(format=4), "expected format 3, got 4; load it with the prunus that wrote it"),
    "older format": (
        lambda t: t.update(format=2),
        "expected format 3, got 2; an older prunus wrote it: make the bundle anew",
    ),
    "no format": (lambda t: t.pop("format"), "expected format 3, got None"),
    "wrong type": (lambda t: t.update(n_outputs="3"), "n_outputs: .*got '3'"),
    "negative size": (lambda t: t["tensors"]["0.weight"].update(shape=[-1, 6]), "shape"),
    "absurd size": (lambda t: t["tensors"]["0.weight"].update(shape=[2**63, 6]), "shape"),
    "other size": (
        lambda t: t["tensors"]["0.weight"].update(shape=[6, 5]),
        "doesn't fit the weights: expected '0.weight'",
    ),
    "other type": (lambda t: t["tensors"]["0.weight"].update(dtype="float64"), "expected '0.weight' as float64"),
    "unknown type": (lambda t: t["tensors"]["0.weight"].update(dtype="pickle"), "'0.weight' as pickle"),
    "unknown storage": (lambda t: t["tensors"]["0.weight"].update(stored="zip"), "stored"),
    "mask without parts": (
        lambda t: t["tensors"]["0.weight"].update(stored="bitmask"),
        "parts go with stored: bitmask",
    ),
    "parts without mask": (lambda t: t["tensors"]["0.weight"].update(parts=[1]), "parts go with stored: bitmask"),
    "other parts": (
        lambda t: t["tensors"]["0.weight"].update(stored="bitmask", parts=[4, 30, 30, 30, 30]),
        r"'0.weight' must be uint8 \[124\], got F32 \[5, 6\]",
    ),
    "alias of nothing": (lambda t: t["tensors"]["0.weight"].update(stored="alias", same_as="x"), "must be the same"),
    "alias of itself": (
        lambda t: t["tensors"]["0.weight"].update(stored="alias", same_as="0.weight"),
        "must be the same",
    ),
    "one tensor less": (lambda t: t["tensors"].pop("0.weight"), "expected '0.weight' as nothing"),
    "one tensor more": (
        lambda t: t["tensors"].update(x={"dtype": "int64", "shape": [], "stored": "plain", "same_as": None}),
        "expected 'x' as int64",
    ),
    "huge dense model": (
        lambda t: (t["model"]["args"].update(width=10**12), t["edits"].update(shapes={})),
        r"as float32 \[5, 6\], got float32 \[1000000000000, 6\]|doesn't fit the weights",
    ),
    "growing edit": (lambda t: t["edits"]["shapes"].update({"0.weight": [999, 6]}), "can only make '0.weight' smaller"),
    "edit of nothing": (lambda t: t["edits"]["attributes"].update({"9": {"a": 1}}), "no module '9'"),
    "edit of a method": (lambda t: t["edits"]["attributes"].update({"0": {"forward": "x"}}), "no plain setting"),
    "no edits and no graph": (
        lambda t: (t.update(edits=None), t["files"].pop("graph.json")),
        "a bundle without edits is its graph",
    ),
    "code as builder": (
        lambda t: (t["model"].update(builder="os:system", args={"command": "true"}), t["files"].pop("graph.json")),
        "no graph goes along.*code outside",
    ),
    "selected inputs": (lambda t: t["edits"].update(kept_inputs=[1, 2]), "doesn't fit the weights"),
    "scaler": (lambda t: t["scaler"].update(deviation=[0.0] * 6), "scaler can't be used"),
    "scaler shape": (lambda t: t.update(scaler={"mean": [[0.0]] * 9, "deviation": [[1.0]] * 9}), "scaler must fit"),
    "class names": (lambda t: t.update(class_names=["a"]), "3 outputs need as many class_names, got 1"),
    "no files": (lambda t: t.update(files={}), "files must list model.safetensors"),
    "bad hash": (lambda t: t["files"][WEIGHTS].update(sha256="x"), "sha256"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_manifest_that_makes_no_sense_is_refused(made, name):
    change, words = MISTAKES[name]
    made.rewrite(change)
    refused(made, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("[1]", "expected format 3, got 'list'"),
        ('{"format": 1, "format": 1}', "the key 'format' twice"),
        ('{"format": NaN}', "NaN, which is no JSON number"),
        ("[" * 100_000, "expected JSON"),
        ("\ufeff{}", "expected JSON"),
    ],
)
def test_a_manifest_that_isn_t_json_is_refused(made, text, words):
    (made.folder / "manifest.json").write_text(text, encoding="utf-8")
    refused(made, words)


def test_a_manifest_that_isn_t_text_is_refused(made):
    (made.folder / "manifest.json").write_bytes(b"\xff\xfe\x00")
    refused(made, "expected JSON")


def test_another_set_of_tensors_in_the_file_is_refused(made):
    tensors = load_file(made.folder / WEIGHTS)
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, made.folder / WEIGHTS)
    fix_hash(made)
    refused(made, r"must list the same tensors: got a difference at \['extra'\]")


def test_another_shape_in_the_file_is_refused(made):
    tensors = load_file(made.folder / WEIGHTS)
    tensors["0.weight"] = tensors["0.weight"].t().contiguous()
    save_file(tensors, made.folder / WEIGHTS)
    fix_hash(made)
    refused(made, r"'0.weight' must be float32 \[5, 6\], got F32 \[6, 5\]")


def test_another_type_in_the_file_is_refused(made):
    tensors = load_file(made.folder / WEIGHTS)
    tensors["0.weight"] = tensors["0.weight"].double()
    save_file(tensors, made.folder / WEIGHTS)
    fix_hash(made)
    refused(made, r"'0.weight' must be float32 \[5, 6\], got F64")


def test_a_mask_with_too_few_values_is_refused(made):
    tensors = load_file(made.folder / WEIGHTS)
    tensors["0.weight"] = torch.full(
        (4 + 4 * 7,), 255, dtype=torch.uint8
    )  # thirty bits are set, seven elements are there
    save_file(tensors, made.folder / WEIGHTS)
    made.rewrite(lambda tree: tree["tensors"]["0.weight"].update(stored="bitmask", parts=[4, 7, 7, 7, 7]))
    fix_hash(made)
    refused(made, r"'0.weight': its byte 0 of the values must decompress to 30 bytes")


def change_names(tree):
    tree["class_names"] = ["b", "a", "c"]


def change_scaler(tree):
    tree["scaler"]["mean"][0] += 1


@pytest.mark.parametrize("change", [change_names, change_scaler, lambda t: t["facts"].update(seed=7)])
def test_a_manifest_that_was_changed_by_hand_is_noticed(made, change):
    tree = made.manifest()
    change(tree)
    (made.folder / "manifest.json").write_text(json.dumps(tree))
    refused(made, r"manifest\.json was changed after it was written: expected SHA-256")


def test_a_manifest_without_its_hash_is_refused(made):
    tree = made.manifest()
    del tree["sha256"]
    (made.folder / "manifest.json").write_text(json.dumps(tree))
    refused(made, r"manifest\.json was changed after it was written")


def test_what_was_hashed_is_what_is_used_whoever_swaps_files_meanwhile(made, pruned, monkeypatch):
    """Another bundle of the same form takes the place of the files at every moment of a load."""
    whole = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    other = dict(whole)
    tensors = {name: tensor.clone() for name, tensor in load_file(made.folder / WEIGHTS).items()}
    tensors["3.bias"] += 1
    save_file(tensors, made.folder / WEIGHTS)
    other[WEIGHTS] = (made.folder / WEIGHTS).read_bytes()
    other["graph.json"] = whole["graph.json"].replace(b"aten.relu", b"aten.sigmoid")
    assert other["graph.json"] != whole["graph.json"]
    expected = pruned.eval()(made.inputs * 0 + 1)

    def put(files):
        for name, content in files.items():
            (made.folder / f"{name}.new").write_bytes(content)
            (made.folder / f"{name}.new").replace(made.folder / name)

    at = {"opened": 0, "swap": -1}
    real = os.open

    def opened(path, *arguments, **more):
        if "bundle" in str(path) and ".new" not in str(path):
            handle = real(path, *arguments, **more)
            if at["opened"] == at["swap"]:
                put(other)
            at["opened"] += 1
            return handle
        return real(path, *arguments, **more)

    for prefer in ("eager", "graph"):
        put(whole)
        at |= {"opened": 0, "swap": -1}
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", opened)
            load_bundle(made.folder, prefer=prefer)
            assert at["opened"] >= 3
            for moment in range(at["opened"]):
                put(whole)
                at |= {"opened": 0, "swap": moment}
                try:
                    bundle = load_bundle(made.folder, prefer=prefer)
                except BundleError as error:
                    assert "was changed" in str(error) or "bytes, got" in str(error)
                    continue
                with torch.no_grad():
                    torch.testing.assert_close(bundle.model(made.inputs * 0 + 1), expected)


def test_an_output_that_is_no_number_is_an_error_and_no_label(made):
    bundle = load_bundle(made.folder)
    with torch.no_grad():
        bundle.model[3].bias[1] = float("nan")
    with pytest.raises(RunError, match=r"output for input row 0 is NaN or infinite \(and for 8 more"):
        bundle.predict(made.inputs)
    with pytest.raises(RunError, match="input row 1"):
        bundle.postprocess(torch.tensor([[0.0, 1.0, 2.0], [0.0, float("inf"), 1.0]]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_no_number_is_refused_when_loaded(made, value):
    tensors = load_file(made.folder / WEIGHTS)
    tensors["3.bias"][1] = value
    save_file(tensors, made.folder / WEIGHTS)
    fix_hash(made)
    refused(made, "'3.bias' has 1 values that are NaN or infinite")


def test_a_truth_value_that_is_neither_is_refused(tmp_path):
    from pathlib import Path

    from prunus.ship.manifest import TensorEntry
    from prunus.ship.pack import unpack

    content = bytearray(
        (save_file({"m": torch.tensor([True, False])}, tmp_path / "x"), (tmp_path / "x").read_bytes())[1]
    )
    content[-1] = 7
    with pytest.raises(BundleError, match="truth value must be 0 or 1"):
        unpack(bytes(content), {"m": TensorEntry(dtype="bool", shape=(2,))}, Path("x"))
