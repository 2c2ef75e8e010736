"""An int8 file keeps its promise in its runtime, on test examples, or isn't written; what breaks it goes back to float."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from prunus.cli.app import invoke
from prunus.core.errors import DataError, MissingExtraError, ModelError, RecipeError
from prunus.core.recipes.recipe import Data, Model, Recipe, Train
from prunus.core.recipes.shipping.quantize_section import Quantize
from prunus.core.recipes.target_contract import Contract
from prunus.data import prepare
from prunus.evaluate import observe
from prunus.models import build
from prunus.pipeline.commands.bench_bundles import bench_bundles
from prunus.pipeline.commands.quantise_bundle import quantise_bundle
from prunus.pipeline.int8.quantise import Int8Examples, model_of_file, promise_of, quantise
from prunus.recover import train
from prunus.ship import load_bundle, save_bundle
from prunus.ship.quantize.int8_formats import INT8_RUNTIMES

DATA = Data(source="sklearn:digits", split={"validation": 0.2, "calibration": 0.1, "test": 0.3})
BUILT = Model(builder="cnn", args={"width": 16, "depth": 2})
LOOSE = Contract(max_drop=0.05)
ONNX = INT8_RUNTIMES["onnx"]
RUNTIMES = sorted(INT8_RUNTIMES)
TIMED = {"onnx": "onnxruntime", "openvino": "openvino"}


@pytest.fixture(scope="module")
def trained():
    data = prepare(DATA)
    model = build(BUILT, input_shape=data.source.input_shape, n_outputs=10, seed=0)
    train(model, data.train, Train(epochs=6), seed=0, stage="train")
    return data, model.eval()


def bundle_of(folder, trained, model=None, facts=None):
    data, own = trained
    save_bundle(
        folder,
        own if model is None else model,
        built_by=BUILT,
        input_shape=data.source.input_shape,
        n_outputs=10,
        task="classification",
        class_names=data.train.class_names,
        scaler=data.scaler,
        facts={"data": DATA.model_dump(mode="json")} if facts is None else facts,
    )
    return load_bundle(folder)


def parts(data):
    return Int8Examples(data.calibration, data.validation, data.test)


@pytest.mark.parametrize("to", RUNTIMES)
def test_a_file_is_measured_as_the_bundles_model_is(tmp_path, trained, to):
    data, model = trained
    bundle, runtime = bundle_of(tmp_path / "b", trained), INT8_RUNTIMES[to]
    asked = model_of_file(runtime, bundle, runtime.float_file(bundle), data.test)
    seen = observe(asked, data.test, data.test.task)
    own = observe(model, data.test, data.test.task)
    assert (seen["predicted"] == own["predicted"]).all()


@pytest.mark.parametrize("to", RUNTIMES)
def test_a_healthy_model_is_int8_as_a_whole_and_the_facts_are_those_of_the_file(tmp_path, trained, to):
    data, model = trained
    bundle, runtime = bundle_of(tmp_path / "b", trained), INT8_RUNTIMES[to]
    made = quantise(runtime, bundle, runtime.float_file(bundle), model, parts(data), Quantize(), LOOSE)
    assert made.kept
    assert made.facts["in_float"] == []
    assert made.facts["method"] == "static"
    assert made.facts["test"]["n"] == len(data.test)
    again = observe(model_of_file(runtime, bundle, made.file, data.test), data.test, data.test.task)
    assert made.facts["test"]["pruned"] == again["right"].mean()
    assert made.facts["size_bytes"] == len(made.file)
    runtime.write(made.file, tmp_path / "written")
    written = tmp_path / "written"
    on_disk = sorted(written.iterdir()) if written.is_dir() else [written]
    assert [file.name for file in on_disk] == {"onnx": ["written"], "openvino": ["model.bin", "model.xml"]}[to]
    assert sum(file.stat().st_size for file in on_disk) == len(made.file)
    if to == "openvino":  # its graph alone takes more than so small a model's weights
        return
    assert made.facts["size_bytes"] < 0.6 * made.facts["float_bytes"]  # so small a file is mostly its graph


class Outlier(nn.Module):
    """A net with an intermediate that holds one huge number: its 8-bit steps leave nothing of the others."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        width = 10
        self.spread, self.gather = nn.Linear(width, width + 1), nn.Linear(width + 1, width)
        with torch.no_grad():
            self.spread.weight[:] = torch.eye(width + 1, width)
            self.spread.bias[:] = 0
            self.spread.bias[-1] = 1e6
            self.gather.weight[:] = torch.eye(width, width + 1)
            self.gather.bias[:] = 0

    def forward(self, x):
        return self.gather(self.spread(self.model(x)))


