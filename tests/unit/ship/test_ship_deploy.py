# ruff: noqa: F811, F401 - fixtures are imported by name
"""A file for another runtime answers as the bundle does (law 11), and nothing is written where it wouldn't."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from prunus.core.errors import MissingExtraError, ModelError, OutputError, UnknownNameError
from prunus.data import Scaler
from prunus.evaluate.timing.onnx_session import OnnxModel
from prunus.evaluate.timing.runtimes import onnxruntime_installed
from prunus.ship import load_bundle
from prunus.ship.deploy import export_file, relative_difference
from prunus.ship.formats import format_of
from prunus.ship.mnn.mnn_file import run_mnn
from ship_stand_ins import build, made, options, pruned

needs_onnx = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")
needs_mnn = pytest.mark.skipif(
    not onnxruntime_installed() or importlib.util.find_spec("MNN") is None, reason="the extra mnn isn't installed"
)
FORMATS = [pytest.param("onnx", marks=needs_onnx), pytest.param("mnn", marks=needs_mnn)]


def answers(path, to, inputs):
    return OnnxModel(path.read_bytes())(inputs) if to == "onnx" else run_mnn(path, [inputs])[0]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("prefer", ["eager", "graph"])
def test_the_file_takes_raw_inputs_in_any_batch_and_answers_as_predict_does(made, tmp_path, to, prefer):
    bundle = replace(
        load_bundle(made.folder, prefer=prefer),
        target_scaler=Scaler(torch.tensor(5.0), torch.tensor(3.0)),
    )
    path = tmp_path / f"m.{to}"
    facts = export_file(bundle, to, path)
    for size in (1, 2, 7):
        inputs = 2 * torch.randn(size, 6) + torch.arange(6.0)
        assert torch.allclose(answers(path, to, inputs), bundle.predict(inputs), atol=1e-4)
    assert facts.difference < 1e-5
    assert (facts.size_bytes, facts.format, facts.zeros) == (path.stat().st_size, to, "no")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [path.name]


class AsTraced(nn.Linear):
    """Answers otherwise when it is exported than when it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (0.01 if torch.compiler.is_compiling() else 0.0)


@pytest.mark.parametrize("to", FORMATS)
def test_a_file_that_would_answer_otherwise_is_not_written_and_what_was_there_stays(made, tmp_path, to):
    torch.manual_seed(0)
    bundle = replace(load_bundle(made.folder), model=AsTraced(6, 3).eval())
    path = tmp_path / f"m.{to}"
    path.write_text("before")
    with pytest.raises(ModelError, match=r"would give other outputs than the bundle.*nothing was written"):
        export_file(bundle, to, path)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [path.name]


@needs_onnx
def test_an_export_takes_the_place_of_a_file_but_not_of_a_folder(made, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("before")
    export_file(load_bundle(made.folder), "onnx", path)
    assert path.stat().st_size > 100
    with pytest.raises(OutputError, match="can't write"):
        export_file(load_bundle(made.folder), "onnx", made.folder)


@needs_onnx
def test_a_model_that_torch_cant_export_is_refused_in_one_line(made, tmp_path):
    class Untraceable(nn.Linear):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x[:, :1]

    bundle = replace(load_bundle(made.folder), model=Untraceable(6, 3).eval())
    with pytest.raises(ModelError, match=r"can't be exported to ONNX: [^\n]+$") as error:
        export_file(bundle, "onnx", tmp_path / "m.onnx")
    assert "evaluation.latency" not in str(error.value)
    assert not (tmp_path / "m.onnx").exists()


@needs_mnn
def test_an_operation_that_mnn_lacks_is_named(made, tmp_path):
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x).abs()

    bundle = replace(load_bundle(made.folder), model=Spectrum().eval())
    with pytest.raises(ModelError, match=r"can't be exported to MNN: .*ONNX::DFT.*; export it to ONNX"):
        export_file(bundle, "mnn", tmp_path / "m.mnn")


@needs_mnn
def test_a_file_that_mnn_doesnt_run_is_an_error_of_one_line_and_not_an_end(tmp_path):
    (tmp_path / "m.mnn").write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(ModelError, match=r"^MNN converts the model but doesn't run it: [^\n]+; export it to ONNX$"):
        run_mnn(tmp_path / "m.mnn", [torch.zeros(1, 6)])


def test_a_format_that_isnt_there_names_the_near_one(made, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown format 'onx': did you mean 'onnx'"):
        format_of("onx")
    with pytest.raises(UnknownNameError, match="choose one of: mnn, onnx"):
        export_file(load_bundle(made.folder), "tflite", tmp_path / "m")


@pytest.mark.parametrize(("to", "absent"), [("mnn", "MNN"), ("onnx", "onnxruntime")])
def test_a_missing_package_is_said_with_its_extra(made, tmp_path, monkeypatch, to, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtraError, match=rf"'{absent}'.*pip install 'prunus\[{to}\]'"):
        export_file(load_bundle(made.folder), to, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_difference_is_relative_to_the_largest_output_and_never_hides_nan_or_shapes():
    one = [torch.tensor([1.0, -4.0]), torch.tensor([0.0])]
    assert relative_difference(one, one) == 0
    assert relative_difference(one, [one[0], torch.tensor([1.0])]) == 0.25
    assert relative_difference(one, [one[0], torch.tensor([torch.nan])]) == float("inf")
    assert relative_difference(one, [one[0], torch.zeros(2)]) == float("inf")
    assert relative_difference(one, one[:1]) == float("inf")
