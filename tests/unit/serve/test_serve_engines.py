"""What is served answers as the bundle does; it is exported once, and a kept file that was changed isn't used."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from patience import PATIENCE_S
from prunus.core.errors import BundleError, ModelError, OutputError, RecipeError
from prunus.data import Scaler
from prunus.serve.running import engine_cache
from prunus.serve.running.engine_cache import cache_folder, exported_once
from prunus.serve.running.id_bounds import id_bounds
from prunus.serve.running.onnx_worker import main
from prunus.serve.running.served_model import ServedModel, load_served
from prunus.serve.serve_settings import ClientLimits, ServeSettings
from prunus.serve.start import called
from prunus.ship import export_file, load_bundle, read_manifest, save_bundle
from serve_stand_ins import go, save_small, small_bundle

__all__ = ["small_bundle"]


class Ids(nn.Module):
    def __init__(self, vocabulary=11):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(dim=1))


class BatchMean(nn.Module):
    """An answer that depends on what else is in the batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x - x.mean(dim=0))


@pytest.fixture
def here(monkeypatch):
    """Export in this process: a new one takes seconds to start."""

    def run(command, **_):
        assert command[1:3] == ["-m", "prunus.serve.running.onnx_worker"]
        import contextlib
        import io

        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            main(command[3:])
        return subprocess.CompletedProcess(command, 0, said.getvalue().encode(), b"")

    monkeypatch.setattr(engine_cache.subprocess, "run", run)


def settings(tmp_path, **more):
    return ServeSettings(cache=tmp_path / "cache", threads=1, **more)


def said(_):
    pass


@pytest.mark.parametrize("runtime", ["auto", "torch"])
def test_what_is_served_answers_as_the_bundle_does_between_its_scalers(tmp_path, here, runtime):
    folder = save_small(tmp_path / "b", scaler=Scaler(torch.arange(6.0), torch.full((6,), 2.0)))
    made = load_served(folder, "b", settings(tmp_path, runtime=runtime), said)
    rows = torch.randn(20, 6)
    expected = load_bundle(folder).predict(rows).numpy()
    np.testing.assert_allclose(made.engine.run([rows.numpy()])[0], expected, rtol=1e-4, atol=1e-5)
    assert made.engine.platform == {"auto": "onnx_onnxruntime", "torch": "pytorch"}[runtime]
    assert not made.alone

    async def asked():
        model = ServedModel(made, ClientLimits(batch=7))
        found = await model.answer([rows.numpy()], 480, PATIENCE_S)
        await model.retire()
        return found[0]

    np.testing.assert_allclose(go(asked()), expected, rtol=1e-4, atol=1e-5)


def test_a_bundle_is_exported_once_and_a_changed_file_is_made_anew(tmp_path, small_bundle, here, monkeypatch):
    folder, sha256 = cache_folder(tmp_path / "cache"), read_manifest(small_bundle).sha256
    first = exported_once(small_bundle, sha256, folder, trust_code=False)
    runs = []
    again = engine_cache.subprocess.run
    monkeypatch.setattr(engine_cache.subprocess, "run", lambda *a, **k: runs.append(1) or again(*a, **k))
    assert exported_once(small_bundle, sha256, folder, trust_code=False).file == first.file
    assert not runs
    for change in (
        lambda: first.path.write_bytes(first.file[:-1] + b"x"),
        first.path.unlink,
        first.path.with_suffix(".json").unlink,
    ):
        change()
        made = exported_once(small_bundle, sha256, folder, trust_code=False)
        assert made.difference < 1e-3
    assert len(runs) == 3


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(OutputError, match="nobody else can write to"):
        cache_folder(folder)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OutputError):
        cache_folder(tmp_path / "link")


def test_a_new_cache_is_its_owner_s_alone(tmp_path):
    assert cache_folder(tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_model_that_cannot_be_exported_is_served_by_torch_which_is_said(tmp_path, small_bundle, monkeypatch):
    def fails(*_, **__):
        raise ModelError("the model can't be exported to ONNX: no such operator")

    monkeypatch.setattr("prunus.serve.running.served_model.exported_once", fails)
    notes = []
    made = load_served(small_bundle, "b", settings(tmp_path), notes.append)
    assert made.engine.platform == "pytorch"
    assert "no such operator" in made.engine.note
    assert notes == [made.engine.note]
    with pytest.raises(RecipeError, match="no such operator"):
        load_served(small_bundle, "b", settings(tmp_path, runtime="onnxruntime"), notes.append)


def test_a_worker_that_was_killed_is_a_reason(tmp_path, small_bundle, monkeypatch):
    monkeypatch.setattr(engine_cache.subprocess, "run", lambda c, **_: subprocess.CompletedProcess(c, -9, b"", b""))
    with pytest.raises(ModelError, match="ended with code -9"):
        exported_once(small_bundle, "0" * 64, cache_folder(tmp_path / "cache"), trust_code=False)


def test_a_bundle_that_is_not_what_it_says_is_not_loaded(tmp_path, here):
    folder = save_small(tmp_path / "b")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match="was changed after it was written"):
        load_served(folder, "b", settings(tmp_path), said)


def test_a_bundle_that_is_changed_while_it_is_exported_is_not_served(tmp_path, small_bundle, here):
    with pytest.raises(BundleError, match="changed while it was loaded"):
        exported_once(small_bundle, "0" * 64, cache_folder(tmp_path / "cache"), trust_code=False)


def test_the_worker_says_what_is_wrong_as_json(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "f.onnx")]) == 0
    assert json.loads(capsys.readouterr().out)["code"] == 6


def bundle_of(tmp_path, model, example, n_outputs=2):
    folder = tmp_path / "b"
    options = {"input_shape": tuple(example.shape[1:]), "n_outputs": n_outputs, "task": "classification"}
    save_bundle(folder, model, built_by=None, dense=model, example=example, **options)
    return folder


def test_ids_are_bounded_by_the_table_that_they_are_looked_up_in(tmp_path, here):
    folder = bundle_of(tmp_path, Ids(), torch.randint(0, 9, (2, 5)))
    made = load_served(folder, "b", settings(tmp_path), said)
    assert [(spec.datatype, spec.below) for spec in made.spec.inputs] == [("INT64", 11)]


def test_bounds_are_none_where_nothing_is_looked_up(tmp_path, small_bundle):
    file = tmp_path / "m.onnx"
    export_file(load_bundle(small_bundle), "onnx", file)
    assert id_bounds(file.read_bytes(), ["input"]) == [None]


def test_a_model_whose_answers_depend_on_the_batch_is_found_out(tmp_path, here):
    folder = bundle_of(tmp_path, BatchMean(), torch.randn(2, 6), n_outputs=3)
    assert load_served(folder, "b", settings(tmp_path), said).alone


@pytest.mark.parametrize(
    ("path", "name"),
    [("runs/digits/bundle", "digits"), ("a/my model", "my-model"), ("a/..x", "x"), ("a/日本", "model")],
)
def test_a_model_is_called_as_its_folder(tmp_path, path, name):
    assert called(tmp_path / path) == name
