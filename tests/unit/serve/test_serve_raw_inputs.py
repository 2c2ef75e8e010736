"""An image, a table's row and a line of text are answered as ``prunus predict`` answers their file."""

from __future__ import annotations

import base64
import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer as Made
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Data, Model
from prunus.data.open import open_source
from prunus.models import build
from prunus.pipeline import predict_file
from prunus.serve.gate.admission import Admission
from prunus.serve.gate.api_keys import ApiKeys
from prunus.serve.running.served_model import load_served
from prunus.serve.serve_settings import ServeSettings
from prunus.serve.site.text_tokens import Tokenizer
from prunus.serve.start import application, new_site
from prunus.ship import save_bundle
from serve_stand_ins import ask, go, served, small_bundle
from tests_support import fitted

__all__ = ["small_bundle"]

COLORS = ("red", "green", "blue")


def table(n=40):
    rng = np.random.default_rng(0)
    return [
        {"age": round(float(rng.normal()), 3), "color": COLORS[k % 3], "member": bool(k % 2), "label": "ab"[k % 2]}
        for k in range(n)
    ]


def write(rows, path):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def of_table(tmp_path_factory):
    """A bundle of a model of a table, and the rows of its training."""
    folder = tmp_path_factory.mktemp("table")
    rows = table()
    source = open_source(Data(source=str(write(rows, folder / "t.csv")), target="label"))
    columns = fitted(source)
    n = len(columns.feature_names)
    built_by = Model(builder="mlp", args={"width": 8})
    model = build(built_by, input_shape=(n,), n_outputs=2, seed=0)
    facts = {"class_names": ("a", "b"), "feature_names": columns.feature_names, "columns": columns}
    save_bundle(folder / "b", model, built_by=built_by, input_shape=(n,), n_outputs=2, task="classification", **facts)
    return folder / "b"


