"""A checkpoint from elsewhere becomes safetensors of the same numbers, or is refused in one line; none of it runs here."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from patience import no_hang
from prunus.cli.app import invoke
from prunus.core.errors import OutputError, WeightsError
from prunus.core.files.file_hash import sha256_file
from prunus.models.checkpoint_child import converted
from prunus.models.foreign_checkpoint import import_checkpoint


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def same(path, state) -> bool:
    found = load_file(path)
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in found)


WRAPPED = {
    "a state dict": lambda state: state,
    "under state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "of Lightning": lambda state: {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "lr_schedulers": [],
        "hyper_parameters": {"width": 3},
    },
    "beside an optimizer": lambda state: {**state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
}


@pytest.fixture
def here(monkeypatch):
    """Do what the child does in this process, without its limits: it takes seconds to start."""
    monkeypatch.setattr(
        "prunus.models.foreign_checkpoint._in_child", lambda path, out, size, key: converted(path, out, key)
    )


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", WRAPPED)
def test_a_checkpoint_gives_the_same_tensors_and_says_what_was_left_out(tmp_path, kind):
    state = model().state_dict()
    source, out = tmp_path / "c.ckpt", tmp_path / "w.safetensors"
    torch.save(WRAPPED[kind](state), source)
    made = import_checkpoint(source, out)
    assert same(out, state)
    assert made.tensors == {n: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for n, t in state.items()}
    assert (made.source_sha256, made.sha256) == (sha256_file(source), sha256_file(out))
    assert json.loads((tmp_path / "w.safetensors.import.json").read_text()) == made.to_dict()
    with safe_open(out, "pt") as file:
        assert file.metadata()["source_sha256"] == made.source_sha256
    left = {words.partition(" (")[0] for words in made.left_out}
    assert left == {key for key in WRAPPED[kind](state) if key not in state and key != "state_dict"}


@pytest.mark.usefixtures("here")
def test_the_format_before_torch_1_6_and_safetensors_are_read_too(tmp_path):
    state = model().state_dict()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "w.safetensors")
    for name in ("old.pt", "w.safetensors"):
        import_checkpoint(tmp_path / name, tmp_path / "out.safetensors")
        assert same(tmp_path / "out.safetensors", state)


@pytest.mark.usefixtures("here")
def test_tensors_under_another_key_are_found_by_it(tmp_path):
    state = model().state_dict()
    torch.save({"net": state, "ema": OrderedDict(state)}, tmp_path / "c.pth")
    import_checkpoint(tmp_path / "c.pth", tmp_path / "w.safetensors", key="net")
    assert same(tmp_path / "w.safetensors", state)
    with pytest.raises(WeightsError, match="there are 'net', 'ema'"):
        import_checkpoint(tmp_path / "c.pth", tmp_path / "w.safetensors", key="model")


@pytest.mark.usefixtures("here")
def test_numbers_that_are_none_are_noted(tmp_path):
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "c.pt")
    assert import_checkpoint(tmp_path / "c.pt", tmp_path / "w.safetensors").notes == (
        "a holds values that are NaN or infinite",
    )


class Runs:
    def __init__(self, place) -> None:
        self.place = place

    def __reduce__(self):
        return os.system, (f"touch {self.place}",)


@pytest.mark.parametrize("old", [False, True])
def test_what_would_run_code_is_refused_and_nothing_is_written(tmp_path, old):
    torch.save(
        {"a": torch.ones(2), "b": Runs(tmp_path / "ran")}, tmp_path / "c.pt", _use_new_zipfile_serialization=not old
    )
    refused(tmp_path, "c.pt")


def refused(folder, name, said=""):
    with pytest.raises(WeightsError, match=said or None) as caught:
        import_checkpoint(folder / name, folder / "w.safetensors")
    assert "\n" not in str(caught.value)
    assert not (folder / "ran").exists()
    assert not list(folder.glob("*w.safetensors*"))


@pytest.mark.usefixtures("here")
def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "c.bin").write_bytes(pickle.dumps(Runs(tmp_path / "ran"), 2))
    refused(tmp_path, "c.bin")


@pytest.mark.usefixtures("here")
def test_what_claims_more_than_it_holds_is_refused(tmp_path):
    """Views that repeat one number: a few bytes that would be two terabytes."""
    torch.save({"a": torch.ones(1).expand(2**20, 2**19)}, tmp_path / "c.pt")
    refused(tmp_path, "c.pt")
    torch.save({"a": torch.ones(1).expand(2**20, 2**19)}, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path, "c.pt")


def test_a_pickle_that_never_ends_stops_at_the_limit(tmp_path, monkeypatch):
    """Of the old format, which torch itself reads: a list that is doubled fifty times."""
    monkeypatch.setattr("prunus.models.foreign_checkpoint._SECONDS", 3)
    body = b"\x80\x02]q\x00" + b"(" + b"h\x00" * 3_000_000 + b"e."
    head = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "c.pt").write_bytes(head + body)
    with no_hang():
        refused(tmp_path, "c.pt")


def test_what_brings_the_reading_process_down_is_refused_by_the_one_that_started_it(tmp_path):
    head = b"".join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    nested = b"\x80\x02}" + b"(" * 400_000 + b"t" * 400_000 + b"K\x01s."  # to hash this key overflows the stack
    (tmp_path / "c.pt").write_bytes(head + nested)
    refused(tmp_path, "c.pt")


def test_a_reading_that_gets_nowhere_ends_too(tmp_path, monkeypatch):
    monkeypatch.setattr("prunus.models.foreign_checkpoint._WAITS", 0.01)
    torch.save({"a": torch.ones(2)}, tmp_path / "c.pt")
    refused(tmp_path, "c.pt", "takes more than 0.2 seconds")


@pytest.mark.usefixtures("here")
def test_links_that_lead_in_a_circle_are_refused(tmp_path):
    (tmp_path / "c.pt").symlink_to(tmp_path / "d.pt")
    (tmp_path / "d.pt").symlink_to(tmp_path / "c.pt")
    refused(tmp_path, "c.pt")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"no checkpoint"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "c.pt").write_bytes(content)
    refused(tmp_path, "c.pt")


@pytest.mark.usefixtures("here")
def test_a_wrong_ending_and_a_missing_file_are_said(tmp_path):
    with pytest.raises(WeightsError, match="ends in"):
        import_checkpoint(tmp_path / "c.h5", tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="can't be read"):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "w.safetensors")
    with pytest.raises(OutputError, match="safetensors"):
        import_checkpoint(tmp_path / "c.pt", tmp_path / "w.pt")


def test_the_command_prints_what_came_of_it(tmp_path, capsys):
    torch.save({"state_dict": model().state_dict(), "epoch": 1}, tmp_path / "c.pt")
    assert invoke(["import", str(tmp_path / "c.pt"), "--out", str(tmp_path / "w.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "7 tensors (float32, int64)" in said
    assert "left out: epoch (int)" in said
