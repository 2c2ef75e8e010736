from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.core.errors import OutputError, RecipeError, WeightsError
from prunus.scale import prune_shards
from prunus.scale.magnitudes import FLOATS, find_cut


def read(folder):
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for file in set(index["weight_map"].values()):
        found.update(load_file(folder / file))
    assert set(found) == set(index["weight_map"])
    return found, index


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("memory", [1, 1 << 28])
@pytest.mark.parametrize("keep", [0.25, 0.5])
def test_exactly_the_largest_stay_in_every_matrix(checkpoint, tmp_path, dtype, memory, keep):
    source, tensors = checkpoint(dtype, rows=5000 if memory == 1 else 64)
    report = prune_shards(source, tmp_path / "out", keep_fraction=keep, memory_bytes=memory)
    found, index = read(tmp_path / "out")
    assert set(found) == set(tensors)
    kept = 0
    for name, before in tensors.items():
        after = found[name]
        if ".up." not in name:
            assert torch.equal(after, before)
            continue
        stays = after != 0
        assert torch.equal(after[stays], before[stays])
        assert before[stays].abs().min() >= before[~stays].abs().max()
        assert int(stays.sum()) == round(keep * before.numel())
        kept += int(stays.sum())
    assert (report.tensors_pruned, report.weights_kept) == (3, kept)
    assert index["metadata"] == {"made_by": "a test", "total_size": sum(t.nbytes for t in tensors.values())}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in source.iterdir())


@pytest.mark.parametrize("n_m", [(2, 4), (1, 8), (3, 4)])
def test_n_of_m_neighbours_stay(checkpoint, tmp_path, n_m):
    source, tensors = checkpoint(torch.float32)
    prune_shards(source, tmp_path / "out", n_m=n_m)
    before, after = tensors["model.layers.1.up.weight"], read(tmp_path / "out")[0]["model.layers.1.up.weight"]
    groups = before.view(-1, n_m[1])
    wanted = torch.zeros_like(groups).scatter_(1, groups.abs().topk(n_m[0], dim=1).indices, 1).bool().view_as(before)
    assert torch.equal(after, before * wanted)


def test_layers_leave_and_the_others_move_up(checkpoint, tmp_path):
    source, tensors = checkpoint()
    report = prune_shards(source, tmp_path / "out", drop_layers=[1])
    found, _ = read(tmp_path / "out")
    assert set(found) == {name for name in tensors if ".2." not in name}
    assert torch.equal(found["model.layers.1.up.weight"], tensors["model.layers.2.up.weight"])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"num_hidden_layers": 2, "layer_types": ["a", "c"]}
    assert report.bytes_written == sum(tensor.nbytes for tensor in found.values())


def test_a_shard_that_loses_all_of_its_tensors_isn_t_written(checkpoint, tmp_path):
    source, _ = checkpoint()
    prune_shards(source, tmp_path / "out", drop_layers=[1, 2])
    found, _ = read(tmp_path / "out")
    assert set(found) == {"model.embed.weight", "model.layers.0.up.weight", "model.layers.0.norm.weight"}
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["model-00001-of-00002.safetensors"]


