"""A folder of shards that was made to fool the reader is refused in one line, and nothing outside of it is read."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.core.errors import WeightsError
from prunus.scale import prune_shards


def header_file(path, header, data):
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def entry(begin, end, shape=(2, 2), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(-16, 0)},
        {"a": entry(16, 0)},
        {"a": entry(0, 16), "b": entry(8, 24)},
        {"a": entry(0, 8)},
        {"a": entry(0, 16, (2, 3))},
        {"a": entry(0, 16, (-2, -2))},
        {"a": entry(0, 16, (2**40, 2**40))},
        {"a": entry(0, 16, (2.0, 2))},
        {"a": entry(0, 16, (True, 4))},
        {"a": entry(0, 16, (), "F32")},
        {"a": entry(0, 16, (2, 2), "F31")},
        {"a": entry(8, 24)},
        {"a": {"dtype": "F32", "shape": [2, 2]}},
        {"a": entry(0, 16) | {"more": 1}},
        {"a": entry(0, 16), "__metadata__": {"x": 1}},
        {"a": entry(0, 16), "__metadata__": 3},
        b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}',
    ],
)
def test_extents_that_aren_t_those_of_the_tensors_are_refused(tmp_path, header):
    (tmp_path / "in").mkdir()
    header_file(
        tmp_path / "in" / "m.safetensors", header, bytes(24 if isinstance(header, dict) and "b" in header else 16)
    )
    with pytest.raises(WeightsError) as caught:
        prune_shards(tmp_path / "in", tmp_path / "out", keep_fraction=0.5)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name",
    [".prunus-shards.json", ".lock", "config.json", "model.safetensors.index.json", "../m.safetensors", "..", ".", "",
     "/etc/passwd", "a\\b.safetensors", "a\u202e.safetensors", ".m.safetensors", "m.safetensors\n", "m\0.safetensors"],
)  # fmt: skip
def test_a_shard_that_is_called_like_something_else_is_refused(checkpoint, tmp_path, name):
    source, _ = checkpoint()
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.embed.weight"] = name
    path.write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="a shard must lie beside the index and be called") as caught:
        prune_shards(source, tmp_path / "out", keep_fraction=0.5)
    assert str(caught.value).isprintable()


def test_a_tensor_in_two_shards_is_refused(checkpoint, tmp_path):
    source, _ = checkpoint()
    second = source / "model-00002-of-00002.safetensors"
    tensors = load_file(second) | {"model.embed.weight": torch.zeros(2, 2)}
    save_file(tensors, second)
    with pytest.raises(WeightsError, match=r"holds 'model\.embed\.weight', and so does"):
        prune_shards(source, tmp_path / "out", keep_fraction=0.5)


def test_two_layers_that_would_get_one_name_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    names = ("model.layers.0.w", "model.layers.1.w", "model.layers.01.w", "model.layers.2.w")
    save_file({name: torch.ones(4, 4) for name in names}, tmp_path / "in" / "m.safetensors")
    with pytest.raises(WeightsError, match=r"two tensors would be called 'model\.layers\.0\.w'"):
        prune_shards(tmp_path / "in", tmp_path / "out", drop_layers=[0], layers="model.layers")
    assert not (tmp_path / "out").exists()


def test_only_plain_files_of_the_checkpoint_are_copied(checkpoint, tmp_path):
    source, _ = checkpoint()
    (tmp_path / "secret").write_text("all that I know")
    (source / "notes.txt").symlink_to(tmp_path / "secret")
    (source / "merges.txt").symlink_to("config.json")
    (source / "folder").mkdir()
    os.mkfifo(source / "pipe")
    notes = []
    prune_shards(source, tmp_path / "out", keep_fraction=0.5, listener=notes.append)
    assert (tmp_path / "out" / "merges.txt").read_text() == (source / "config.json").read_text()
    assert not (tmp_path / "out" / "merges.txt").is_symlink()
    assert not (tmp_path / "out" / "notes.txt").exists()
    said = " ".join(event.message for event in notes)
    assert "notes.txt isn't copied" in said
    assert "pipe isn't copied" in said


def test_weights_that_the_index_doesn_t_name_are_left_out_and_said(tmp_path):
    (tmp_path / "in").mkdir()
    names = {f"h.{n}.w": f"m-{n}.safetensors" for n in range(2)}
    for name, file in {**names, "all": "consolidated.safetensors"}.items():
        save_file({name: torch.randn(8, 8)}, tmp_path / "in" / file)
    (tmp_path / "in" / "m.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    said = []
    prune_shards(tmp_path / "in", tmp_path / "out", keep_fraction=0.5, listener=said.append)
    assert not (tmp_path / "out" / "consolidated.safetensors").exists()
    warnings = [event.message for event in said if event.kind == "warning"]
    assert warnings == ["consolidated.safetensors isn't copied: m.safetensors.index.json names none of its tensors"]


def test_the_links_of_a_hub_s_cache_are_its_own_files(checkpoint, tmp_path):
    source, _ = checkpoint()
    cache = tmp_path / "models--x" / "snapshots" / "0123"
    cache.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    for number, path in enumerate(source.iterdir()):
        blob = tmp_path / "models--x" / "blobs" / str(number)
        path.rename(blob)
        (cache / path.name).symlink_to(f"../../blobs/{number}")
    prune_shards(cache, tmp_path / "out", keep_fraction=0.5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in cache.iterdir())
