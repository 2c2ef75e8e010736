"""Every recipe under examples/ runs, and the shown ones keep what the README says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunus.cli.app import invoke

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def record(tmp_path: Path, monkeypatch, capsys):
    """Return a function that runs a recipe and returns its record."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name: str) -> dict:
        overrides = ["-o", "output=out", "-o", "evaluation.latency.runtime=torch"]  # exports have tests of their own
        assert invoke(["run", str(EXAMPLES / name), "--json", *overrides]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def ratio(record: dict, what: str) -> float:
    return record["cost"]["dense"][what] / record["cost"]["pruned"][what]


def comparison(record: dict, metric: str) -> dict:
    return next(row for row in record["comparison"] if row["metric"] == metric)


def test_digits_become_four_times_cheaper_and_stay_within_a_point(record):
    found = record("digits.yaml")
    assert ratio(found, "macs") >= 4
    assert ratio(found, "size_bytes") >= 4
    assert found["kind"] == "eager"
    row = comparison(found, "accuracy")
    assert row["n_seeds"] == 3
    assert row["difference"]["value"] >= -0.01
    assert row["difference"]["low"] < row["difference"]["value"] < row["difference"]["high"]


def test_flipped_labels_are_found_and_the_cleaned_small_model_beats_the_dirty_dense_one(record):
    found = record("digits_dirty.yaml")
    noise = found["data"]["noise"]
    assert noise["n_found"] >= 0.8 * noise["n_flipped"]
    touched = sum(item["removed"] + item["relabelled"] for item in found["classes"])
    assert noise["n_clean"] == touched - noise["n_found"]
    assert comparison(found, "accuracy")["verdict"] == "better"
    assert ratio(found, "macs") >= 4
    assert all(suspect["image"].startswith("data:image/png") for suspect in found["suspects"])


def test_a_table_loses_features_and_channels_and_keeps_its_quality(record):
    found = record("tabular.yaml")
    assert any(not feature["kept"] for feature in found["features"])
    assert ratio(found, "parameters") > 3
    assert comparison(found, "f1_macro")["difference"]["high"] > -0.02


def test_your_own_model_shrinks_through_residual_concatenation_and_flatten(record):
    found = record("own_model.yaml")
    assert found["kind"] == "eager"
    assert {layer["name"] for layer in found["layers"]} == {"stem", "fine.first", "coarse.1", "mix"}
    assert ratio(found, "macs") > 2
