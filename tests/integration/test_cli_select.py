"""``prunus select``: a table that can be given back, the gate's word, resumed as if never stopped."""

import json
from pathlib import Path

import pytest
import yaml

from prunus.cli.app import invoke
from prunus.core.files.example_table import read_example_table
from prunus.core.recipes.recipe_file import load_recipe
from prunus.pipeline import run
from prunus.pipeline.stages import selection_gate

RECIPE = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "test": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 16, "depth": 1}},
    "train": {"epochs": 2, "learning_rate": 5e-3},
    "examples": {"epochs": 2, "cover": {"keep_fraction": 0.3}},
    "recovery": {"method": "none"},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8, "runtime": "torch"}},
    "seeds": [0, 1],
    "output": "out",
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))


def test_it_writes_who_stays_and_why_and_says_whether_it_pays(capsys):
    assert invoke(["select", "recipe.yaml", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    table = read_example_table(Path(said["table"]))
    assert said["n"]["train"] == len(table)
    decision = table.columns["decision"].tolist()
    assert decision.count("keep") == said["n"]["kept"] == round(0.3 * len(table))
    assert all(reason for what, reason in zip(decision, table.columns["reason"], strict=True) if what == "drop")
    assert {"stratum", "label", "random", "probability"} <= set(table.columns)
    assert [arm["name"] for arm in said["gate"]["arms"]] == ["selection", "random", "full_short"]
    assert sum(row["kept"] for row in said["classes"]) == said["n"]["kept"]
    assert invoke(["select", "recipe.yaml"]) == 7
    assert "holds" in capsys.readouterr().err
    assert invoke(["select", "recipe.yaml", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "Does it pay?" in out
    assert "recommended:" in out
    assert "-o examples.plan=out/examples.parquet" in out


def test_what_was_killed_in_the_gate_goes_on_and_ends_with_the_same_table(monkeypatch, capsys):
    assert invoke(["select", "recipe.yaml", "-q", "-o", "output=whole"]) == 0
    real, calls = selection_gate.train, []

    def dies(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(selection_gate, "train", dies)
    assert invoke(["select", "recipe.yaml", "-q", "-o", "output=stopped"]) == 130
    assert "add --resume to go on" in capsys.readouterr().err
    assert invoke(["select", "recipe.yaml", "-q", "-o", "output=stopped", "--resume"]) == 0
    assert len(calls) == 3 + 4  # two of six were kept
    whole, resumed = (read_example_table(Path(name) / "examples.parquet") for name in ("whole", "stopped"))
    assert whole.facts["select"]["summary"] == resumed.facts["select"]["summary"]
    assert whole.columns["decision"].tolist() == resumed.columns["decision"].tolist()


def test_a_run_judges_what_it_keeps_and_does_what_the_table_says():
    assert invoke(["select", "recipe.yaml", "-q", "-o", "seeds=[0]"]) == 0
    overrides = ["examples.plan=out/examples.parquet", "output=run", "examples.gate=true", "seeds=[0]"]
    record = run(load_recipe(Path("recipe.yaml"), overrides))
    decided = read_example_table(Path("out/examples.parquet")).columns["decision"].tolist()
    assert record.gate is not None
    assert record.gate.n_kept == [decided.count("keep")]
    assert "Does the selection pay?" in Path("run/report.html").read_text()


def test_a_recipe_that_says_nothing_of_what_stays_is_refused(capsys):
    tree = {key: value for key, value in RECIPE.items() if key != "examples"}
    Path("recipe.yaml").write_text(yaml.safe_dump(tree))
    assert invoke(["select", "recipe.yaml"]) == 3
    assert "add examples.cover.keep_fraction" in capsys.readouterr().err


def test_a_table_of_other_data_is_refused(capsys):
    assert invoke(["select", "recipe.yaml", "-q", "-o", "seeds=[0]"]) == 0
    other = ["-o", "data.source=sklearn:wine", "-o", "output=other", "-o", "examples.plan=out/examples.parquet"]
    assert invoke(["select", "recipe.yaml", "-q", *other]) == 6
    assert "was made for other data" in capsys.readouterr().err
