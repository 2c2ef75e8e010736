"""The main job through the command line: whole, repeatable, resumable."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.cli.app import invoke
from prunus.core.files.plan_file import load_plan, plan_summary
from prunus.core.recipes.recipe_file import parse_yaml
from prunus.pipeline.stages import model_stage as model_side
from prunus.ship import bundle_sha256


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan_bytes(folder: Path) -> bytes:
    return (folder / "plan" / "units.parquet").read_bytes()


FULL = {
    "examples": {
        "epochs": 2,
        "relabel": {"confidence": 0.5, "neighbours": 5, "agreement": 0.6},
        "remove": [{"criterion": "aum", "keep_fraction": 0.95}, {"criterion": "el2n", "keep_fraction": 0.8}],
    },
    "strategy": {
        "criterion": "taylor",
        "granularity": "channel",
        "keep_fraction": 0.5,
        "schedule": {"kind": "cubic", "rounds": 2},
    },
    "seeds": [0, 1],
}


def test_a_run_leaves_everything_it_promises(small_recipe, capsys):
    assert invoke(["run", str(small_recipe(**FULL)), "--quiet", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    out = Path("out")
    assert {p.name for p in out.iterdir()} - {".lock"} == {
        "recipe.yaml",
        "plan",
        "bundle",
        "dense",
        "record.json",
        "report.html",
        "log.jsonl",
    }
    assert record == json.loads((out / "record.json").read_text())
    for line in (out / "log.jsonl").read_text().splitlines():
        json.loads(line)
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert sorted(p.name for p in (out / "bundle").iterdir()) == [
        "README.md",
        "bom.cdx.json",
        "graph.json",
        "manifest.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("granularity", ["weight", "channel"])
@pytest.mark.parametrize(
    "criterion", ["magnitude_l1", "magnitude_l2", "gradient", "taylor", "l1", "bn_scale", "random"]
)
def test_every_strategy_runs_and_keeps_what_it_was_asked_to(small_recipe, criterion, granularity):
    if (criterion, granularity) == ("bn_scale", "weight"):
        pytest.skip("a scale belongs to a channel")
    strategy = {"criterion": criterion, "granularity": granularity, "keep_fraction": 0.4, "l1_epochs": 1}
    assert invoke(["run", str(small_recipe(strategy=strategy)), "--quiet"]) == 0
    (step,) = load_plan(Path("out")).steps
    assert step.n_kept == round(0.4 * step.n_units)


def test_same_seed_same_plan_and_same_bundle(small_recipe):
    hashes = []
    for output in ("a", "b"):
        assert invoke(["run", str(small_recipe(**FULL)), "--quiet", "-o", f"output={output}"]) == 0
        hashes.append((plan_bytes(Path(output)), bundle_sha256(Path(output, "bundle"))))
    assert hashes[0] == hashes[1]
    assert invoke(["run", str(small_recipe(**{**FULL, "seeds": [5]})), "--quiet", "-o", "output=c"]) == 0
    assert bundle_sha256(Path("c/bundle")) != hashes[0][1]


def test_plan_then_apply_is_run(small_recipe, monkeypatch):
    trained, train = [], model_side.train
    monkeypatch.setattr(model_side, "train", lambda *a, **o: trained.append(o["stage"]) or train(*a, **o))
    recipe = str(small_recipe(**{**FULL, "seeds": [0]}))
    assert invoke(["plan", recipe, "--quiet", "-o", "output=p"]) == 0
    assert not Path("p/bundle").exists()
    assert invoke(["apply", "p/plan", "--quiet", "-o", "output=a"]) == 0
    assert trained.count("seed 0 / train") == 1, "what the plan trained was trained again"
    assert invoke(["run", recipe, "--quiet", "-o", "output=r"]) == 0
    assert plan_bytes(Path("p")) == plan_bytes(Path("r")) == plan_bytes(Path("a"))
    assert bundle_sha256(Path("a/bundle")) == bundle_sha256(Path("r/bundle"))


def test_a_plan_without_its_dense_model_gives_the_same_and_with_another_one_is_refused(small_recipe, capsys):
    recipe = str(small_recipe(**{**FULL, "seeds": [0]}))
    assert invoke(["plan", recipe, "--quiet", "-o", "output=p"]) == 0
    shutil.copytree("p/plan", "elsewhere/plan")
    for plan, output in (("p", "a"), ("elsewhere/plan", "b")):
        assert invoke(["apply", plan, "--quiet", "-o", f"output={output}"]) == 0
    assert bundle_sha256(Path("a/bundle")) == bundle_sha256(Path("b/bundle"))
    weights = next(Path("p/.work").glob("*train/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert invoke(["apply", "p", "--quiet", "-o", "output=c"]) == 6
    assert "was changed after the plan was made" in capsys.readouterr().err
    assert invoke(["apply", "p", "--quiet", "-o", "train.epochs=1", "-o", "output=d"]) == 0, "trained as it says"


def test_less_than_one_unit_leaves_what_the_floors_ask_for_and_says_so(small_recipe, capsys):
    recipe = str(small_recipe(strategy={"criterion": "magnitude_l2", "keep_fraction": 0.001}, train={"epochs": 0}))
    assert invoke(["plan", recipe]) == 0
    (step,) = load_plan(Path("out")).steps
    assert {decision.n_kept for decision in step.decisions} == {1}
    said = capsys.readouterr().err
    assert f"keep_fraction 0.001 of {step.n_units} channels is less than one; min_units keeps {step.n_kept}" in said


def test_a_plan_for_other_data_is_refused(small_recipe, capsys):
    assert invoke(["plan", str(small_recipe()), "--quiet"]) == 0
    other = ["-o", "data.source=sklearn:wine", "-o", "model={builder: mlp}", "-o", "output=x"]
    assert invoke(["apply", "out/plan", "--quiet", *other]) == 6
    assert "made for other data" in capsys.readouterr().err
    assert invoke(["apply", "out/plan", "--quiet", "-o", "model.args.width=9", "-o", "output=y"]) == 6
    assert "made for other model" in capsys.readouterr().err


DIES = """
import os, signal, sys
from prunus.cli.app import invoke
from prunus.pipeline.jobs.workspace import Workspace
n, said = [0], Workspace._say

