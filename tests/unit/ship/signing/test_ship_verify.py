"""A bundle that passes is whole, finite and of the shapes of its architecture; whatever else it may be is refused in one line."""

from __future__ import annotations

import hashlib
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from prunus.core.errors import BundleError
from prunus.ship import load_bundle, save_bundle, verify_bundle
from prunus.ship.manifest import FileEntry
from prunus.ship.signing.hashed_file import HashedFile
from ship_stand_ins import build, made, network, options, pruned, rewritten

__all__ = ["build", "made", "options", "pruned"]


def reseal(folder, change=lambda tree: None):
    """Let the manifest say what the files are now, as one would who wants to fool the reader."""

    def entries(tree):
        for name in tree["files"]:
            content = (folder / name).read_bytes()
            tree["files"][name] = FileEntry(
                sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
            ).model_dump()
        change(tree)

    rewritten(folder, entries)


def refused(folder, *words):
    with pytest.raises(BundleError) as caught:
        verify_bundle(folder)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said
    return said


def with_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    reseal(folder)


def test_what_was_saved_passes_and_the_hash_that_comes_back_is_the_bundles(made):
    found = verify_bundle(made.folder)
    assert found.sha256 == made.sha256
    assert found.files == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made.folder.iterdir()}
    assert found.compared_with == ("graph", "builder")
    assert json.loads(json.dumps(found.to_dict()))["n_tensors"] == len(made.model.state_dict())


def test_only_what_was_verified_is_loaded(made, build, options, tmp_path):
    verified = verify_bundle(made.folder)
    load_bundle(made.folder, sha256=verified.sha256)
    torch.manual_seed(1)
    save_bundle(made.folder, network(width=5), **options)  # an honest bundle, swapped in between check and use
    verify_bundle(made.folder)
    with pytest.raises(BundleError, match="was changed"):
        load_bundle(made.folder, sha256=verified.sha256)


@pytest.mark.parametrize("name", ["model.safetensors", "graph.json", "manifest.json"])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_changed_byte_of_any_file_is_refused(made, name, place):
    path = made.folder / name
    content = bytearray(path.read_bytes())
    at = {"first": 0, "middle": len(content) // 2, "last": len(content.rstrip()) - 1}[place]
    content[at] ^= 1
    path.write_bytes(content)
    said = refused(made.folder)
    assert name in said


@pytest.mark.parametrize("name", ["model.safetensors", "graph.json", "manifest.json"])
def test_a_file_that_is_missing_cut_off_longer_or_a_link_is_refused(made, name, tmp_path):
    path, content = made.folder / name, (made.folder / name).read_bytes()
    path.unlink()
    refused(made.folder, name)
    path.write_bytes(content.rstrip()[:-1])
    refused(made.folder, name)
    path.write_bytes(content + b" x")
    refused(made.folder, name)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    path.symlink_to(tmp_path / "elsewhere")
    refused(made.folder, name, "plain files only")


@pytest.mark.parametrize("name", ["config.json", "model.pt2", ".hidden", "pickle.pkl"])
def test_a_file_that_the_manifest_does_not_name_is_refused(made, name):
    (made.folder / name).write_bytes(b"")
    refused(made.folder, name, "doesn't name")


def test_a_folder_in_the_bundle_is_refused(made):
    (made.folder / "more").mkdir()
    refused(made.folder, "'more'")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "", "model.sig", "manifest.json"])
def test_a_name_that_leaves_the_folder_or_is_made_later_is_refused(made, name):
    made.rewrite(lambda tree: tree["files"].update({name: tree["files"]["graph.json"]}))
    refused(made.folder, "manifest.json")


def test_a_key_that_comes_twice_is_refused(made):
    path = made.folder / "manifest.json"
    path.write_text('{"format": 3, ' + path.read_text()[1:])
    refused(made.folder, "twice")


@pytest.mark.parametrize("number", [1, 2, 4, "3", None])
def test_another_format_is_refused(made, number):
    made.rewrite(lambda tree: tree.update(format=number))
    refused(made.folder, "expected format 3")