@pytest.mark.parametrize("to", RUNTIMES)
def test_the_layers_that_break_it_go_back_to_float_and_the_others_stay_int8(tmp_path, trained, to):
    data, model = trained
    broken = Outlier(model).eval()
    folder = tmp_path / "b"
    save_bundle(
        folder, broken, built_by=None, dense=broken, input_shape=data.source.input_shape, n_outputs=10,
        task="classification", class_names=data.train.class_names, scaler=data.scaler,
    )  # fmt: skip
    bundle = load_bundle(folder)
    runtime = INT8_RUNTIMES[to]
    made = quantise(runtime, bundle, runtime.float_file(bundle), model, parts(data), Quantize(), LOOSE)
    assert made.kept
    assert 0 < len(made.facts["in_float"]) < made.facts["n_layers"] - 1
    worst = list(made.facts["errors"])[: len(made.facts["in_float"])]
    assert worst == made.facts["in_float"]


def test_one_that_cannot_keep_its_promise_is_refused_and_nothing_is_written(tmp_path, trained):
    data, _ = trained
    worse = build(BUILT, input_shape=data.source.input_shape, n_outputs=10, seed=1).eval()
    bundle_of(tmp_path / "run" / "bundle", trained, worse)
    bundle_of(tmp_path / "run" / "dense", trained)
    with pytest.raises(ModelError, match=r"int8 isn't worth it here: .* all in int8, and .* all in float"):
        quantise_bundle(tmp_path / "run", "onnx")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["bundle", "dense"]


def test_the_dense_model_beside_is_what_it_is_held_against(tmp_path, trained):
    bundle_of(tmp_path / "run" / "bundle", trained)
    bundle_of(tmp_path / "run" / "dense", trained)
    said = []
    facts = quantise_bundle(tmp_path / "run", "onnx", asked={"max_drop": 0.05}, note=said.append)
    assert facts["against"] == str(tmp_path / "run" / "dense")
    assert facts["path"] == str(tmp_path / "run" / "bundle.int8.onnx")
    assert json.dumps(facts)
    assert said == []
    alone = bundle_of(tmp_path / "alone", trained)
    facts = quantise_bundle(tmp_path / "alone", "onnx", asked={"max_drop": 0.05}, note=said.append)
    assert facts["against"] == "the bundle in float"
    assert "there is no dense model beside the bundle" in said[0]
    assert alone.sha256 == facts["sha256"]


def test_without_examples_one_line_says_how_to_give_them(tmp_path, trained):
    bundle_of(tmp_path / "b", trained, facts={})
    with pytest.raises(
        DataError, match=r"int8 is calibrated.* give the recipe with the data of the run \(--recipe RECIPE\)"
    ):
        quantise_bundle(tmp_path / "b", "onnx")
    facts = quantise_bundle(tmp_path / "b", "onnx", recipe=Recipe(data=DATA), asked={"max_drop": 0.05})
    assert facts["test"]["kept"]


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"max_drop": -1}, RecipeError, "quantize.max_drop: .* got -1"),
        ({"metric": "acc"}, RecipeError, "quantize.metric must be one that is evaluated: got 'acc'"),
        ({"keep_float": ("conv9",)}, RecipeError, "keep_float names 'conv9', which is no layer of the file: it has "),
    ],
)
def test_what_cannot_be_asked_is_one_line(tmp_path, trained, asked, error, said):
    bundle_of(tmp_path / "b", trained)
    with pytest.raises(error, match=said):
        quantise_bundle(tmp_path / "b", "onnx", asked=asked)
    with pytest.raises(ModelError, match="int8 files are written in onnx, openvino: got 'mnn'"):
        quantise_bundle(tmp_path / "b", "mnn")