def say(self, event):
    said(self, event)
    n[0] += event.kind == "end"
    if n[0] == int(sys.argv[1]) and event.kind == "start":  # in the middle of a stage
        os.kill(os.getpid(), signal.SIGKILL)

Workspace._say = say
sys.exit(invoke(sys.argv[2:]))
"""


@pytest.mark.parametrize("n_stages", [1, 3, 5])
def test_killed_and_resumed_is_never_killed(small_recipe, tmp_path, n_stages):
    recipe = small_recipe(**{**FULL, "train": {"epochs": 6}, "recovery": {"method": "distil", "epochs": 4}})
    assert invoke(["run", str(recipe), "--quiet", "-o", "output=whole"]) == 0
    command = [sys.executable, "-c", DIES, str(n_stages), "run", str(recipe), "--quiet", "-o", "output=killed"]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    log = (tmp_path / "killed" / "log.jsonl").read_text()
    assert log.count('"kind": "end"') == n_stages
    assert not (tmp_path / "killed" / "record.json").exists()
    assert invoke(["run", str(recipe), "--quiet", "-o", "output=killed", "--resume"]) == 0
    assert plan_bytes(Path("killed")) == plan_bytes(Path("whole"))
    assert (Path("killed/bundle/model.safetensors")).read_bytes() == Path("whole/bundle/model.safetensors").read_bytes()
    assert bundle_sha256(Path("killed/bundle")) == bundle_sha256(Path("whole/bundle"))


def test_a_folder_that_holds_a_run_is_left_alone_unless_told(small_recipe, capsys):
    recipe = str(small_recipe())
    assert invoke(["run", recipe, "--quiet"]) == 0
    before = Path("out/record.json").read_bytes()
    assert invoke(["run", recipe, "--quiet"]) == 7
    assert "--resume" in capsys.readouterr().err
    assert invoke(["run", recipe, "--quiet", "--resume"]) == 0
    assert Path("out/record.json").read_bytes() == before
    assert invoke(["run", recipe, "--quiet", "--resume", "-o", "strategy.keep_fraction=0.7"]) == 7
    assert "another recipe" in capsys.readouterr().err


def test_a_cutoff_removes_what_scores_below_it(small_recipe):
    strategy = {"criterion": "magnitude_l2", "granularity": "weight", "cutoff": 0.05}
    assert invoke(["run", str(small_recipe(strategy=strategy)), "--quiet"]) == 0
    (step,) = load_plan(Path("out")).steps
    for decision in step.decisions:
        kept = decision.saliency[decision.keep]
        assert (kept >= 0.05).all() or decision.n_kept == 1
    assert 0 < step.n_kept < step.n_units


def test_a_bundle_predicts_and_evaluates_and_a_report_is_made_anew(small_recipe, capsys):
    import numpy as np
    from sklearn.datasets import load_digits

    assert invoke(["run", str(small_recipe(train={"epochs": 6}, recovery={"epochs": 3})), "--quiet"]) == 0
    images, labels = load_digits(return_X_y=True)
    np.savez("some.npz", inputs=images[:20].reshape(-1, 1, 8, 8).astype(np.float32))
    capsys.readouterr()
    assert invoke(["predict", "out", "some.npz", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 20
    assert np.mean([int(row["label"]) == label for row, label in zip(rows, labels[:20], strict=True)]) > 0.5
    assert invoke(["predict", "out/bundle", "some.npz", "--output", "p.csv"]) == 0
    assert Path("p.csv").read_text().count("\n") == 21
    capsys.readouterr()
    assert invoke(["evaluate", "out", "--json"]) == 0
    assert "accuracy" in capsys.readouterr().out
    page = Path("out/report.html").read_bytes()
    Path("out/report.html").unlink()
    assert invoke(["report", "out", "--json"]) == 0
    assert Path("out/report.html").read_bytes() == page


def test_features_that_hardly_matter_leave_the_first_layer(small_recipe):
    sections = {
        "data": {"source": "sklearn:breast_cancer", "split": {"validation": 0.3, "calibration": 0.1, "test": 0.2}},
        "model": {"builder": "mlp", "args": {"width": 16}},
        "train": {"epochs": 5},
        "features": {"repeats": 3, "tolerance": 0.05},
    }
    assert invoke(["run", str(small_recipe(**sections)), "--quiet"]) == 0
    plan = load_plan(Path("out"))
    (step,) = [s for s in plan.steps if s.operation == "replace"]
    assert 0 < step.n_kept < step.n_units == 30
    assert plan_summary(plan)[0]["granularity"] == "feature"


def test_a_size_written_into_forward_still_ships_and_loads(small_recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "stubborn.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, n_outputs):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())\n"
        "        self.fc = torch.nn.Linear(512, n_outputs)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.conv(x).view(-1, 512))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    strategy = {**FULL["strategy"], "keep_fraction": 0.4}
    assert (
        invoke(["run", str(small_recipe(model={"builder": "stubborn:Net"}, strategy=strategy)), "--quiet", "--json"])
        == 0
    )
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "graph"
    assert record["cost"]["pruned"]["parameters"] < 0.5 * record["cost"]["dense"]["parameters"]
    (tmp_path / "stubborn.py").write_text("raise SystemExit('the code ran')\n")
    monkeypatch.delitem(sys.modules, "stubborn")
    (row,) = [q for q in record["quality"] if (q["model"], q["split"]) == ("pruned", "test")]
    for options in ([], ["--trust-code"]):
        assert invoke(["evaluate", "out", "--json", *options]) == 0
        printed = capsys.readouterr()
        again = json.loads(printed.out)
        assert again["kind"] == "graph"
        assert [m["value"] for m in again["splits"]["test"]["metrics"]] == [m["value"] for m in row["metrics"]]
        assert printed.err == "", "there is no class that a flag could give"


def test_a_model_of_ones_own_predicts_and_evaluates_as_a_graph_without_its_code(
    small_recipe, tmp_path, monkeypatch, capsys
):
    import numpy as np
    from sklearn.datasets import load_digits

    code = (
        "import torch\n"
        "def net(n_outputs):\n"
        "    layers = torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten()\n"
        "    return torch.nn.Sequential(*layers, torch.nn.Dropout(0.1), torch.nn.Linear(288, n_outputs))\n"
    )
    (tmp_path / "theirs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert invoke(["run", str(small_recipe(model={"builder": "theirs:net"}, seeds=[0])), "--quiet"]) == 0
    np.savez("some.npz", inputs=load_digits().images[:9].reshape(-1, 1, 8, 8).astype(np.float32))
    answers = {}
    for options in (["--trust-code"], []):
        if not options:
            (tmp_path / "theirs.py").write_text("raise SystemExit('code that nobody trusts ran')\n")
            monkeypatch.delitem(sys.modules, "theirs")
        capsys.readouterr()
        assert invoke(["predict", "out", "some.npz", "--json", *options]) == 0
        predicted = capsys.readouterr()
        assert invoke(["evaluate", "out", "--json", *options]) == 0
        measured = capsys.readouterr()
        for said in (predicted.err, measured.err):
            assert ("note: out/bundle: loaded as a graph of tensor operations: 'theirs:net'" in said) != bool(options)
        tree = json.loads(measured.out)
        assert tree["kind"] == ("eager" if options else "graph")
        answers[tree["kind"]] = (json.loads(predicted.out), tree["splits"]["test"]["metrics"], tree["cost"]["macs"])
    assert answers["eager"] == answers["graph"]


def test_regression_is_measured_in_the_targets_own_units(small_recipe, capsys):
    sections = {
        "data": {"source": "sklearn:diabetes"},
        "model": {"builder": "mlp", "args": {"width": 16}},
        "train": {"epochs": 15},
        "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5, "schedule": {"kind": "linear", "rounds": 2}},
    }
    assert invoke(["run", str(small_recipe(**sections)), "--quiet", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    (rmse,) = [row for row in record["comparison"] if row["metric"] == "rmse"]
    assert 40 < rmse["dense"] < 70
    assert invoke(["evaluate", "out", "--json"]) == 0
    (again,) = [m for m in json.loads(capsys.readouterr().out)["splits"]["test"]["metrics"] if m["name"] == "rmse"]
    assert again["value"] == pytest.approx(rmse["pruned"], rel=1e-5)


def test_data_only_runs_prune_no_parameter(small_recipe, capsys):
    sections = {"strategy": None, "examples": {"epochs": 2, "remove": [{"criterion": "el2n", "keep_fraction": 0.7}]}}
    assert invoke(["run", str(small_recipe(**sections)), "--quiet", "--json"]) == 0
    assert {s.operation for s in load_plan(Path("out")).steps} == {"remove"}


def test_help_answers_without_torch():
    absent = "assert 'torch' not in sys.modules"
    code = f"import sys, prunus; {absent}; from prunus.cli.app import invoke; invoke(['--help']); {absent}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("run", "plan", "apply", "evaluate", "report", "predict", "schema"):
        assert command in done.stdout


def test_the_schema_is_a_schema_that_the_examples_fit(capsys):
    import jsonschema

    assert invoke(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    for path in (Path(__file__).parents[2] / "examples").glob("*.yaml"):
        jsonschema.validate(parse_yaml(path.read_text(), str(path)), schema)
