"""A table as it comes goes through a whole run, and one bad row doesn't stop the others."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from prunus.cli.app import invoke
from prunus.data import Scaler
from prunus.report import load_record
from prunus.ship import load_bundle, save_bundle

N = 600
HEAD = ["age", "income", "color", "when", "member"]


def columns() -> dict[str, list[object]]:
    draw = np.random.default_rng(0)
    age = draw.integers(18, 80, N)
    days = np.datetime64("2023-01-01") + draw.integers(0, 600, N).astype("timedelta64[D]")
    color = draw.choice(["red", "green", "blue"], N)
    return {
        "age": [None if gap else int(a) for a, gap in zip(age, draw.random(N) < 0.1, strict=True)],
        "income": np.exp(draw.normal(10, 1, N)).round(2).tolist(),
        "color": color.tolist(),
        "when": days.tolist(),
        "member": (draw.random(N) < 0.5).tolist(),
        "key": [f"k{code}" for code in draw.permutation(N)],
        "label": np.where((age > 45) ^ (color == "red"), "yes", "no").tolist(),
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return a folder with a table and a run on it."""
    folder = tmp_path_factory.mktemp("table")
    pyarrow.csv.write_csv(pa.table(columns()), folder / "t.csv")
    recipe = {
        "data": {"source": str(folder / "t.csv"), "kinds": {"income": "quantile"}, "groups": "color"},
        "model": {"builder": "mlp", "args": {"width": 12}},
        "train": {"epochs": 4},
        "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5},
        "recovery": {"epochs": 1},
        "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch"}},
        "seeds": [0],
        "output": str(folder / "out"),
    }
    (folder / "r.yaml").write_text(json.dumps(recipe))
    assert invoke(["run", str(folder / "r.yaml"), "--quiet"]) == 0
    return folder


