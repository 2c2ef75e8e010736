# ruff: noqa: F811, F401 - fixtures are imported by name
"""Formats with converters of their own: what prunus does around them holds without them; the real ones run where they are there."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_ship_sizes import CASES, answer, loaded
from torch import nn

from prunus.core.errors import ModelError
from prunus.ship import export_file, load_bundle
from prunus.ship.formats import FORMATS, converter, to_coreml
from prunus.ship.formats.export_source import ExportSource
from ship_stand_ins import build, made, options, pruned

EDGE = ["executorch", "litert", "coreml"]


def stand_in(monkeypatch, act):
    """Let no converter run: ``act`` gets the work and its files, and returns what the converter says."""
    monkeypatch.setattr(converter, "work", act)
    monkeypatch.setattr(to_coreml, "work", act)
    for name in EDGE:
        monkeypatch.setattr(type(FORMATS[name]), "packages", ())
    for module in ("to_executorch", "to_litert", "to_coreml"):
        monkeypatch.setattr(f"prunus.ship.formats.{module}.version", lambda _: "0")


def runs(program, given, wanted):
    model = torch.export.load(program).module()
    with np.load(given) as held:
        batches = {int(key.split(".")[0]): torch.from_numpy(held[key]) for key in held.files}
    with torch.no_grad():
        outputs = {f"{n}.0": model(batch).numpy() for n, batch in batches.items()}
    np.savez(wanted, **outputs)
    return []


@pytest.mark.parametrize("to", ["executorch", "litert"])
def test_a_file_is_written_and_asked_in_processes_of_their_own(made, tmp_path, monkeypatch, to):
    asked = []

    def act(work, *files):
        asked.append(work)
        if work == f"to_{to}":
            Path(files[1]).write_bytes(Path(files[0]).read_bytes())
            return []
        return runs(*files)

    stand_in(monkeypatch, act)
    facts = export_file(load_bundle(made.folder), to, tmp_path / "m", samples=[torch.randn(40, 6)])
    assert asked == [f"to_{to}", f"run_{to}"]
    assert (facts.difference, facts.n_samples) == (0, 40)
    assert facts.sizes == (("(1 to 8, 6)",) if to == "executorch" else ("(1, 6)",))
    assert facts.batches == ((1, 3, 8) if to == "executorch" else (1,))


@pytest.mark.parametrize("to", EDGE)
def test_what_a_converter_lacks_is_named_with_its_layer_and_nothing_is_left(made, tmp_path, monkeypatch, to):
    class Bessel(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    stand_in(
        monkeypatch, lambda *_: ["Traceback:", "NotImplementedError: no aten.special_bessel_j0 here", "it goes on"]
    )
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), Bessel()))
    bundle = replace(load_bundle(made.folder), model=model.eval())
    said = r"no aten.special_bessel_j0 here, of the layer '1.1'; export it to ONNX$"
    with pytest.raises(ModelError, match=said):
        export_file(bundle, to, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


GOOD = {
    "inputs": {"input": [[1, 8], [6, 6]]},
    "outputs": ["output"],
    "n_operations": 3,
    "n_weights": 9,
    "finite": True,
}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, None),
        (
            {"inputs": {"input": [[1, 8], [7, 7]]}},
            r"may have the sizes \[\[1, 8\], \[7, 7\]\]: expected \[\[1, 8\], \[6, 6\]\]",
        ),
        ({"inputs": {"other": [[1, 8], [6, 6]]}}, "'other'"),
        ({"outputs": ["a", "b"]}, "gives 2 outputs, and the model 1"),
        ({"n_operations": 0}, "no operations, or weights that are infinite"),
        ({"finite": False}, "weights that are infinite"),
    ],
)
def test_a_package_of_core_ml_is_read_back_and_says_that_it_did_not_run(made, tmp_path, monkeypatch, found, said):
    def act(work, *files):
        if work == "to_coreml":
            told = json.loads(Path(files[2]).read_text())
            assert told["inputs"] == [
                {"name": "input", "shape": [2, 6], "spans": [[1, 8, "batch"], [6, 6, ""]], "dtype": "float32"}
            ]
            Path(files[1]).mkdir()
            (Path(files[1]) / "Manifest.json").write_text("{}")
        else:
            assert (Path(files[0]) / "Manifest.json").read_text() == "{}"
            Path(files[1]).write_text(json.dumps(GOOD | found))
        return []

    stand_in(monkeypatch, act)
    bundle = load_bundle(made.folder)
    if said is not None:
        with pytest.raises(ModelError, match=said):
            export_file(bundle, "coreml", tmp_path / "m")
        assert not (tmp_path / "m").exists()
        return
    facts = export_file(bundle, "coreml", tmp_path / "m", samples=[torch.randn(4, 6)])
    assert (facts.difference, facts.batches, facts.n_samples) == (None, (), 0)
    assert facts.checked == (
        "1 of 1 inputs with their sizes",
        "1 outputs",
        "3 operations",
        "9 numbers of weights, all finite",
    )


def test_an_input_that_core_ml_hasnt_got_is_named(tmp_path, monkeypatch):
    stand_in(monkeypatch, lambda *_: [])
    _, bundle = loaded("camera", "graph", tmp_path / "b")
    with pytest.raises(ModelError, match=r"Core ML takes no uint8 \(it takes .*\), as the input 'input' is"):
        export_file(bundle, "coreml", tmp_path / "m")


def test_sizes_without_a_bound_get_one(tmp_path):
    _, bundle = loaded("lstm", "graph", tmp_path / "b")
    assert ExportSource.of(bundle).bounded().sizes == ("(1 to 8, 1 to 18)",)
    samples = [torch.zeros(40, 9, dtype=torch.int64)]
    assert [len(one) for one in ExportSource.of(bundle, samples).bounded().samples] == [8, 8, 8, 8, 8]
    assert len(ExportSource.of(bundle, samples).one_by_one().samples) == 40


def test_a_worker_that_is_ended_says_by_which_signal(monkeypatch):
    ended = subprocess.CompletedProcess([], -9, "a word\n", "")
    monkeypatch.setattr(converter.subprocess, "run", lambda *_, **__: ended)
    assert converter.work("to_litert") == ["a word", "it ended with signal 9"]


@pytest.mark.parametrize("to", EDGE)
@pytest.mark.parametrize("name", ["tiny", "transformer"])
def test_the_real_converter(to, name, made, tmp_path):
    for package in FORMATS[to].packages:
        pytest.importorskip(package)
    if name == "tiny":
        facts = export_file(load_bundle(made.folder), to, tmp_path / "m", samples=[made.inputs])
    else:
        _, bundle = loaded(name, "graph", tmp_path / "b")
        facts = export_file(bundle, to, tmp_path / "m")
    assert facts.difference is None if to == "coreml" else facts.difference < 1e-4