def test_killed_and_resumed_is_never_killed(checkpoint, tmp_path, monkeypatch):
    source, _ = checkpoint()
    prune_shards(source, tmp_path / "whole", keep_fraction=0.5)
    from prunus.scale import shards

    real, calls = shards.write_shard, []

    def dies(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(shards, "_AT_ONCE", 1)  # or the second may die before the first is done
    monkeypatch.setattr(shards, "write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        prune_shards(source, tmp_path / "out", keep_fraction=0.5)
    monkeypatch.setattr(shards, "write_shard", real)
    with pytest.raises(OutputError, match="add --resume"):
        prune_shards(source, tmp_path / "out", keep_fraction=0.5)
    with pytest.raises(OutputError, match="other settings"):
        prune_shards(source, tmp_path / "out", keep_fraction=0.6, resume=True)
    report = prune_shards(source, tmp_path / "out", keep_fraction=0.5, resume=True)
    assert report.shards_resumed == 1
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["BF16", "F32"])
@pytest.mark.parametrize("case", ["normal", "ties", "zeros", "skewed sample"])
def test_the_threshold_is_that_of_a_sort(kind, case):
    draw = np.random.default_rng(0)
    values = draw.standard_normal(5000).astype(np.float32)
    if case == "ties":
        values = np.round(values)
    if case == "zeros":
        values[::2] = 0
    bits = values.view(np.uint32) if kind == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)
    sample = np.full(100, bits.max()) if case == "skewed sample" else bits[::50]
    size = np.sort(bits & bits.dtype.type((1 << (8 * bits.itemsize - 1)) - 1))
    for removed in (1, 2500, 4999, 5000):
        cut, finite = find_cut(lambda: [bits[:3000], bits[3000:]], sample, 5000, removed, FLOATS[kind][1])
        assert finite
        assert cut.threshold == size[removed - 1]
        assert cut.ties == np.count_nonzero(size <= cut.threshold) - removed


def test_bad_input_is_one_clear_line(checkpoint, tmp_path, monkeypatch):
    source, _ = checkpoint()
    out = tmp_path / "out"
    for given, words in [
        ({}, "nothing to do"),
        ({"keep_fraction": 0.5, "n_m": (2, 4)}, "not both"),
        ({"keep_fraction": 0.0}, r"\(0, 1\].*got 0.0"),
        ({"n_m": (5, 4)}, "got 5:4"),
        ({"n_m": (2, 5)}, r"2:5 needs rows that 5 divides: model\.layers\.0\.up\.weight has 16"),
        ({"drop_layers": [7]}, r"3 layers model\.layers\.0\..*got 7"),
        ({"drop_layers": [0, 1, 2]}, "one layer must stay"),
        ({"drop_layers": [0], "layers": "blocks"}, r"no layers are called blocks\.0\."),
        ({"keep_fraction": 0.5, "include": ["nothing*"]}, r"include: 'nothing\*' fits no tensor"),
        ({"keep_fraction": 0.5, "exclude": ["*"]}, "no tensor is left to prune"),
    ]:
        with pytest.raises(RecipeError, match=words):
            prune_shards(source, out, **given)
    assert not out.exists()
    with pytest.raises(OutputError, match="another folder than the input"):
        prune_shards(source, source, keep_fraction=0.5)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(
        OutputError, match=r"out: the pruned checkpoint needs \d+ bytes on disk, and 100 are free: free some space"
    ):
        prune_shards(source, out, keep_fraction=0.5)
    monkeypatch.undo()
    out.mkdir(exist_ok=True)
    (out / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="isn't empty"):
        prune_shards(source, out, keep_fraction=0.5)


def test_a_checkpoint_that_isn_t_whole_is_refused(checkpoint, tmp_path):
    out = tmp_path / "out"
    source, tensors = checkpoint()
    first, index = source / "model-00001-of-00002.safetensors", source / "model.safetensors.index.json"

    def refused(words):
        with pytest.raises(WeightsError, match=words):
            prune_shards(source, out, keep_fraction=0.5)

    whole, text = first.read_bytes(), index.read_text()
    first.write_bytes(whole[:-10])
    refused("cut off: expected .* bytes, got")
    first.unlink()
    refused(r"names 2 shards, 1 of them aren't there: model-00001-of-00002")
    first.write_bytes(whole)
    index.write_text("{")
    refused("no readable JSON")
    index.write_text(text.replace("layers.0.up", "layers.9.up"))
    refused(r"'model\.layers\.9\.up\.weight' is in .*but it is in none")
    index.unlink()
    refused("2 shards need an index")
    with pytest.raises(WeightsError, match="got nothing"):
        prune_shards(tmp_path / "nowhere", out, keep_fraction=0.5)
    index.write_text(text)
    tensors["model.layers.0.up.weight"][3, 3] = float("nan")
    save_file({name: tensors[name] for name in list(tensors)[:4]}, first)
    refused(r"model\.layers\.0\.up\.weight: every number must be finite")
    assert not (out / first.name).exists()
