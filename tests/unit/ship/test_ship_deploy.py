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
from prunus.ship import load_bundle
from prunus.ship.deploy import export_file, relative_difference
from prunus.ship.formats import FORMATS, format_of
from prunus.ship.mnn.mnn_file import run_mnn
from ship_stand_ins import build, made, options, pruned
from tests_support import onnxruntime_installed

needs_onnx = pytest.mark.skipif(not onnxruntime_installed(), reason="the extra onnx isn't installed")
needs_mnn = pytest.mark.skipif(
    not onnxruntime_installed() or importlib.util.find_spec("MNN") is None, reason="the extra mnn isn't installed"
)
MARKS = {"mnn": needs_mnn, "torch": ()}
PLAIN = ("mnn", "onnx", "openvino", "torch")
"""Formats of any model that need no converter of their own; the others have tests of their own."""
RUN_HERE = [pytest.param(to, marks=MARKS.get(to, needs_onnx)) for to in PLAIN]


def answers(path, to, inputs):
    return FORMATS[to].answers(path, [inputs])[0][0]


def size_of(path):
    return sum(each.stat().st_size for each in (path.iterdir() if path.is_dir() else [path]))


@pytest.mark.parametrize("to", RUN_HERE)
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
    assert (facts.size_bytes, facts.format, facts.zeros) == (size_of(path), to, "no")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["bundle", path.name])


