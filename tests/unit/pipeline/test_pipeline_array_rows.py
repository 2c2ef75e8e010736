"""Do images, arrays and saved sets get the scores that the model gives row by row, and does a broken image cost no other folder?"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from prunus.cli.app import invoke
from prunus.core.recipes import recipe
from prunus.models import build
from prunus.pipeline.sharding import array_rows
from prunus.score.examples.recording.answer_scores import answer_scores
from prunus.ship import load_bundle, save_bundle

CODE = """
import torch
from torch import nn


def images():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 5, 2))


def tokens():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(4 * 3, 2))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "array_code.py").write_text(CODE)
    return tmp_path


def pictures(folder, n=5, size=(5, 6)):
    """Write n pictures of each class, and return them as the model sees them, in the order of their ids."""
    found = {}
    for number, name in enumerate(("cat", "dog")):
        (folder / "pictures" / name).mkdir(parents=True)
        for k in range(n):
            pixels = np.random.default_rng(10 * number + k).integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{k}.png")
            found[f"{name}/{k}.png"] = torch.from_numpy(pixels).permute(2, 0, 1).float()
    return found


def scored(*words):
    code = invoke(["score-shards", *map(str, words), "--output", "out", "--quiet"])
    return code, {
        path.stem: pq.read_table(path) for path in sorted(__import__("pathlib").Path("out").glob("*.parquet"))
    }


def model_of(name):
    import array_code

    return getattr(array_code, name)().eval()


def test_every_image_of_a_folder_of_classes_has_its_scores_under_its_id(folder, monkeypatch):
    monkeypatch.setattr(array_rows, "_IMAGES", 2)
    given = pictures(folder)
    code, found = scored("array_code:images", "pictures", "--scores", "entropy", "--keep", "id")
    assert code == 0
    assert list(found) == ["cat", "dog"]
    whole = pa.concat_tables(found.values())
    assert whole["id"].to_pylist() == list(given)
    expected = answer_scores(model_of("images")(torch.stack(list(given.values()))).detach(), None, exclusive=True)
    np.testing.assert_allclose(whole["entropy"], expected["entropy"], rtol=1e-4)


def test_a_bundle_resizes_images_and_reads_their_classes(folder):
    pictures(folder, size=(8, 9))
    made = recipe.Model(builder="cnn", args={"width": 4})
    model = build(made, input_shape=(3, 8, 8), n_outputs=2, seed=0).eval()
    names = ("cat", "dog")
    save_bundle(
        folder / "b", model, built_by=made, input_shape=(3, 8, 8), n_outputs=2, task="classification", class_names=names
    )
    code, found = scored("b", "pictures", "--target", "label", "--scores", "loss,prediction", "--keep", "id")
    assert code == 0
    images = [
        Image.open(f"pictures/{name}").resize((8, 8), Image.Resampling.BILINEAR)
        for name in found["dog"]["id"].to_pylist()
    ]
    rows = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in images])
    outputs = load_bundle(folder / "b").predict(rows)
    expected = answer_scores(outputs, torch.ones(5, dtype=torch.long), exclusive=True)
    np.testing.assert_allclose(found["dog"]["loss"], expected["loss"], rtol=1e-4)
    assert found["dog"]["prediction"].to_pylist() == [names[k] for k in expected["prediction"].tolist()]


def test_a_broken_image_is_named_the_other_folders_are_scored_and_a_resume_repairs(folder, capfd):
    pictures(folder)
    path = folder / "pictures" / "cat" / "3.png"
    content = path.read_bytes()
    path.write_bytes(content[:60])
    words = ("array_code:images", "pictures", "--scores", "entropy", "--keep", "id")
    code, found = scored(*words)
    said = capfd.readouterr().err
    assert code == 10
    assert list(found) == ["dog"]
    assert "cat/3.png: this image can't be read" in said
    assert "1 of 2 shards" in said
    before = (folder / "out" / "dog.parquet").stat().st_mtime_ns
    path.write_bytes(content)
    code, found = scored(*words, "--resume")
    assert code == 0
    assert list(found) == ["cat", "dog"]
    assert (folder / "out" / "dog.parquet").stat().st_mtime_ns == before


