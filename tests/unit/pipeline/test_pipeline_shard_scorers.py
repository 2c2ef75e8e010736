"""Do shards get the scores that the model gives row by row, whatever it is and however the rows lie?"""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from prunus.cli.app import invoke
from prunus.core.errors import DataError, ModelError, RecipeError
from prunus.core.recipes import recipe
from prunus.data import Columns, Scaler
from prunus.data.columns.fitted import CategoryColumn, NumberColumn
from prunus.models import build
from prunus.pipeline.sharding.shard_scorers import OpenBundle
from prunus.score.examples.recording.answer_scores import answer_scores
from prunus.ship import load_bundle, save_bundle

CODE = """
import numpy as np
import torch
from torch import nn


class Viewed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(3, 3)

    def forward(self, x):
        return self.last(x.view(-1)) if x.dim() == 1 else self.last(x.view(len(x), 3))


def model():
    return Viewed()


def formula():
    return lambda batch: {"twice": 2 * batch.column("x0").to_numpy()}


def number():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shard_code.py").write_text(CODE)
    return tmp_path


def numbers(folder, n=5000, seed=0, kind=np.float32):
    random = np.random.default_rng(seed)
    rows, labels = random.standard_normal((n, 3)).astype(kind), random.integers(0, 3, n)
    named = {f"x{j}": rows[:, j] for j in range(3)}
    pq.write_table(pa.table({"key": np.arange(n), **named, "label": labels}), folder / f"part-{seed}.parquet")
    return torch.from_numpy(rows), torch.from_numpy(labels)


def bundle(folder, *, columns=None, feature_names=(), class_names=("0", "1", "2"), n_inputs=3, task="classification"):
    made = recipe.Model(builder="mlp", args={"width": 8})
    n_outputs = len(class_names) or 1
    model = build(made, input_shape=(n_inputs,), n_outputs=n_outputs, seed=3).eval()
    given = {"scaler": Scaler(torch.full((n_inputs,), 0.5), torch.full((n_inputs,), 2.0))}
    if task == "regression":
        given["target_scaler"] = Scaler(torch.tensor(7.0), torch.tensor(3.0))
    save_bundle(
        folder / "bundle",
        model,
        built_by=made,
        input_shape=(n_inputs,),
        n_outputs=n_outputs,
        task=task,
        class_names=class_names,
        feature_names=feature_names,
        columns=columns,
        **given,
    )
    return load_bundle(folder / "bundle")


def scored(folder, *more, code=0, out="out"):
    assert invoke(["score-shards", *more, "--output", out, "--quiet"]) == code
    return pq.read_table(folder / out / "part-0.parquet") if code == 0 else None


def same(table, expected, keep=()):
    assert table.column_names == [*keep, *expected]
    for name, value in expected.items():
        np.testing.assert_allclose(table[name].to_numpy(), value, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_bundle_scores_rows_as_it_predicts_them(folder, kind):
    rows, labels = numbers(folder, kind=kind)
    columns = Columns(columns=tuple(NumberColumn(name=f"x{j}", kind="number", fill=0.0) for j in (2, 0, 1)))
    made = bundle(folder, columns=columns, feature_names=columns.feature_names)
    outputs = made.predict(rows[:, [2, 0, 1]])
    expected = answer_scores(outputs, labels, exclusive=True)
    found = scored(folder, "bundle", "part-0.parquet", "--target", "label", "--keep", "key")
    words = found["prediction"].to_pylist()
    assert words == [str(number) for number in expected["prediction"].tolist()]
    same(found.drop_columns("prediction"), {k: v for k, v in expected.items() if k != "prediction"}, keep=("key",))
    assert found["key"].to_pylist() == list(range(5000))


def test_without_labels_and_names_of_columns_the_rest_is_read_in_order(folder):
    rows, _ = numbers(folder)
    pq.write_table(pq.read_table("part-0.parquet").drop_columns(["key", "label"]), "part-0.parquet")
    outputs = bundle(folder).predict(rows)
    expected = answer_scores(outputs, None, exclusive=True, names=("entropy", "margin"))
    same(scored(folder, "bundle", "part-0.parquet", "--scores", "entropy,margin"), expected)


def test_categories_missing_values_and_labels_by_name_are_read_as_for_a_prediction(folder, capsys):
    random = np.random.default_rng(0)
    x = random.standard_normal(300)
    x[::7] = np.nan
    colours = random.choice(["red", "green", "blue"], 300)
    labels = random.choice(["low", "high"], 300)
    given = pa.table({"x": x, "colour": colours, "label": labels})
    pq.write_table(given, "part-0.parquet")
    columns = Columns(
        columns=(
            NumberColumn(name="x", kind="number", fill=0.25, missing=True),
            CategoryColumn(name="colour", kind="category", categories=("red", "green"), others=1),
        )
    )
    bundle(folder, columns=columns, feature_names=columns.feature_names, class_names=("high", "low"), n_inputs=5)
    found = scored(folder, "bundle", "part-0.parquet", "--target", "label", "--batch-rows", "64").to_pydict()
    capsys.readouterr()
    assert invoke(["predict", "bundle", "part-0.parquet", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert found["prediction"] == [row["label"] for row in rows]
    np.testing.assert_allclose(found["probability"], [row["probability"] for row in rows], atol=2e-6)
    own = np.where(np.array(found["prediction"]) == labels, found["probability"], 1 - np.array(found["probability"]))
    np.testing.assert_allclose(found["confidence"], own, atol=1e-5)


def test_a_regression_is_scored_in_the_units_of_the_data(folder):
    rows, labels = numbers(folder)
    columns = Columns(columns=tuple(NumberColumn(name=f"x{j}", kind="number", fill=0.0) for j in range(3)))
    made = bundle(folder, columns=columns, feature_names=columns.feature_names, class_names=(), task="regression")
    expected = answer_scores(made.predict(rows), labels.float(), exclusive=False)
    same(scored(folder, "bundle", "part-0.parquet", "--target", "label"), expected)


def test_a_model_of_ones_own_is_scored_whether_or_not_it_takes_rows_as_they_lie(folder):
    rows, labels = numbers(folder)
    import shard_code

    outputs = shard_code.model()(rows).detach()
    expected = answer_scores(outputs, labels, exclusive=True)
    found = scored(folder, "shard_code:model", "part-0.parquet", "--target", "label", "--keep", "key")
    same(found, expected, keep=("key",))


def test_a_function_of_columns_says_its_own_scores(folder):
    rows, _ = numbers(folder)
    same(scored(folder, "shard_code:formula", "part-0.parquet"), {"twice": 2 * rows[:, 0]})


def test_bad_rows_and_labels_are_named_the_others_finish_and_the_exit_code_says_so(folder, capsys):
    numbers(folder, seed=0)
    rows, _ = numbers(folder, seed=1)
    table = pq.read_table("part-1.parquet")

    def refused(column, values, said):
        at = table.column_names.index(column)
        pq.write_table(table.set_column(at, column, pa.array(values)), "part-1.parquet")
        capsys.readouterr()
        arguments = ["score-shards", "shard_code:model", "part-0.parquet", "part-1.parquet", "--target", "label"]
        code = invoke([*arguments, "--keep", "key", "--output", f"out-{abs(hash(said))}", "--quiet"])
        told = capsys.readouterr()
        assert code == 10
        assert "5,000 rows of 1 shards scored" in told.out
        assert said in told.err
        assert told.err.count("part-1.parquet: ") == 1
        assert "error: 1 of 2 shards have no scores; mend them, and add --resume" in told.err

    labels = table["label"].to_pylist()
    refused("label", [5, *labels[1:]], "labels are class numbers 0 to 2: got 5")
    refused("label", [*labels[:2], None, *labels[3:]], "the label of row 2 of these is missing")
    refused("label", ["x", *map(str, labels[1:])], "unknown label 'x'")
    refused("x1", [np.nan, *rows[1:, 1].tolist()], "column 'x1': expected a finite number, got nan in row 0")
    late = rows[:, 1].tolist()
    late[4321] = np.inf
    refused("x1", late, "column 'x1': expected a finite number, got inf in row 4321")
    refused("x1", ["a"] * 5000, "column 'x1' holds string: expected numbers")
    line = "score-shards shard_code:model part-1.parquet --target label --keep key --output none --quiet"
    assert invoke(line.split()) == 10
    told = capsys.readouterr()
    assert told.out == ""
    assert "error: 1 of 1 shards have no scores" in told.err


def test_what_cannot_be_had_is_said_before_a_file_is_read(folder, capsys):
    numbers(folder)

    def said(code, *arguments):
        capsys.readouterr()
        assert invoke(["score-shards", *arguments, "part-0.parquet", "--output", "out", "--quiet"]) == code
        return capsys.readouterr().err

    assert "must return a torch module, or a function" in said(5, "shard_code:number")
    assert "there is no module 'nowhere'" in said(5, "nowhere:model")
    assert "leave out the label's column" in said(3, "shard_code:formula", "--target", "label")
    assert "missing" in said(6, "missing")
    bundle(folder)
    assert "it needs labels" in said(3, "bundle", "--scores", "loss")
    assert "a bundle knows its columns" in said(3, "bundle", "--columns", "x0")
    assert not (folder / "out").exists()


def test_models_of_other_inputs_or_tasks_are_refused(folder):
    made = recipe.Model(builder="mlp", args={"width": 8})
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    save_bundle(
        folder / "images", model, built_by=None, dense=model, input_shape=(3, 2, 2), n_outputs=3, task="classification"
    )
    numbers(folder)
    with pytest.raises(DataError, match=r"takes rows of shape \(3, 2, 2\): got 5 columns"):
        OpenBundle(folder / "images")()(next(pq.ParquetFile("part-0.parquet").iter_batches()))
    multi = build(made, input_shape=(3,), n_outputs=2, seed=0).eval()
    save_bundle(
        folder / "multi",
        multi,
        built_by=made,
        input_shape=(3,),
        n_outputs=2,
        task="multilabel",
        class_names=("a", "b"),
    )
    with pytest.raises(ModelError, match="models of classes or values: got one of multilabel"):
        OpenBundle(folder / "multi")()
    bundle(folder)
    with pytest.raises(RecipeError, match=r"no score 'los': did you mean 'loss'\?$"):
        OpenBundle(folder / "bundle", target="label", names=("los",))()
