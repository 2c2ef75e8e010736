"""A typo in a path is answered before torch is imported, with the same words as later."""

import subprocess
import sys

import pytest
import yaml

from prunus.cli.app import invoke
from prunus.core.errors import DataError, ModelError, RecipeError, WeightsError
from prunus.core.recipes.named_places import check_recipe
from prunus.core.recipes.recipe_file import make_recipe
from prunus.data import open_source

RECIPE = {"data": {"source": "digits.npz"}, "output": "out"}

ALL_AT_ONCE = """
import sys
from prunus.cli.app import invoke
codes = [invoke(line.split()) for line in sys.argv[1:]]
print(*codes, *(name for name in ("torch", "pyarrow") if name in sys.modules))
"""


def test_no_typo_waits_for_torch(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    weights = tmp_path / "w.yaml"
    weights.write_text(yaml.safe_dump(RECIPE | {"data": {"source": "sklearn:digits"}, "model": {"weights": "w.pt"}}))
    lines = {
        "run nothing.yaml": 3,
        "graph nothing.yaml": 3,
        "plan nothing.yaml": 3,
        "run r.yaml": 4,
        "graph r.yaml": 4,
        "plan r.yaml": 4,
        "run w.yaml": 5,
        "run r.yaml -o data.source=nobody:digits": 4,
        "run w.yaml -o model={builder:nobody:net}": 3,
        "evaluate nothing": 6,
        "evaluate nothing --source x.csv": 6,
        "predict nothing x.csv": 6,
        "export nothing --to onnx": 6,
        "report nothing": 6,
        "shards nothing out --keep-fraction 0.5": 5,
    }
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE, *lines], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(code) for code in lines.values()], done.stderr
    assert len(done.stderr.splitlines()) == len(lines)


def test_no_plan_is_said_without_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ALL_AT_ONCE, "apply nothing"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["6", "pyarrow"]
    assert "no plan at nothing" in done.stderr


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("report runs/tow", "did you mean 'two'?"),
        ("apply runs/tow/plan", "did you mean 'runs/two/plan'?"),
        ("evaluate runs/tow", "did you mean 'two'?"),
        ("shards runs/tow out", "did you mean 'two'?"),
        ("predict runs/two x.csv", "give the folder of a bundle"),
    ],
)
def test_a_typo_in_a_folder_is_told_what_lies_there(tmp_path, monkeypatch, capsys, line, meant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "two").mkdir(parents=True)
    assert invoke(line.split()) in (5, 6)
    said = capsys.readouterr().err
    assert meant in said, said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"data": {"source": "dgits.npz"}},
            DataError,
            "dgits.npz: there is no such file or folder; did you mean 'digits.npz'",
        ),
        ({"data": {"source": "nobody_has_it:set"}}, DataError, "there is no module 'nobody_has_it'"),
        ({"model": {"weights": "w.pt"}}, WeightsError, "there is no weight file w.pt"),
        ({"model": {"builder": "nobody_has_it:net"}}, ModelError, "there is no module 'nobody_has_it'"),
        ({"train": {"loss": "nobody_has_it:loss"}}, RecipeError, "there is no module 'nobody_has_it'"),
    ],
)
def test_each_place_of_a_recipe_is_looked_at(changed, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.npz").touch()
    check_recipe(make_recipe(RECIPE, "r"))
    with pytest.raises(error, match=message):
        check_recipe(make_recipe(RECIPE | changed, "r"))


def test_the_early_answer_is_the_late_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("gone.csv", "gone/", "nobody_has_it:set"):
        recipe = make_recipe({"data": {"source": source}}, "r")
        with pytest.raises(DataError) as early:
            check_recipe(recipe)
        with pytest.raises(DataError) as late:
            open_source(recipe.data)
        assert str(early.value) == str(late.value)


def test_what_is_there_is_left_to_the_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("raise SystemExit('not to be imported')")
    (tmp_path / "photos").mkdir()
    for source in ("sklearn:anything", "mine:set", "photos", "mine.sub:set", "json:loads"):
        check_recipe(make_recipe({"data": {"source": source}, "model": {"builder": "mine:net"}}, "r"))


def test_a_finished_run_is_read_though_its_data_are_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "record.json").write_text("{}")
    invoke(["run", "r.yaml", "--resume"])
    assert "digits.npz" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("verify r.yaml", 6, "no bundle at r.yaml: it is a file;"),
        ("sizes one --size 0.5 --out half", 6, "no sizes at one: it has no sizes.json; give the folder"),
        ("verify many", 6, "it holds several sizes: say which with --size KEEP_FRACTION"),
        ("sizes r.yaml --out half", 2, "--out goes with --size"),
        ("sizes many", 2, "many is a folder and no finished search: --size KEEP_FRACTION --out FOLDER"),
    ],
)
def test_what_is_there_and_is_something_else_is_said_so(line, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "sizes.json").write_text("{}")
    assert invoke(line.split()) == code
    assert words in capsys.readouterr().err
