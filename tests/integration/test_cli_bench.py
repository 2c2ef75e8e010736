"""``prunus bench`` says first whether pruning made a model faster, and leaves numbers that machines read."""

from __future__ import annotations

import json

import pytest

from prunus.cli.app import invoke
from prunus.core.recipes.recipe import Model
from prunus.models import build
from prunus.ship import save_bundle


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A run's folder with a narrow bundle and a wide dense one."""
    monkeypatch.chdir(tmp_path)
    for name, width in (("bundle", 8), ("dense", 512)):
        built_by = Model(builder="mlp", args={"width": width, "depth": 3})
        model = build(built_by, input_shape=(64,), n_outputs=3, seed=0)
        shape = {"input_shape": (64,), "n_outputs": 3, "task": "classification", "class_names": "abc"}
        save_bundle(tmp_path / "run" / name, model, built_by=built_by, **shape)
    return "run"


def test_the_first_line_is_the_verdict_and_the_file_holds_the_numbers(run_folder, tmp_path, capsys, work_clock):
    words = ["bench", run_folder, "--batch", "1,64", "--threads", "1", "--runtime", "onnxruntime", "--runtime", "torch"]
    assert invoke([*words, "--repeats", "9", "--out", "bench.json", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("pruned is faster than the best dense model: ")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [(cell["batch_size"], cell["threads"], cell["clock"]) for cell in found["cells"]] == [
        (1, 1, "processor"),
        (64, 1, "processor"),
    ]
    for cell in found["cells"]:
        assert len(cell["times"]) == 4
        assert all(row["milliseconds"]["value"] > 0 for row in cell["times"])
    assert [model["name"] for model in found["models"]] == ["dense", "pruned"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--batch", "1,x"], 2, "--batch must be different whole numbers with commas between, like 1,32: got 1,x"),
        (["--threads", "0"], 2, "--threads must be different whole numbers"),
        (["--runtime", "onnx"], 3, "unknown runtime 'onnx'"),
        (["--dense", "nowhere"], 6, "no bundle at nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_line(run_folder, capsys, words, code, said):
    assert invoke(["bench", run_folder, *words]) == code
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
