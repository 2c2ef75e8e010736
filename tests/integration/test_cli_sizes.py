"""Every command that reads a bundle takes one size of several: by ``--size``, or by the folder of that size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from prunus import load_bundle
from prunus.cli.app import invoke
from signing_stand_ins import pair

RECIPE = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.1, "calibration": 0.1, "test": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 16}},
    "train": {"epochs": 2},
    "strategy": {"criterion": "magnitude_l2", "granularity": "channel"},
    "sizes": {"keep_fractions": [0.75, 0.25]},
    "recovery": {"method": "fine_tune", "epochs": 1},
    "evaluation": {"bootstrap": 100},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, "output": str(folder / "run")}))
    assert invoke(["sizes", str(folder / "recipe.yaml"), "--quiet"]) == 0
    return folder / "run"


def told(capsys, *words):
    capsys.readouterr()
    assert invoke([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_size_is_measured_as_it_was_when_it_was_made(made, capsys):
    rows = {row["keep_fraction"]: row for row in json.loads((made / "sizes.json").read_text())["sizes"]}
    for words in ((made, "--size", 0.25), (made / "sizes", "--size", 0.25), (made / "sizes" / "keep-0.25",)):
        found = told(capsys, "evaluate", *words)
        assert found["bundle"] == str(made / "sizes" / "keep-0.25")
        accuracy = next(row for row in found["splits"]["test"]["metrics"] if row["name"] == "accuracy")
        assert accuracy["value"] == rows[0.25]["pruned"]
    whole = told(capsys, "evaluate", made / "dense")
    accuracy = next(row for row in whole["splits"]["test"]["metrics"] if row["name"] == "accuracy")
    assert accuracy["value"] == rows[0.25]["dense"]


def test_an_exported_size_lies_beside_it_and_answers_as_it(made, capsys):
    runtime = pytest.importorskip("onnxruntime")
    facts = told(capsys, "export", made, "--size", 0.25, "--to", "onnx")
    out = made / "sizes" / "keep-0.25.onnx"
    assert facts["path"] == str(out)
    assert facts["bundle"] == str(made / "sizes" / "keep-0.25")
    inputs = torch.rand(4, 1, 8, 8)
    session = runtime.InferenceSession(str(out))
    (answer,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    bundle = load_bundle(made, size=0.25)
    np.testing.assert_allclose(answer, bundle.predict(inputs).numpy(), atol=1e-4)
    assert bundle.sha256 == load_bundle(made / "sizes" / "keep-0.25").sha256 == facts["sha256"]
    out.unlink()


def test_a_size_is_verified_predicts_and_is_timed_beside_the_dense_model(made, capsys, tmp_path):
    size = made / "sizes" / "keep-0.25"
    assert told(capsys, "verify", size)["sha256"] == told(capsys, "verify", made, "--size", 0.25)["sha256"]
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((3, 1, 8, 8), np.float32))
    labels = [row["label"] for row in told(capsys, "predict", made, tmp_path / "x.npz", "--size", 0.25)]
    assert labels == [row["label"] for row in told(capsys, "predict", size, tmp_path / "x.npz")]
    asked = ("--batch", 1, "--threads", 1, "--repeats", 5, "--warm-up", 1, "--runtime", "torch")
    found = told(capsys, "bench", made, *asked)
    timed = {row["name"]: row["bundle"] for row in found["models"]}
    assert set(timed.values()) == {str(made / "dense"), str(made / "sizes" / "keep-0.75"), str(size)}
    assert timed["dense"] == str(made / "dense")


def test_a_size_is_served(made, monkeypatch):
    served = []

    def serve(folder, settings, **_):
        served.append(load_bundle(folder).sha256)

    monkeypatch.setattr("prunus.serve.serve", serve)
    assert invoke(["serve", str(made), "--size", "0.25"]) == 0
    assert served == [load_bundle(made, size=0.25).sha256]


def test_without_a_size_and_with_one_that_is_not_there_it_is_one_line(made, capsys):
    for folder in (made, made / "sizes"):
        assert invoke(["export", str(folder), "--to", "onnx"]) == 6
        assert "it holds several sizes: say which with --size KEEP_FRACTION" in capsys.readouterr().err
        assert invoke(["export", str(folder), "--to", "onnx", "--size", "0.6"]) == 6
        assert "no size 0.6: expected one of 0.75, 0.25, got 0.6" in capsys.readouterr().err
    assert invoke(["export", str(made / "dense"), "--to", "onnx", "--size", "0.6"]) == 6
    assert "no sizes at" in capsys.readouterr().err


def test_a_size_is_signed_where_it_lies_and_stays_signed_wherever_it_is_taken_out(made, capsys, tmp_path):
    keys, stranger = pair(tmp_path), pair(tmp_path, "stranger")
    try:
        said = told(capsys, "sign", made, "--size", 0.25, "--private-key", keys.private, "--version", "1.2")
        assert said["signed"]["version"] == "1.2"
        for words in ((made, "--size", 0.25), (made / "sizes" / "keep-0.25",)):
            found = told(capsys, "verify", *words, "--public-key", keys.public)
            assert (found["signed"]["version"], found["sha256"]) == ("1.2", load_bundle(made, size=0.25).sha256)
            assert invoke(["verify", *map(str, words), "--public-key", str(stranger.public)]) == 6
        assert invoke(["verify", str(made), "--size", "0.75", "--public-key", str(keys.public)]) == 6
        assert "there is no model.sig" in capsys.readouterr().err
        told(capsys, "sizes", made, "--size", 0.25, "--out", tmp_path / "quarter")
        assert told(capsys, "verify", tmp_path / "quarter", "--public-key", keys.public)["signed"]["version"] == "1.2"
    finally:
        for name in ("model.sig", "release.json"):
            (made / "sizes" / "keep-0.25" / name).unlink(missing_ok=True)


def test_rows_are_scored_by_a_size(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.random.default_rng(0).random((40, 1, 8, 8), np.float32))
    told(capsys, "sizes", made, "--size", 0.25, "--out", "quarter")
    told(capsys, "score-shards", "quarter", "rows.npy", "--output", "alone")
    told(capsys, "score-shards", made, "rows.npy", "--output", "size", "--size", 0.25)
    told(capsys, "score-shards", made / "sizes" / "keep-0.25", "rows.npy", "--output", "folder")
    whole = Path("alone", "rows.parquet").read_bytes()
    assert whole == Path("size", "rows.parquet").read_bytes() == Path("folder", "rows.parquet").read_bytes()
    assert invoke(["score-shards", str(made), "rows.npy", "--output", "none", "--size", "0.6"]) == 6
    assert "no size 0.6: expected one of 0.75, 0.25, got 0.6" in capsys.readouterr().err
    assert invoke(["score-shards", "json:loads", "rows.npy", "--output", "none", "--size", "0.6"]) == 3
    assert "a size is one of a bundle's: got json:loads, a function, and the size 0.6" in capsys.readouterr().err


def test_a_size_at_a_url_is_the_one_that_lies_here(made, store, bucket, capsys, tmp_path):
    store.put_folder(bucket, "run", made)
    url, here = f"s3://{bucket}/run", load_bundle(made, size=0.25).sha256
    assert load_bundle(url, size=0.25).sha256 == load_bundle(f"{url}/sizes/keep-0.25").sha256 == here
    for words in ((url, "--size", 0.25), (f"{url}/sizes/keep-0.25",)):
        assert told(capsys, "verify", *words)["sha256"] == here
    row = told(capsys, "evaluate", url, "--size", 0.25)
    assert row.pop("bundle") == f"{url}/sizes/keep-0.25"
    alone = told(capsys, "evaluate", made, "--size", 0.25)
    alone.pop("bundle")
    assert row == alone
    told(capsys, "sizes", url, "--size", 0.25, "--out", tmp_path / "quarter")
    assert load_bundle(tmp_path / "quarter").sha256 == here
    assert invoke(["verify", url]) == 6
    assert "it holds several sizes: say which with --size KEEP_FRACTION" in capsys.readouterr().err
    assert invoke(["verify", url, "--size", "0.6"]) == 6
    assert "no size 0.6: expected one of 0.75, 0.25, got 0.6" in capsys.readouterr().err
    assert invoke(["sign", url, "--size", "0.25", "--private-key", "k.pem"]) == 3
    assert "sign it on this machine" in capsys.readouterr().err
    store.put(bucket, "run/sizes/keep-0.25/own.safetensors", b"spoilt")
    assert invoke(["verify", url, "--size", "0.25"]) == 6
