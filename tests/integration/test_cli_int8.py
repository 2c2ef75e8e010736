"""A run with ``quantize`` leaves an int8 file that keeps its promise, or says why there is none; its report compares all four."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from prunus.cli.app import invoke
from prunus.pipeline.jobs.card_of_run import run_id
from prunus.report import load_record

RUN = {
    "data": {"source": "sklearn:digits", "split": {"test": 0.4, "validation": 0.15, "calibration": 0.1}},
    "model": {"builder": "cnn", "args": {"width": 24, "depth": 2}},
    "train": {"epochs": 5},
    "strategy": {"granularity": "channel", "keep_fraction": 0.75, "round_to": 8},
    "recovery": {"epochs": 3},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8}},
    "seeds": [0],
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_report_compares_dense_pruned_int8_and_both_and_the_file_is_there(small_recipe, capsys):
    assert invoke(["run", str(small_recipe(**RUN, quantize={"max_drop": 0.08})), "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    record = load_record(Path("out/record.json"))
    assert [row.name for row in record.int8.rows] == ["dense", "pruned", "dense int8", "pruned int8"]
    assert set(record.int8_times) == {"dense", "pruned", "dense int8", "pruned int8"}
    sizes = {row.name: row.size_bytes for row in record.int8.rows}
    assert sizes["pruned int8"] == Path("out/bundle.int8.onnx").stat().st_size < 0.6 * sizes["pruned"]
    assert record.int8.test.kept
    assert record.int8.rows[3].in_float == []
    assert "bundle.int8.onnx: static int8 in 3 of 3 layers; accuracy drops by at most" in said
    assert "In 8-bit whole numbers" in Path("out/report.html").read_text()
    plain = json.loads(Path("out/record.json").read_text())
    assert "int8" in plain["timing"], "times lie where two equal runs may differ"
    assert "milliseconds" not in json.dumps(plain["int8"])
    card = re.sub(r"\\(.)", r"\1", Path("out/bundle/README.md").read_text(encoding="utf-8"))
    assert "* bundle.int8.onnx: static int8 in 3 of 3 layers; accuracy drops by at most" in card
    assert f"| accuracy | bundle.int8.onnx | test | {record.int8.rows[3].quality.value:.6g} |" in card
    assert f"| run | {run_id(record)} |" in card
    assert invoke(["verify", "out/bundle"]) == 0
    capsys.readouterr()
    assert invoke(["evaluate", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == record.fingerprints["bundle"]


def test_a_run_leaves_a_file_for_openvino_that_was_tested_there(small_recipe, capsys):
    plain = {**RUN, "recovery": {"method": "none"}, "strategy": None}
    assert invoke(["run", str(small_recipe(**plain, quantize={"to": "openvino", "max_drop": 0.08})), "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    record = load_record(Path("out/record.json"))
    (n_layers,) = {row.n_layers for row in record.int8.rows if row.name.endswith("int8")}
    assert n_layers >= 3
    kept = f"bundle.int8.openvino: static int8 in {n_layers} of {n_layers} layers; accuracy drops by at most"
    assert kept in said
    assert sorted(file.name for file in Path("out/bundle.int8.openvino").iterdir()) == ["model.bin", "model.xml"]
    assert {time.runtime for name, time in record.int8_times.items() if name.endswith("int8")} == {"OpenVINO"}
    assert invoke(["run", str(small_recipe(**plain)), "--quiet", "--overwrite"]) == 0
    assert not Path("out/bundle.int8.openvino").exists(), "a run takes the last one's file away"


def test_where_the_promise_can_not_be_shown_no_file_is_left_and_the_run_says_why(small_recipe, capsys):
    """So few test examples can't show a drop below a thousandth."""
    assert invoke(["run", str(small_recipe(**RUN, quantize={"max_drop": 0.001})), "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no int8 file is left: " in said
    assert not Path("out/bundle.int8.onnx").exists()
    assert load_record(Path("out/record.json")).int8.problem
    assert "no int8 file is left" in Path("out/bundle/README.md").read_text(encoding="utf-8")


def test_what_it_needs_is_asked_for_before_anything_is_trained(small_recipe, capsys, monkeypatch):
    monkeypatch.setattr("prunus.core.code.extras.find_spec", lambda name: None)
    assert invoke(["run", str(small_recipe(**RUN, quantize={})), "--quiet"]) == 9
    assert (
        "quantize needs the package 'onnx', which is not installed: pip install 'prunus[int8]'"
        in capsys.readouterr().err
    )
    assert not list(Path("out").glob(".work/*/"))