def test_what_a_runtime_lacks_is_said_before_anything_is_read(tmp_path, trained, monkeypatch):
    bundle_of(tmp_path / "b", trained)
    with pytest.raises(RecipeError, match=r"quantize.method: OpenVINO's files have ranges from calibration examples"):
        quantise_bundle(tmp_path / "b", "openvino", asked={"method": "dynamic"})
    monkeypatch.setattr("prunus.core.code.extras.find_spec", lambda name: None if name == "nncf" else name)
    said = r"--to openvino --int8 needs the package 'nncf', which is not installed: pip install 'prunus\[int8\]'$"
    with pytest.raises(MissingExtraError, match=said):
        quantise_bundle(tmp_path / "no bundle", "openvino")


@pytest.mark.parametrize("part", ["calibration", "test"])
def test_without_examples_to_calibrate_on_or_to_decide_it_says_what_to_raise(tmp_path, trained, part):
    data, model = trained
    bundle = bundle_of(tmp_path / "b", trained)
    none = replace(parts(data), **{part: data.test.take(torch.arange(0))})
    with pytest.raises(DataError, match=rf"^int8 needs {part} examples: got none; raise data.split.{part}$"):
        quantise(ONNX, bundle, b"", model, none, Quantize(), LOOSE)


def test_the_promise_is_the_sections_then_the_contracts_then_a_point():
    assert promise_of(Quantize(), None, "classification").max_drop == 0.01
    assert promise_of(Quantize(), Contract(max_drop=0.03, confidence=0.9), "classification").max_drop == 0.03
    assert (
        promise_of(Quantize(max_drop=0.02), Contract(max_drop=0.03, confidence=0.9), "classification").confidence == 0.9
    )
    assert promise_of(Quantize(metric="f1_macro"), Contract(max_drop=0.03), "classification").max_drop == 0.01
    with pytest.raises(RecipeError, match="int8 needs to know how much mae may drop"):
        promise_of(Quantize(metric="mae"), None, "regression")
    with pytest.raises(RecipeError, match=r"quantize\.max_drop must be below 1 for accuracy.*got 3"):
        promise_of(Quantize(max_drop=3), None, "classification")


@pytest.mark.parametrize("to", RUNTIMES)
def test_the_command_says_what_was_written_and_what_was_shown_of_it(tmp_path, trained, capsys, to):
    bundle_of(tmp_path / "run" / "bundle", trained)
    bundle_of(tmp_path / "run" / "dense", trained)
    words = ["export", str(tmp_path / "run"), "--to", to]
    assert invoke([*words, "--int8", "--max-drop", "0.05"]) == 0
    said = capsys.readouterr().out
    made = tmp_path / "run" / f"bundle.int8.{to}"
    assert said.startswith(f"{made}: ")
    layers = "3 of 3" if to == "onnx" else r"([3-9]) of \1"  # to NNCF, additions and poolings are layers, too
    assert re.search(rf" static int8 in {layers} layers; the file's accuracy is ", said)
    assert "on 539 test examples (5.00 points allowed)" in said
    assert made.is_dir() if to == "openvino" else made.is_file()
    timed = bench_bundles([tmp_path / "run", made], batch_sizes=(4,), threads=(1,), runtimes=[TIMED[to]], repeats=5)
    (cell,) = timed["cells"]
    assert [row["model"] for row in cell["times"]] == ["dense", "pruned", str(made)]
    assert timed["failed"] == []
    assert invoke([*words, "--max-drop", "0.05"]) == 2
    assert "are for --int8" in " ".join(capsys.readouterr().err.replace("│", " ").split())