def test_an_image_that_was_changed_since_is_scored_again(folder):
    pictures(folder)
    words = ("array_code:images", "pictures", "--scores", "entropy", "--keep", "id")
    _, before = scored(*words)
    Image.new("RGB", (5, 6), "white").save("pictures/dog/0.png")
    _, after = scored(*words, "--resume")
    assert before["dog"]["entropy"][0] != after["dog"]["entropy"][0]
    assert before["cat"] == after["cat"]


def test_images_of_two_sizes_need_a_bundle(folder, capfd):
    pictures(folder)
    Image.new("RGB", (9, 6)).save("pictures/dog/9.png")
    code, found = scored("array_code:images", "pictures", "--scores", "entropy")
    assert code == 10
    assert list(found) == ["cat"]
    assert "dog/9.png: expected (3, 6, 5) as in 0.png, got (3, 6, 9)" in capfd.readouterr().err


def test_a_picture_that_would_become_far_larger_than_its_file_is_not_decoded(folder, capfd, monkeypatch):
    pictures(folder)
    monkeypatch.setattr("prunus.core.files.expansion.SMALL_BYTES", 1000)
    Image.new("1", (4000, 4000)).save("pictures/dog/9.png", compress_level=9)
    code, found = scored("array_code:images", "pictures", "--scores", "entropy")
    assert code == 10
    assert list(found) == ["cat"]
    assert "9.png: refused, it would become" in capfd.readouterr().err


@pytest.mark.parametrize("ending", ["npy", "arrow"])
def test_arrays_go_through_the_model_as_they_are(folder, ending, monkeypatch):
    monkeypatch.setattr(array_rows, "_BLOCK_NUMBERS", 200)
    random = np.random.default_rng(0)
    given, labels = random.standard_normal((50, 3, 6, 5)).astype(np.float32), random.integers(0, 2, 50)
    if ending == "npy":
        np.save("part.npy", given)
        np.save("part.label.npy", labels)
    else:
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(given)
        table = pa.table({"x": column, "label": labels})
        with pa.ipc.new_stream("part.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    code, found = scored("array_code:images", f"part.{ending}", "--target", "label")
    assert code == 0
    outputs = model_of("images")(torch.from_numpy(given)).detach()
    expected = answer_scores(outputs, torch.from_numpy(labels), exclusive=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found["part"][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_whole_numbers_in_arrays_stay_whole_for_a_model_that_looks_them_up(folder):
    given = np.random.default_rng(0).integers(0, 9, (20, 3))
    np.save("part.npy", given)
    code, found = scored("array_code:tokens", "part.npy", "--scores", "entropy")
    assert code == 0
    outputs = model_of("tokens")(torch.from_numpy(given)).detach()
    np.testing.assert_allclose(
        found["part"]["entropy"], answer_scores(outputs, None, exclusive=True)["entropy"], rtol=1e-5
    )


def test_a_number_that_is_not_finite_in_an_array_is_refused(folder, capfd):
    given = np.zeros((20, 3, 6, 5), np.float32)
    given[7, 0, 0, 0] = np.nan
    np.save("part.npy", given)
    code, _ = scored("array_code:images", "part.npy", "--scores", "entropy")
    assert code == 10
    assert "part.npy: rows 0 to 19: column 'x': expected finite numbers, got others in row 7" in capfd.readouterr().err


def test_a_set_that_datasets_saved_is_scored_file_by_file(folder):
    table = pa.table({"a": np.arange(12, dtype=np.float32), "b": np.zeros(12, np.float32)})
    (folder / "set").mkdir()
    for number in range(2):
        with pa.ipc.new_stream(folder / "set" / f"data-{number}.arrow", table.schema) as writer:
            writer.write_table(table.slice(6 * number, 6))
    state = {"_data_files": [{"filename": f"data-{number}.arrow"} for number in range(2)]}
    (folder / "set" / "state.json").write_text(json.dumps(state))
    (folder / "pair_code.py").write_text("from torch import nn\n\n\ndef model():\n    return nn.Linear(2, 3)\n")
    code, found = scored("pair_code:model", "set", "--scores", "entropy")
    assert code == 0
    assert {name: len(table) for name, table in found.items()} == {"data-0": 6, "data-1": 6}