class AsTraced(nn.Linear):
    """Answers otherwise when it is exported than when it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (0.01 if torch.compiler.is_compiling() else 0.0)


@pytest.mark.parametrize("to", RUN_HERE)
def test_a_file_that_would_answer_otherwise_is_not_written_and_what_was_there_stays(made, tmp_path, to):
    torch.manual_seed(0)
    bundle = replace(load_bundle(made.folder), model=AsTraced(6, 3).eval())
    path = tmp_path / f"m.{to}"
    held = path / FORMATS[to].files[0] if FORMATS[to].files else path
    held.parent.mkdir(exist_ok=True)
    held.write_text("before")
    with pytest.raises(ModelError, match=r"would give other outputs than the bundle.*nothing was written"):
        export_file(bundle, to, path)
    assert held.read_text() == "before"
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["bundle", path.name])


@needs_onnx
def test_an_export_takes_the_place_of_a_file_but_not_of_a_folder(made, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("before")
    export_file(load_bundle(made.folder), "onnx", path)
    assert path.stat().st_size > 100
    with pytest.raises(OutputError, match="can't write"):
        export_file(load_bundle(made.folder), "onnx", made.folder)


@needs_onnx
@pytest.mark.parametrize("to", [name for name in PLAIN if FORMATS[name].files])
def test_a_folder_takes_the_place_of_an_export_and_of_nothing_else(made, tmp_path, to):
    bundle = load_bundle(made.folder)
    export_file(bundle, to, tmp_path / "m")
    export_file(bundle, to, tmp_path / "m")
    assert {file.name for file in (tmp_path / "m").iterdir()} == set(FORMATS[to].files)
    (tmp_path / "m" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "m")
    for taken, what in (("m", r"other things in it \(thesis.tex\)"), ("file", "no folder"), ("link", "no folder")):
        with pytest.raises(OutputError, match=f"can't write .*{what} is there; choose another place"):
            export_file(bundle, to, tmp_path / taken)
    assert (tmp_path / "m" / "thesis.tex").read_text() == "years"


class Untraceable(nn.Linear):
    def forward(self, x):
        return super().forward(x) if float(x.sum()) > 0 else x[:, :1]


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs()


def within(layer):
    return nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), layer)).eval()


@needs_onnx
@pytest.mark.parametrize(
    ("to", "layer", "said"),
    [
        ("onnx", Untraceable(6, 3), r"to ONNX: [^\n]+ in the layer '1.1'"),
        ("torch", Untraceable(6, 3), r"to torch: [^\n]+ in the layer '1.1'"),
        ("onnx", Bessel(), r"to ONNX: [^\n]+bessel_j0[^\n]+ in the layer '1.1'"),
        ("openvino", Bessel(), r"to ONNX: [^\n]+bessel_j0[^\n]+ in the layer '1.1'"),
        pytest.param(
            "mnn", Spectrum(), r"to MNN: it has no operation DFT, of the layer '1.1'; export", marks=needs_mnn
        ),
    ],
)
def test_what_a_format_cant_say_is_named_with_its_layer_in_one_line(made, tmp_path, capfd, to, layer, said):
    bundle = replace(load_bundle(made.folder), model=within(layer))
    with pytest.raises(ModelError, match=rf"^the model can't be exported {said}[^\n]*$") as error:
        export_file(bundle, to, tmp_path / "m")
    assert "evaluation.latency" not in str(error.value)
    assert not (tmp_path / "m").exists()
    assert capfd.readouterr() == ("", "")


@needs_mnn
def test_an_operation_that_mnn_lacks_is_named(made, tmp_path):
    bundle = replace(load_bundle(made.folder), model=Spectrum().eval())
    with pytest.raises(ModelError, match=r"can't be exported to MNN: it has no operation DFT; export it to ONNX"):
        export_file(bundle, "mnn", tmp_path / "m.mnn")


@needs_mnn
def test_a_file_that_mnn_doesnt_run_is_an_error_of_one_line_and_not_an_end(tmp_path):
    (tmp_path / "m.mnn").write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(ModelError, match=r"^MNN converts the model but doesn't run it: [^\n]+; export it to ONNX$"):
        run_mnn(tmp_path / "m.mnn", [torch.zeros(1, 6)])


def test_a_format_that_isnt_there_names_the_near_one(made, tmp_path):
    with pytest.raises(UnknownNameError, match="unknown format 'onx': did you mean 'onnx'"):
        format_of("onx")
    with pytest.raises(UnknownNameError, match=r"choose one of: coreml, executorch, .*, torch"):
        export_file(load_bundle(made.folder), "wasm", tmp_path / "m")


@pytest.mark.parametrize(("to", "absent"), [(name, one) for name in PLAIN for one in FORMATS[name].packages])
def test_a_missing_package_is_said_with_its_extra(made, tmp_path, monkeypatch, to, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtraError, match=rf"'{absent}'.*pip install 'prunus\[{FORMATS[to].extra}\]'"):
        export_file(load_bundle(made.folder), to, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_difference_is_relative_to_the_largest_output_and_never_hides_nan_or_shapes():
    one = [torch.tensor([1.0, -4.0]), torch.tensor([0.0])]
    assert relative_difference(one, one) == 0
    assert relative_difference(one, [one[0], torch.tensor([1.0])]) == 0.25
    assert relative_difference(one, [one[0], torch.tensor([torch.nan])]) == float("inf")
    assert relative_difference(one, [one[0], torch.zeros(2)]) == float("inf")
    assert relative_difference(one, one[:1]) == float("inf")
    assert relative_difference([torch.tensor([True, False])], [torch.tensor([True, True])]) == 1
    endless = torch.tensor([-torch.inf, 2.0])
    assert relative_difference([endless], [endless + 1]) == 0.5
    assert relative_difference([endless], [-endless]) == float("inf")


class Large(nn.Module):
    """Gives numbers in torch, and overflows where it is exported, as half precision would."""

    def forward(self, x):
        return (x * 1e30) * (1e30 if torch.compiler.is_compiling() else 1.0)


@needs_onnx
@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_an_output_that_overflows_is_said_as_such_and_one_that_is_no_number_in_the_bundle_too(made, tmp_path, to):
    bundle = replace(load_bundle(made.folder), model=Large().eval())
    with pytest.raises(ModelError, match=r"output 0 of the file overflows: \d+ of 72 values are infinite or NaN"):
        export_file(bundle, to, tmp_path / "m")
    lost = nn.Linear(6, 3)
    with torch.no_grad():
        lost.bias[1] = torch.nan
    with pytest.raises(ModelError, match=r"24 of 72 values of the bundle's own output 0 are NaN|12 of 36 values"):
        export_file(replace(bundle, model=lost.eval()), to, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@needs_onnx
def test_a_file_is_compared_on_real_inputs_too(made, tmp_path):
    class OnLarge(nn.Linear):
        def forward(self, x):
            extra = 1e3 * (x[:, :1].abs() > 1000).float() if torch.compiler.is_compiling() else 0.0
            return super().forward(x) + extra

    torch.manual_seed(0)
    bundle = replace(load_bundle(made.folder), model=OnLarge(6, 3).eval())
    assert export_file(bundle, "onnx", tmp_path / "m.onnx").n_samples == 0
    few = [torch.randn(4, 6), torch.randn(3, 6)]
    assert export_file(bundle, "onnx", tmp_path / "m.onnx", samples=few).n_samples == 7
    with pytest.raises(ModelError, match="would give other outputs than the bundle"):
        export_file(bundle, "onnx", tmp_path / "m.onnx", samples=[*few, torch.full((2, 6), 1e4)])
