"""A resume goes on with what is as it was written, of a checkpoint that is as it was, and with nothing else."""

from __future__ import annotations

import json
import os

import pytest
from safetensors.torch import load_file, save_file

from prunus.core.errors import OutputError, WeightsError
from prunus.scale import prune_shards


def test_a_shard_that_is_written_to_while_it_is_read_is_refused(checkpoint, tmp_path, monkeypatch):
    source, _ = checkpoint()
    from prunus.scale import rewrite

    real = rewrite._header

    def meanwhile(shard, *given):
        os.utime(shard.path, ns=(1, 1))
        return real(shard, *given)

    monkeypatch.setattr(rewrite, "_header", meanwhile)
    with pytest.raises(WeightsError, match="was changed while it was read"):
        prune_shards(source, tmp_path / "out", keep_fraction=0.5)
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.fixture
def stopped(checkpoint, tmp_path, monkeypatch):
    """A run that was killed before its last step, when both shards were there, and what a whole one gives."""
    source, _ = checkpoint()
    prune_shards(source, tmp_path / "whole", keep_fraction=0.5)
    from prunus.scale import shards

    def dies(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "_write_rest", dies)
        prune_shards(source, tmp_path / "out", keep_fraction=0.5)
    return source, tmp_path / "out", tmp_path / "whole"


@pytest.mark.parametrize("change", ["a bit", "a cut", "a link", "gone"])
def test_a_resume_writes_again_what_isn_t_as_it_was_written(stopped, change):
    source, out, whole = stopped
    shard = out / "model-00002-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    if change == "a bit":
        content[-7] ^= 16
        shard.write_bytes(content)
    elif change == "a cut":
        shard.write_bytes(content[:-8])
    else:
        shard.unlink()
        if change == "a link":
            shard.symlink_to(whole / shard.name)
    notes = []
    report = prune_shards(source, out, keep_fraction=0.5, resume=True, listener=notes.append)
    assert report.shards_resumed == 1
    assert any("isn't as it was written" in event.message for event in notes)
    assert not shard.is_symlink()
    for path in whole.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_a_resume_of_a_checkpoint_that_was_changed_is_refused(stopped):
    source, out, _ = stopped
    shard = source / "model-00001-of-00002.safetensors"
    tensors = load_file(shard)
    save_file({name: -tensor for name, tensor in tensors.items()}, shard, metadata={"format": "pt"})
    with pytest.raises(OutputError, match="its files were changed since"):
        prune_shards(source, out, keep_fraction=0.5, resume=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"run": 1, "done": 2, "sha256": "x"}', "\xff", "[" * 9999])
def test_a_state_that_is_damaged_is_one_clear_line(stopped, text):
    source, out, _ = stopped
    (out / ".prunus-shards.json").write_text(text, encoding="latin-1")
    with pytest.raises(OutputError, match="state is damaged"):
        prune_shards(source, out, keep_fraction=0.5, resume=True)


def test_a_state_that_was_changed_by_hand_is_refused(stopped):
    source, out, _ = stopped
    path = out / ".prunus-shards.json"
    tree = json.loads(path.read_text())
    tree["done"]["model-00001-of-00002.safetensors"][1] ^= 1
    path.write_text(json.dumps(tree))
    with pytest.raises(OutputError, match="state is damaged or was changed"):
        prune_shards(source, out, keep_fraction=0.5, resume=True)


def test_a_resume_refuses_what_isn_t_the_run_s_and_clears_what_a_kill_left(stopped):
    source, out, _ = stopped
    (out / ".model-00001-of-00002.safetensors.0123abcd.part").write_text("half")
    (out / "more.safetensors").write_text("mine")
    with pytest.raises(OutputError, match=r"holds 'more\.safetensors', which is none of the run's"):
        prune_shards(source, out, keep_fraction=0.5, resume=True)
    (out / "more.safetensors").unlink()
    prune_shards(source, out, keep_fraction=0.5, resume=True)
    assert not list(out.glob(".*"))