def predicted(capsys, folder, *arguments: object) -> tuple[int, str, str]:
    code = invoke(["predict", str(folder / "out"), *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def rows(folder, *given: str, name: str = "p.csv"):
    (folder / name).write_text("\n".join([",".join(HEAD), *given]) + "\n")
    return folder / name


GOOD = "30,1000.5,red,2023-05-05,true"
BAD = {
    "abc,1000.5,red,2023-05-05,true": ("age", "a finite number", "'abc'"),
    "30,,red,2023-05-05,true": ("income", "a number, as in every row of training", "an empty cell"),
    "30,1000.5,,2023-05-05,true": ("color", "a category, as in every row of training", "an empty cell"),
    "30,1000.5,red,yesterday,true": ("when", "a date like 2024-05-31 or 2024-05-31T18:00:00+02:00", "'yesterday'"),
    "30,1000.5,red,2023-05-05,perhaps": ("member", "true or false", "'perhaps'"),
    "30,1000.5": (None, "a row that can be read", "2 fields instead of 5"),
}


def test_the_bundle_gives_for_a_row_what_the_run_gave(ran, capsys):
    code, out, err = predicted(capsys, ran, ran / "t.csv", "--json")
    assert (code, err) == (0, "")
    labels = [row["label"] for row in json.loads(out)]
    accuracy = np.mean(np.array(labels) == np.array(columns()["label"]))
    assert invoke(["evaluate", str(ran / "out"), "--source", str(ran / "t.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]["all"]["metrics"]
    assert next(m["value"] for m in found if m["name"] == "accuracy") == pytest.approx(accuracy)
    assert accuracy > 0.6
    pyarrow.parquet.write_table(pa.table({k: v for k, v in columns().items() if k != "label"}), ran / "t.parquet")
    assert json.loads(predicted(capsys, ran, ran / "t.parquet", "--json")[1]) == json.loads(out)


def test_evaluating_on_the_run_s_own_data_gives_the_run_s_own_number(ran, capsys):
    assert invoke(["evaluate", str(ran / "out"), "--recipe", str(ran / "r.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["splits"]["test"]["metrics"]
    record = load_record(ran / "out" / "record.json")
    (wanted,) = (
        number.value
        for row in record.quality
        if (row.model, row.split) == ("pruned", "test")
        for number in row.metrics
        if number.name == "accuracy"
    )
    assert next(m["value"] for m in found if m["name"] == "accuracy") == pytest.approx(wanted)
    assert any("column 'age' has no value in" in note for note in record.notes)
    assert any("'key' has another text in each" in note for note in record.notes)


def test_the_change_of_each_group_is_in_the_record_the_report_and_the_summary(ran, capsys):
    found = load_record(ran / "out" / "record.json").group_changes
    assert (found.column, found.metric) == ("color", "accuracy")
    record = load_record(ran / "out" / "record.json")
    assert sum(item.n for item in found.changes) == record.data.n["test"]
    assert {item.name for item in found.changes} == {"red", "green", "blue"}
    (whole,) = (row for row in record.comparison if row.metric == "accuracy")
    assert sum(item.n * item.pruned for item in found.changes) / record.data.n["test"] == pytest.approx(whole.pruned)
    assert invoke(["report", str(ran / "out")]) == 0
    assert "accuracy by color, 3 groups looked at at once: " in " ".join(capsys.readouterr().out.split())
    assert "Every group of color" in (ran / "out" / "report.html").read_text()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_row_is_named_and_the_others_are_predicted_as_without_it(ran, capsys, place):
    for line, (column, expected, got) in BAD.items():
        given = [GOOD, GOOD]
        given.insert(place, line)
        code, out, err = predicted(capsys, ran, rows(ran, *given), "--json")
        assert code == 10
        found = json.loads(out)
        assert found[place] == {
            "id": str(place),
            "error": {"row": place, "column": column, "expected": expected, "got": got},
        }
        whole = json.loads(predicted(capsys, ran, rows(ran, GOOD, GOOD), "--json")[1])
        others = [row for number, row in enumerate(found) if number != place]
        assert [row["label"] for row in others] == [row["label"] for row in whole]
        assert [row["probability"] for row in others] == pytest.approx([row["probability"] for row in whole], abs=1e-5)
        assert "1 of 3 rows can't be predicted: row " in err
        assert err.count("\n") == 1


def test_a_row_whose_answer_overflows_is_bad_and_the_others_are_not(tmp_path, capsys):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 3.0)
    facts = {"input_shape": (2,), "n_outputs": 2, "feature_names": ("a", "b"), "built_by": None, "dense": model}
    save_bundle(tmp_path / "out", model, task="classification", class_names=("x", "y"), **facts)
    (tmp_path / "p.csv").write_text("a,b\n1,2\n3e38,3e38\n3,4\n")
    code, out, err = predicted(capsys, tmp_path, tmp_path / "p.csv", "--json")
    assert code == 10
    assert [row.get("error", {}).get("expected") for row in json.loads(out)] == [None, "a finite answer", None]
    (tmp_path / "p.csv").write_text("a,b\n3e38,2\n3e38,3e38\n")
    code, out, err = predicted(capsys, tmp_path, tmp_path / "p.csv", "--json")
    assert (code, out) == (8, ""), "nothing is finite: the model is broken, or all is far away"
    assert "is NaN or infinite" in err


def test_as_csv_the_error_stands_in_its_row(ran, capsys):
    code, out, _ = predicted(capsys, ran, rows(ran, GOOD, *BAD, GOOD))
    found = list(csv.DictReader(io.StringIO(out)))
    assert code == 10
    assert [row["error"] == "" for row in found] == [True, *[False] * len(BAD), True]
    assert found[1]["error"] == "row 1, column 'age': expected a finite number, got 'abc'"
    assert [row["label"] == "" for row in found] == [False, *[True] * len(BAD), False]
    code, out, _ = predicted(capsys, ran, rows(ran, GOOD))
    assert (code, out.splitlines()[0]) == (0, "id,label,probability"), "no such column where nothing is wrong"
    code, out, err = predicted(capsys, ran, rows(ran, *BAD))
    assert code == 10
    assert out.splitlines()[0] == "id,error"
    assert "6 of 6 rows" in err


def test_missing_and_unseen_values_are_predicted_with_a_word_about_it(ran, capsys):
    given = rows(ran, GOOD, ",1000.5,red,2023-05-05,true", "30,1000.5,violet,2023-05-05,true")
    code, out, err = predicted(capsys, ran, given, "--json")
    assert code == 0
    assert len({row["probability"] for row in json.loads(out)}) == 3
    assert "column 'color': 1 row has a value that training never saw, like 'violet'" in err
    assert err.count("\n") == 1


def test_evaluating_on_other_rows_takes_the_bundle_s_own_fit_and_says_what_training_never_saw(ran, capsys):
    """Its table alone would be fitted otherwise: other medians, another category, a gap where there was none."""
    lines = [f"{age},{1000 + age}.5,{color},2023-05-05,true" for age in range(20, 80) for color in ("red", "violet")]
    lines[3] = lines[3].replace(",1021.5", ",")
    answers = json.loads(predicted(capsys, ran, rows(ran, *lines), "--json")[1])
    labels = [row.get("label", "no") for row in answers]
    table = "\n".join(
        [f"{','.join(HEAD)},label", *(f"{line},{label}" for line, label in zip(lines, labels, strict=True))]
    )
    (ran / "e.csv").write_text(table + "\n")
    assert invoke(["evaluate", str(ran / "out"), "--source", str(ran / "e.csv"), "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)["splits"]["all"]["metrics"]
    assert next(m["value"] for m in found if m["name"] == "accuracy") >= 119 / 120
    assert "column 'income': 1 row has no value, which no training row lacked: they get " in said.err
    assert "column 'color': 60 rows have a value that training never saw, like 'violet'" in said.err


def test_another_delimiter_is_found_and_a_missing_column_stops_all(ran, capsys):
    path = rows(ran, GOOD)
    wanted = predicted(capsys, ran, path)[1]
    path.write_text(path.read_text().replace(",", ";"))
    assert predicted(capsys, ran, path)[1] == wanted
    path.write_text("age,color\n1,red\n")
    code, out, err = predicted(capsys, ran, path)
    assert (code, out) == (4, "")
    assert "the model needs the columns 'income', 'when', 'member'" in err


def test_ids_that_are_missing_or_come_twice_are_their_row_s_mistake(ran, capsys):
    (ran / "p.csv").write_text(f"id,{','.join(HEAD)}\na,{GOOD}\na,{GOOD}\nb,{GOOD}\n")
    code, out, _ = predicted(capsys, ran, ran / "p.csv", "--json")
    assert code == 10
    assert [row["id"] for row in json.loads(out)] == ["a", "a", "b"]
    assert [row.get("error", {}).get("got") for row in json.loads(out)] == [None, "'a', as in row 0", None]


def test_a_bundle_without_columns_still_takes_a_table(tmp_path, capsys):
    """As those do that were written before columns were fitted: the names of the features say what they are made of."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    names = ("size", "color=blue", "color=red")
    save_bundle(
        tmp_path / "out",
        model,
        built_by=None,
        dense=model,
        input_shape=(3,),
        n_outputs=2,
        task="classification",
        class_names=("a", "b"),
        feature_names=names,
        scaler=Scaler.identity(),
    )
    assert load_bundle(tmp_path / "out").columns is None
    (tmp_path / "p.csv").write_text("color,size\nred,1.5\nblue,2.5\ngreen,x\n")
    code, out, _ = predicted(capsys, tmp_path, tmp_path / "p.csv", "--json")
    found = json.loads(out)
    wanted = model(torch.tensor([[1.5, 0, 1], [2.5, 1, 0]])).softmax(1).max(1).values.tolist()
    assert [row["probability"] for row in found[:2]] == pytest.approx(wanted, abs=1e-5)
    assert (code, found[2]["error"]["column"]) == (10, "size")
    (tmp_path / "e.csv").write_text("color,size,label\nred,1.5,a\nblue,,b\n")
    assert invoke(["evaluate", str(tmp_path / "out"), "--source", str(tmp_path / "e.csv")]) == 4
    assert "column 'size', sample '1': expected a value" in capsys.readouterr().err
