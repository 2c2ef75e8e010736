"""``prunus export`` writes what another runtime answers with, and says in one line what it wrote or why it didn't."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from prunus.cli.app import invoke
from prunus.core.recipes.recipe import Model
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.models import build
from prunus.ship import load_bundle, save_bundle
from prunus.ship.mnn.mnn_file import run_mnn
from tests_support import onnxruntime_installed

needs_onnx = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")
needs_mnn = pytest.mark.skipif(
    not onnxruntime_installed() or importlib.util.find_spec("MNN") is None, reason="the extra mnn isn't installed"
)


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """A run's folder with the bundle of a CNN of which nine in ten 4x1 blocks are zero."""
    monkeypatch.chdir(tmp_path)
    built_by = Model(builder="cnn", args={"width": 64})
    model = build(built_by, input_shape=(1, 8, 8), n_outputs=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 4:
                flat = parameter.view(len(parameter), -1)
                kept = torch.rand(len(flat) // 4, flat.shape[1], generator=generator) < 0.05
                flat *= kept.repeat_interleave(4, dim=0)
    save_bundle(
        tmp_path / "run" / "bundle",
        model,
        built_by=built_by,
        input_shape=(1, 8, 8),
        n_outputs=10,
        task="classification",
        class_names=tuple("0123456789"),
    )
    return Path("run")


@needs_onnx
def test_a_run_is_exported_beside_its_bundle_and_the_line_says_what_was_written(run_folder, capsys, monkeypatch):
    assert invoke(["export", str(run_folder), "--to", "onnx"]) == 0
    out = capsys.readouterr()
    path = run_folder / "bundle.onnx"
    assert out.out.startswith("run/bundle.onnx: ")
    assert out.out.count("\n") == 1
    assert "of the largest one of the bundle's, for batches of 1, 3, 8" in out.out
    monkeypatch.chdir(run_folder / "bundle")
    assert invoke(["export", ".", "--to", "onnx"]) == 0
    monkeypatch.chdir("../..")
    assert sorted(file.name for file in run_folder.iterdir()) == ["bundle", "bundle.onnx"]
    inputs = torch.randn(5, 1, 8, 8)
    bundle = load_bundle(run_folder / "bundle")  # which the file beside it doesn't harm
    assert torch.allclose(OnnxModel(path.read_bytes())(inputs), bundle.predict(inputs), atol=1e-4)


@needs_mnn
def test_a_model_with_zeros_goes_to_mnn_with_sparse_kernels_and_json_is_all_there_is(run_folder, capfd):
    assert invoke(["export", "run/bundle", "--to", "mnn", "--out", "new/m.mnn", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)  # MNN itself writes to standard output
    bundle = load_bundle(run_folder / "bundle")
    assert facts == {
        "bundle": "run/bundle",
        "sha256": bundle.sha256,
        "kind": "eager",
        "path": "new/m.mnn",
        "format": "mnn",
        "size_bytes": Path("new/m.mnn").stat().st_size,
        "difference": facts["difference"],
        "batches": [1, 3, 8],
        "zeros": "4x1",
        "sizes": ["(n, 1, 8, 8)"],
        "note": "",
        "version": "MNN, from ONNX opset 20",
        "n_samples": 0,
        "checked": [],
    }
    assert facts["difference"] < 1e-4
    inputs = torch.randn(5, 1, 8, 8)
    assert torch.allclose(run_mnn(Path("new/m.mnn"), [inputs])[0], bundle.predict(inputs), atol=1e-4)
    assert invoke(["export", "run", "--to", "mnn"]) == 0
    assert ", sparse kernels for 4x1 blocks (MNN, from ONNX opset 20); its outputs" in capfd.readouterr().out


def test_every_mistake_is_one_line_with_its_exit_code(run_folder, capsys, monkeypatch):
    def fails(code, words, *arguments):
        assert invoke(["export", *arguments]) == code
        said = capsys.readouterr()
        assert not said.out
        if code != 2:
            assert said.err.count("\n") == 1
        assert words in said.err

    fails(2, "--to", "run")
    fails(3, "unknown format 'onnxx': did you mean 'onnx'?", "run", "--to", "onnxx")
    fails(6, "nowhere", "nowhere", "--to", "onnx")
    monkeypatch.setitem(sys.modules, "MNN", None)
    fails(9, "pip install 'prunus[mnn]'", "run", "--to", "mnn")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    fails(9, "pip install 'prunus[onnx]'", "run", "--to", "onnx")
    assert sorted(path.name for path in run_folder.iterdir()) == ["bundle"]
