"""`prunus clean` finds what is wrong with the examples, and a run does what the edited table says."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from prunus.cli.app import invoke
from prunus.core.files.example_table import read_example_table
from prunus.core.files.plan_file import load_plan
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import clean_examples
from recipe_samples import IRIS


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def flowers(**sections):
    """Write a recipe for flowers some of which are nearly alike, in both parts and with other labels; return its path."""
    draw = np.random.default_rng(0)
    centre = draw.normal(size=(3, 4)) * 4
    label = np.arange(240) % 3
    values = centre[label] + draw.normal(size=(240, 4))
    twin = values[:60] + 1e-3 * draw.normal(size=(60, 4))
    names = np.array(["iris", "rose", "tulip"])[np.r_[label, label[:60]]]
    names[240:243] = np.roll(np.unique(names), 1)[np.searchsorted(np.unique(names), names[240:243])]
    columns = {f"c{i}": np.r_[values, twin][:, i] for i in range(4)}
    pq.write_table(pa.table({**columns, "kind": names.tolist()}), "flowers.parquet")
    recipe = {
        **IRIS,
        "data": {"source": "flowers.parquet", "target": "kind"},
        "train": {"epochs": 20},
        "examples": {"epochs": 20},
        "output": "out",
        **sections,
    }
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    return "r.yaml"


def test_what_is_wrong_is_written_shown_and_told(capsys):
    assert invoke(["clean", flowers(), "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_alike"]["dropped"] > 0
    assert found["n_alike"]["leaked"] == len(found["leaked"]) or len(found["leaked"]) == 10
    assert 0 < found["n_alike"]["leaked"] <= found["n"]["test"]
    assert found["labels"]["n"] == found["n"]["train"]
    table = read_example_table(Path(found["table"]))
    assert len(table) == found["n"]["train"]
    gone = table.columns["decision"] == "drop"
    twins = np.array([pair is not None for pair in table.columns["duplicate_of"]])
    assert twins.sum() == found["n_alike"]["dropped"]
    assert gone[twins].all()
    assert gone.sum() == twins.sum() + found["labels"]["n_dropped"]
    assert (table.columns["likeness"][twins] >= 0.99).all()
    page = Path(found["page"]).read_text()
    assert "<script" not in page
    assert 'class="map"' in page
    assert "Test examples that the training knows" in page
    assert sorted(child.name for child in Path("out").iterdir()) == ["examples.html", "examples.parquet"]


def test_the_terminal_shows_how_to_give_the_table_back(capsys):
    recipe = flowers()
    assert invoke(["clean", recipe, "--quiet", "-o", "train.epochs=5"]) == 0
    out = capsys.readouterr().out
    assert "labels estimated to be wrong, if by chance" in out
    assert "near-duplicates with the same label, removed" in out
    assert "`prunus run r.yaml -o train.epochs=5 -o examples.plan=out/examples.parquet`" in out


def test_an_edited_table_given_back_is_what_the_run_does(capsys):
    recipe = flowers()
    assert invoke(["clean", recipe, "--quiet"]) == 0
    frame = pq.read_table("out/examples.parquet").to_pydict()
    frame["decision"] = ["keep"] * len(frame["id"])
    frame["decision"][3], frame["decision"][7], frame["new_label"][7] = "drop", "relabel", "rose"
    pq.write_table(pa.table(frame), "out/examples.parquet")  # without metadata, as a spreadsheet leaves it
    written = Path("out/examples.parquet").read_bytes()
    assert invoke(["run", recipe, "--quiet", "-o", "examples.plan=out/examples.parquet"]) == 0
    plan = load_plan(Path("out"))
    went = {
        step.operation: [n for d in step.decisions for n in d.label[~d.keep].tolist()]
        for step in plan.steps
        if step.granularity == "example"
    }
    expected = {"remove": [frame["id"][3]]}
    if frame["label"][7] != "rose":
        expected["relabel"] = [frame["id"][7]]
    assert went == expected
    assert Path("out/examples.parquet").read_bytes() == written
    capsys.readouterr()
    assert invoke(["clean", recipe, "--quiet"]) == 7
    assert "decisions already" in capsys.readouterr().err
    assert Path("out/examples.parquet").read_bytes() == written
    assert invoke(["clean", recipe, "--quiet", "--overwrite"]) == 0


def test_killed_and_resumed_is_never_killed(capsys):
    recipe = yaml.safe_load(Path(flowers()).read_text())
    clean_examples(make_recipe({**recipe, "output": "whole"}))
    seen = []

    def kill(event):
        seen.append(event.stage)
        if "fold 2" in event.stage:
            raise KeyboardInterrupt

    killed = make_recipe({**recipe, "output": "killed"})
    with pytest.raises(KeyboardInterrupt):
        clean_examples(killed, listener=kill)
    again = []
    clean_examples(killed, resume=True, listener=lambda event: again.append(event.stage))
    assert not any("fold 1" in stage for stage in again), "what was trained was trained again"
    for part in ("columns", "ids"):
        one, other = (getattr(read_example_table(Path(name, "examples.parquet")), part) for name in ("whole", "killed"))
        assert str(one) == str(other)
    assert Path("whole/examples.html").read_bytes() == Path("killed/examples.html").read_bytes()
    done = []
    clean_examples(killed, resume=True, listener=done.append)
    assert done == [], "a finished one is only read"


@pytest.mark.parametrize(
    ("plan", "code", "says"),
    [
        ("nothing.parquet", 6, "examples.plan: there is no table of examples at nothing.parquet"),
        ("r.yaml", 6, "r.yaml: not a readable Parquet file"),
        ("out/plan/examples.parquet", 3, "lies in the plan of this run's output folder"),
    ],
)
def test_a_table_that_cant_be_used_is_told_before_anything_is_trained(capsys, plan, code, says):
    recipe = flowers()
    if plan.startswith("out"):
        Path("out/plan").mkdir(parents=True)
        Path(plan).write_bytes(b"x")
    assert invoke(["run", recipe, "--quiet", "-o", f"examples.plan={plan}"]) == code
    assert says in capsys.readouterr().err


def test_a_plan_that_came_from_elsewhere_reads_no_table_without_permission(capsys):
    recipe = flowers(data={"source": "sklearn:iris"})
    assert invoke(["clean", recipe, "--quiet"]) == 0
    assert invoke(["plan", recipe, "--quiet", "-o", "examples.plan=out/examples.parquet", "-o", "output=p"]) == 0
    assert invoke(["apply", "p", "--quiet"]) == 6
    assert "examples.plan names a file to read" in capsys.readouterr().err


def test_token_ids_are_compared_by_the_tokens_that_they_share(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_tokens.py").write_text(
        "import torch\n"
        "class Texts(torch.utils.data.Dataset):\n"
        "    column_names = ['input_ids', 'labels']\n"
        "    def __init__(self):\n"
        "        self.ids = torch.randint(1, 90, (240, 16), generator=torch.Generator().manual_seed(0))\n"
        "        self.ids[120:, 1:] = self.ids[:120, 1:]\n"
        "        self.targets = (self.ids[:, 1] > 45).long().tolist()\n"
        "    def __len__(self):\n"
        "        return 240\n"
        "    def __getitem__(self, row):\n"
        "        return self.targets if row == 'labels' else {'input_ids': self.ids[row], 'labels': self.targets[row]}\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layers = torch.nn.Sequential(torch.nn.Embedding(90, 4), torch.nn.Flatten(), torch.nn.Linear(64, 2))\n"
        "    def forward(self, input_ids):\n"
        "        return self.layers(input_ids)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = flowers(data={"source": "my_tokens:Texts"}, model={"builder": "my_tokens:Net"}, examples={"epochs": 1})
    assert invoke(["clean", recipe, "--quiet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_alike"]["dropped"] > 5
    assert found["n_alike"]["leaked"] > 20
    table = read_example_table(Path(found["table"]))
    reasons = table.columns["reason"][table.columns["decision"] == "drop"].tolist()
    assert (
        sum(", Jaccard 0.8" in reason or ", Jaccard 0.9" in reason for reason in reasons) == found["n_alike"]["dropped"]
    )