class Cast(nn.Module):
    def __init__(self, dtype) -> None:
        super().__init__()
        self.inner, self.dtype = network(width=5).to(dtype).eval(), dtype

    def forward(self, x):
        return self.inner(x.to(self.dtype)).float()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_weight_that_is_no_number_is_refused_wherever_it_stands(build, options, tmp_path, value, dtype):
    torch.manual_seed(0)
    folder, model, name = tmp_path / "bundle", Cast(dtype), "inner.0.weight"
    save_bundle(folder, model, **{**options, "built_by": None}, dense=model)
    last = load_file(folder / "model.safetensors")[name].numel() - 1
    for place in (0, last // 2, last):
        shutil.rmtree(tmp_path / "spoilt", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "spoilt")
        with_weights(tmp_path / "spoilt", lambda tensors, at=place: tensors[name].view(-1).__setitem__(at, value))
        refused(tmp_path / "spoilt", name)


def test_the_largest_numbers_and_the_smallest_are_finite(made):
    def extremes(tensors):
        flat, limits = tensors["0.weight"].view(-1), torch.finfo(torch.float32)
        flat[:4] = torch.tensor([limits.max, limits.min, limits.smallest_normal, 1e-45])

    with_weights(made.folder, extremes)
    verify_bundle(made.folder)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = network(width=5)
        self.register_buffer("mask", torch.full((3,), -math.inf))

    def forward(self, x):
        return torch.maximum(self.inner(x), self.mask)


def test_a_buffer_may_be_infinite_and_no_number_is_refused_there_too(options, tmp_path):
    torch.manual_seed(0)
    save_bundle(tmp_path / "b", Masked(), **{**options, "built_by": None}, dense=Masked())
    assert verify_bundle(tmp_path / "b").compared_with == ("graph",)
    with_weights(tmp_path / "b", lambda tensors: tensors["mask"].fill_(math.nan))
    refused(tmp_path / "b", "NaN")


def test_compressed_weights_are_looked_at_too(build, options, tmp_path):
    torch.manual_seed(0)
    model = network(width=32)
    with torch.no_grad():
        model[0].weight[:, 1:] = 0
        model[3].weight[:, 4:] = 0
    save_bundle(tmp_path / "b", model, **options)
    tree = json.loads((tmp_path / "b/manifest.json").read_text())
    packed = [name for name, entry in tree["tensors"].items() if entry.get("stored") == "bitmask"]
    assert packed
    verify_bundle(tmp_path / "b")
    with_weights(tmp_path / "b", lambda tensors: tensors[packed[0]].fill_(255))
    refused(tmp_path / "b", packed[0])


def test_shapes_that_the_architecture_does_not_have_are_refused(made):
    def transposed(tensors):
        tensors["3.weight"] = tensors["3.weight"].T.contiguous()

    with_weights(made.folder, transposed)
    refused(made.folder, "3.weight", "must be")  # the manifest says another shape
    made.rewrite(lambda tree: tree["tensors"]["3.weight"].update(shape=tree["tensors"]["3.weight"]["shape"][::-1]))
    refused(made.folder)  # now the graph and the class say another


def test_a_type_that_the_architecture_does_not_have_is_refused(made):
    with_weights(made.folder, lambda tensors: tensors.update({"0.bias": tensors["0.bias"].double()}))
    reseal(made.folder, lambda tree: tree["tensors"]["0.bias"].update(dtype="float64"))
    refused(made.folder)


def test_tensors_that_overlap_or_leave_a_gap_are_refused(made):
    path = made.folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    names = [name for name in header if name != "__metadata__"]
    for shift in (-4, 4):
        changed = json.loads(json.dumps(header))
        extent = changed[names[1]]["data_offsets"]
        changed[names[1]]["data_offsets"] = [extent[0] + shift, extent[1] + shift]
        text = json.dumps(changed).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        reseal(made.folder)
        refused(made.folder, "damaged")


def test_a_file_that_is_changed_and_broken_is_called_changed(made):
    path = made.folder / "model.safetensors"
    path.write_bytes(b"\xff" * len(path.read_bytes()))
    refused(made.folder, "was changed after it was written")


def test_a_model_of_a_large_tensor_is_read_in_pieces(options, tmp_path):
    """Of three megabytes and a bit: the pieces end where no number does not, and the last one is looked at."""
    torch.manual_seed(0)
    wide = {**options, "built_by": None, "input_shape": (1001,), "feature_names": (), "scaler": None}
    model = nn.Sequential(nn.Linear(1001, 801), nn.Linear(801, 3))
    save_bundle(tmp_path / "b", model, **wide, dense=model)
    found = verify_bundle(tmp_path / "b")
    assert (
        found.files["model.safetensors"] == hashlib.sha256((tmp_path / "b/model.safetensors").read_bytes()).hexdigest()
    )
    with_weights(tmp_path / "b", lambda tensors: tensors["0.weight"].view(-1).__setitem__(-1, math.nan))
    refused(tmp_path / "b", "0.weight")


def test_a_compressed_tensor_of_many_pieces_is_whole(options, tmp_path):
    torch.manual_seed(0)
    wide = {**options, "built_by": None, "input_shape": (2000,), "feature_names": (), "scaler": None}
    model = nn.Sequential(nn.Linear(2000, 1000), nn.Linear(1000, 3))
    with torch.no_grad():
        model[0].weight[:, ::4] = 0
    save_bundle(tmp_path / "b", model, **wide, dense=model)
    entry = json.loads((tmp_path / "b/manifest.json").read_text())["tensors"]["0.weight"]
    assert (entry["stored"], sum(entry["parts"]) > 4 * 2**20) == ("bitmask", True)
    verify_bundle(tmp_path / "b")


def test_what_is_read_in_one_go_is_the_file(tmp_path):
    content = bytes(range(256)) * 20_000
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        hashed = HashedFile(file, len(content), tmp_path / "f")
        assert hashed.read(len(content)).tobytes() == content
        assert hashed.sha256() == hashlib.sha256(content).hexdigest()
        hashed.close()


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FC00000, -0x7FFFFF, -1])
def test_no_number_is_noticed_however_it_is_written(made, bits):
    with_weights(made.folder, lambda tensors: tensors["0.weight"].view(torch.int32).view(-1).__setitem__(0, bits))
    refused(made.folder, "0.weight")