@pytest.fixture(scope="module")
def of_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "b"
    built_by = Model(builder="cnn", args={"width": 8})
    model = build(built_by, input_shape=(3, 12, 10), n_outputs=2, seed=0)
    facts = {"class_names": ("cat", "dog")}
    save_bundle(folder, model, built_by=built_by, input_shape=(3, 12, 10), n_outputs=2, task="classification", **facts)
    return folder


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None].float()
        return self.head((self.embed(input_ids) * mask).sum(dim=1) / mask.sum(dim=1))


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts") / "b"
    model = Words()
    example = {"input_ids": torch.randint(0, 6, (2, 5)), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    facts = {"class_names": ("bad", "good")}
    options = {"input_shape": (5,), "n_outputs": 2, "task": "classification"}
    save_bundle(folder, model, built_by=None, dense=model, example=example, **options, **facts)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """The file of a tokenizer of a few words."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made = Made(WordLevel({"[UNK]": 0, "it": 1, "is": 2, "good": 3, "bad": 4, "[PAD]": 5}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_padding(pad_id=5, pad_token="[PAD]")
    made.save(str(path))
    return path


def predicted(folder, body, kind, **settings):
    async def asked():
        chosen = ServeSettings(runtime="torch", **settings)
        made = load_served(folder, "m", chosen, lambda _: None)
        app = application(new_site(made, chosen, Admission(chosen, ApiKeys({}))))
        return await ask(app, "POST", "/v1/predict", body, {"content-type": kind})

    return go(asked())


def without_labels(rows):
    return [{name: value for name, value in row.items() if name != "label"} for row in rows]


def by_command(folder, path):
    return [{"label": row["label"], "probability": row["probability"]} for row in predict_file(folder, str(path))]


def close(found, expected):
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    np.testing.assert_allclose(
        [one["probability"] for one in found], [one["probability"] for one in expected], atol=2e-6
    )


def test_rows_are_answered_as_the_command_answers_their_file(of_table, tmp_path):
    rows = without_labels(table(7))
    expected = by_command(of_table, write(rows, tmp_path / "x.csv"))
    close(predicted(of_table, {"rows": rows}, "application/json").json()["predictions"], expected)
    close(predicted(of_table, {"row": rows[2]}, "application/json").json()["predictions"], expected[2:3])
    as_csv = (tmp_path / "x.csv").read_bytes()
    close(predicted(of_table, as_csv, "text/csv; charset=utf-8").json()["predictions"], expected)
    as_text = [{name: str(value).lower() for name, value in row.items()} for row in rows]
    close(predicted(of_table, {"rows": as_text}, "application/json").json()["predictions"], expected)


def png(seed=0, size=(10, 12), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(made, "png")
    return made.getvalue()


def test_images_are_answered_as_the_command_answers_their_files(of_images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    files = [png(1), png(2, (31, 17)), png(3, mode="L")]
    for number, content in enumerate(files):
        (folder / f"{number}.png").write_bytes(content)
    expected = by_command(of_images, folder)
    close(predicted(of_images, files[1], "image/png").json()["predictions"], expected[1:2])
    coded = [base64.b64encode(content).decode() for content in files]
    close(predicted(of_images, {"images": coded}, "application/json").json()["predictions"], expected)
    close(
        predicted(of_images, {"image": f"data:image/png;base64,{coded[0]}"}, "application/json").json()["predictions"],
        expected[:1],
    )


def test_lines_of_text_are_tokenized_and_padded(of_texts, words):
    many = predicted(of_texts, {"texts": ["it is good", "bad"]}, "application/json", tokenizer=words).json()[
        "predictions"
    ]
    alone = [
        predicted(of_texts, {"text": text}, "application/json", tokenizer=words).json()["predictions"][0]
        for text in ("it is good", "bad")
    ]
    close(many, alone)
    lines = predicted(of_texts, b"it is good\nbad\n", "text/plain", tokenizer=words).json()["predictions"]
    close(lines, alone)
    ids = torch.tensor([[1, 2, 3]])
    from prunus.ship import load_bundle

    bundle = load_bundle(of_texts)
    found = bundle.postprocess(bundle.predict({"input_ids": ids, "attention_mask": torch.ones_like(ids)}))
    assert alone[0]["label"] == found.labels[0]


BAD_ROWS = [
    (
        {"rows": [{"age": 1, "color": "red", "member": True}, {"age": "old", "color": "red", "member": True}]},
        "rows[1].age",
    ),
    ({"row": {"age": "old", "color": "red", "member": True}}, "row.age"),
    ({"row": {"age": None, "color": "red", "member": True}}, "row.age"),
    ({"row": {"color": "red", "member": True}}, "row.age"),
    ({"row": {"age": [1], "color": "red", "member": True}}, "row"),
    ({"row": 3}, "row"),
    ({"rows": []}, "rows"),
    ({"rows": {}}, "rows"),
    ({"rows": [{}] * 5000}, "rows"),
    ({"row": {}, "rows": []}, "body"),
    ({}, "body"),
    ({"text": "it is good"}, "text"),
    ({"image": "aaaa"}, "image"),
    (b"nothing", "body"),
    (b"[" * 5000, "body"),
]


@pytest.mark.parametrize(("body", "field"), BAD_ROWS)
def test_rows_that_the_model_cannot_take_are_refused(of_table, body, field):
    answer = predicted(of_table, body, "application/json")
    assert (answer.status, answer.json()["field"]) == (400, field)
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"age,color,member\n1,red\n2,red,true,more\n", "rows[1]"), (b"\xff\xfe", "body"), (b"", "body")],
)
def test_tables_that_are_none_are_refused(of_table, body, field):
    answer = predicted(of_table, body, "text/csv")
    assert (answer.status, answer.json()["field"]) == (400, field)


@pytest.mark.parametrize("content", [b"", b"nothing", png()[:60], b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_images_that_are_none_are_refused(of_images, content):
    answer = predicted(of_images, content, "image/png")
    assert (answer.status, answer.json()["field"]) == (400, "body")
    assert "/proc" not in answer.json()["error"]
    coded = predicted(of_images, {"images": [base64.b64encode(png()).decode(), "!"]}, "application/json")
    assert (coded.status, coded.json()["field"]) == (400, "images[1]")


def test_an_image_that_would_become_far_larger_than_its_file_is_refused(of_images):
    made = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(made, "png")
    answer = predicted(of_images, made.getvalue(), "image/png")
    assert (answer.status, answer.json()["field"]) == (400, "body")


def test_a_model_of_tensors_takes_no_image_and_a_model_of_images_no_row(small_bundle, of_images):
    assert predicted(small_bundle, png(), "image/png").json()["field"] == "body"
    assert predicted(of_images, {"row": {"age": 1}}, "application/json").json()["field"] == "row"


def test_a_tokenizer_that_is_none_is_said_at_the_start(tmp_path):
    for content in (b"{}", b"\x80\x04", b""):
        (tmp_path / "t.json").write_bytes(content)
        with pytest.raises(RecipeError, match=r"is no tokenizer.json"):
            Tokenizer(tmp_path / "t.json")
    with pytest.raises(RecipeError, match="can't be read"):
        Tokenizer(tmp_path / "none.json")


def test_a_model_without_a_table_says_so(small_bundle):
    async def asked():
        _, app = served(small_bundle)
        return await ask(
            app, "POST", "/v1/predict", json.dumps({"row": dict(zip("uvwxyz", range(6), strict=True))}).encode()
        )

    answer = go(asked())
    assert answer.status == 200
    assert answer.json()["predictions"][0]["label"] in "abc"
