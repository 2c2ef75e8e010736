"""``prunus predict`` on files of other lengths and sizes, of ids, of bytes, and of several inputs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_ship_sizes import CASES, Adaptive, Camera, answer, ids, ids_and_mask, image, loaded, pair, photo, saved

from prunus.cli.app import invoke
from prunus.data import Scaler
from prunus.ship import load_bundle


def predicted(capsys, folder, file, *more) -> list[dict]:
    assert invoke(["predict", str(folder), str(file), "--json", *more]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, folder, file, *more) -> str:
    assert invoke(["predict", str(folder), str(file), *more]) != 0
    said = capsys.readouterr()
    assert said.err.count("\n") <= 2  # a note, and the line
    return said.err


def rows_of(model, inputs) -> list[float]:
    return answer(model, inputs).softmax(1).max(1).values.tolist()


@pytest.mark.parametrize(
    ("name", "other"), [("lstm", ids(3, 20)), ("transformer", ids_and_mask(3, 20)), ("pair", pair(3, 11))]
)
def test_ids_and_several_inputs_come_as_arrays(name, other, tmp_path, capsys):
    model, _ = loaded(name, "graph", tmp_path / "b")
    arrays = (
        {key: value.numpy() for key, value in other.items()}
        if isinstance(other, dict)
        else {f"arr_{number}": value.numpy() for number, value in enumerate(other)}
        if isinstance(other, tuple)
        else {"x": other.numpy()}
    )
    np.savez(tmp_path / "in.npz", **arrays)
    rows = predicted(capsys, tmp_path / "b", tmp_path / "in.npz")
    assert [row["probability"] for row in rows] == pytest.approx(rows_of(model, other), abs=1e-5)


def test_ids_that_are_none_and_lengths_that_dont_fit_are_one_line(tmp_path, capsys):
    loaded("transformer", "graph", tmp_path / "b")
    mask = np.ones((2, 41), dtype=np.int64)
    np.savez(tmp_path / "long.npz", input_ids=mask, attention_mask=mask)
    said = refused(capsys, tmp_path / "b", tmp_path / "long.npz")
    assert "long.npz: input 'input_ids' must have the size 1 to 40 in dimension 1: got (2, 41)" in said
    np.savez(tmp_path / "half.npz", input_ids=mask[:, :4] / 2, attention_mask=mask[:, :4])
    assert "half.npz: input_ids: the model takes whole numbers (ids, bytes)" in refused(
        capsys, tmp_path / "b", tmp_path / "half.npz"
    )
    np.savez(tmp_path / "one.npz", input_ids=mask[:, :4])
    assert "'attention_mask' is missing" in refused(capsys, tmp_path / "b", tmp_path / "one.npz")
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert "takes an .npz with the arrays input_ids, attention_mask" in refused(
        capsys, tmp_path / "b", tmp_path / "t.csv"
    )
    np.savez(tmp_path / "outside.npz", input_ids=mask[:, :4] * 50, attention_mask=mask[:, :4])
    assert "fails on inputs of shape" in refused(capsys, tmp_path / "b", tmp_path / "outside.npz")


@pytest.mark.parametrize("kind", [Adaptive, Camera])
def test_images_keep_their_size_where_that_is_asked_for(kind, tmp_path, capsys):
    images = pytest.importorskip("PIL.Image")
    torch.manual_seed(0)
    model = kind()
    scaler = Scaler(torch.full((3, 1, 1), 100.0), torch.full((3, 1, 1), 50.0)) if kind is Adaptive else None
    saved(model, image(4, 16) if kind is Adaptive else photo(4, 16), tmp_path / "b", scaler=scaler)
    folder = tmp_path / "images"
    folder.mkdir()
    pictures = [photo(1, height, width) for height, width in ((16, 16), (20, 9), (16, 16), (9, 20))]
    for number, picture in enumerate(pictures):
        images.fromarray(picture[0].permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    rows = predicted(capsys, tmp_path / "b", folder, "--own-size")
    given = [(p.float() - 100) / 50 if scaler is not None else p for p in pictures]
    assert [row["id"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert [row["probability"] for row in rows] == pytest.approx([rows_of(model, p)[0] for p in given], abs=1e-5)
    resized = predicted(capsys, tmp_path / "b", folder)
    assert resized[0] == rows[0], "of the training's size, nothing changes"
    assert resized[1] != rows[1]
    images.fromarray(np.zeros((2, 9, 3), dtype=np.uint8)).save(folder / "4.png")
    said = refused(capsys, tmp_path / "b", folder, "--own-size")
    assert "1 of 5 rows can't be predicted: row 4: expected a size that the model takes, got input 0 must have" in said
    (folder / "5.png").write_bytes(b"no image")
    assert invoke(["predict", str(tmp_path / "b"), str(folder), "--json"]) == 10
    found = json.loads(capsys.readouterr().out)
    assert found[:4] == resized
    assert "5.png: this image can't be read" in found[5]["error"]["got"]


def test_an_image_of_a_model_of_one_size_can_t_keep_its_own(tmp_path, capsys):
    images = pytest.importorskip("PIL.Image")
    loaded("flat", "graph", tmp_path / "b")
    images.fromarray(np.zeros((9, 8, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    assert len(predicted(capsys, tmp_path / "b", tmp_path / "a.png")) == 1
    assert "must have the size 8 in dimension 2" in refused(capsys, tmp_path / "b", tmp_path / "a.png", "--own-size")
    loaded("lstm", "graph", tmp_path / "c")
    assert "only images have a size of their own" in refused(capsys, tmp_path / "c", tmp_path / "a.png", "--own-size")


def test_whole_numbers_are_never_scaled(tmp_path):
    example = CASES["camera"][1]
    with pytest.raises(Exception, match="whole numbers"):
        saved(Camera(), example, tmp_path / "b", scaler=Scaler(torch.zeros(3, 1, 1), torch.full((3, 1, 1), 9.0)))
    saved(Camera(), example, tmp_path / "c", scaler=Scaler.identity())
    assert load_bundle(tmp_path / "c").predict(example).shape == (4, 2)


def test_evaluate_takes_data_of_other_sizes(tmp_path, capsys):
    torch.manual_seed(0)
    model = Adaptive()
    saved(model, image(4, 16), tmp_path / "b", class_names=("0", "1"))
    pictures, labels = image(30, 20, 9), torch.arange(30) % 2
    np.savez(tmp_path / "in.npz", x=pictures.numpy(), label=labels.numpy())
    assert invoke(["evaluate", str(tmp_path / "b"), "--source", str(tmp_path / "in.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]["all"]
    right = (answer(model, pictures).argmax(1) == labels).double().mean()
    values = {row["name"]: row["value"] for row in found["metrics"]}
    assert values["accuracy"] == pytest.approx(float(right))
    np.savez(tmp_path / "small.npz", x=image(30, 2).numpy(), label=labels.numpy())
    assert invoke(["evaluate", str(tmp_path / "b"), "--source", str(tmp_path / "small.npz")]) != 0
    assert "needs inputs of shape (n, 3, 3 or more, 3 or more), got (n, 3, 2, 2)" in capsys.readouterr().err
