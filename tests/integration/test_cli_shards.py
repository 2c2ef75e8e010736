"""prunus shards, as it is typed."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.cli.app import invoke


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    weights = {f"h.{i}.w": torch.randn(8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)}
    save_file(weights, tmp_path / "in" / "model.safetensors")
    return weights


def test_one_file_without_an_index_is_a_checkpoint_too(source, capsys):
    arguments = ["shards", "in", "out", "--keep-fraction", "0.5", "--drop-layers", "1", "--json"]
    assert invoke(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["weights"], report["weights_kept"], report["layers_dropped"]) == (128, 64, [1])
    found = load_file("out/model.safetensors")
    assert sorted(found) == ["h.0.w", "h.1.w"]
    assert torch.equal(found["h.1.w"], source["h.2.w"] * (found["h.1.w"] != 0))


def test_the_plain_answer_is_one_line(source, capsys):
    assert invoke(["shards", "in", "out", "--n-m", "2:4", "--quiet"]) == 0
    assert "96 of 192 weights stay in 3 tensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["in", "out"], 3, "nothing to do"),
        (["in", "out", "--n-m", "2/4"], 3, "got '2/4'"),
        (["in", "out", "--drop-layers", "1-"], 3, "got '1-'"),
        (["in", "out", "--keep-fraction", "1.5"], 3, "got 1.5"),
        (["nowhere", "out", "--n-m", "2:4"], 5, "nowhere"),
        (["in", "in", "--n-m", "2:4"], 7, "another folder"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(source, capsys, arguments, code, words):
    assert invoke(["shards", *arguments, "--quiet"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
