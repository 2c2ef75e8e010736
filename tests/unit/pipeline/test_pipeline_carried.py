"""No field of a file that travels calls a function, reads a file or writes to a folder outside, unless the user says so."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from canary import MODULE, leaves, payloads, planted, watched
from prunus.cli.app import invoke
from prunus.core.errors import PrunusError
from prunus.core.files.plan_file import load_plan
from prunus.core.files.sealed import sealed_tree
from prunus.core.recipes.recipe import Data, Recipe
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import apply_plan, evaluate_bundle, make_plan, predict_file, recipe_of_plan, write_report
from prunus.pipeline.flow.main_job import run
from prunus.report import load_record
from prunus.scale import prune_shards
from recipe_samples import IRIS


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of iris with its plan, bundle and record."""
    folder = tmp_path_factory.mktemp("made") / "run"
    run(make_recipe({**IRIS, "output": str(folder)}))
    return folder


@pytest.fixture
def stage(finished, tmp_path, monkeypatch):
    """A copy of the run in a folder of its own, from where the canary is importable, with everything that it may touch."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    shutil.copytree(finished, home / "run")
    return home, payloads(home)


def full_manifest(folder: Path) -> dict:
    from prunus.ship.manifest import read_manifest

    return read_manifest(folder).model_dump(mode="json")


def rewrite(path: Path, tree: dict) -> None:
    """Write a file as one who wants to fool the reader would, with a hash that fits."""
    path.write_text(json.dumps(sealed_tree(tree) if "sha256" in tree else tree))


def test_no_field_of_a_manifest_reaches_outside(stage):
    home, values = stage
    bundle = home / "run" / "bundle"
    whole = full_manifest(bundle)
    (home / "run" / "record.json").unlink()  # it would tell that the bundle isn't the run's
    np.savez(home / "x.npz", inputs=np.zeros((2, 4), np.float32))
    described = {**whole, "inputs": [{"dtype": "float32", "shape": [4], "name": "x", "below": 0}]}
    fields = [(whole, at) for at in leaves(whole) if at[0] != "files" or at[1] == "model.safetensors"]
    fields += [(described, at) for at in leaves(described) if at[0] == "inputs"]
    assert {at[0] for _, at in fields} == set(whole)
    for tree, at in fields:
        for value in values if at[0] in ("facts", "model") else values[::2]:
            rewrite(bundle / "manifest.json", planted(tree, at, value))
            with watched() as touched:
                for use in (lambda: evaluate_bundle(home / "run"), lambda: predict_file(home / "run", "x.npz")):
                    try:
                        use()
                    except PrunusError as error:
                        assert "\n" not in str(error), at
            assert touched == [], f"{at} = {value!r}"


def test_no_field_of_a_plan_reaches_outside(stage):
    home, values = stage
    plan = home / "run" / "plan"
    whole = json.loads((plan / "plan.json").read_text())
    before = sorted(home.rglob("*"))
    for at in leaves(whole):
        for value in values[:4:2] if at[0] != "recipe" else values:
            rewrite(plan / "plan.json", planted(whole, at, value))
            with watched() as touched:
                try:
                    loaded = load_plan(plan)
                    apply_plan(loaded, recipe_of_plan(loaded, plan), overwrite=True)
                except PrunusError as error:
                    assert "\n" not in str(error), at
            assert touched == [], f"{at} = {value!r}"
            shutil.rmtree(home / "run-applied", ignore_errors=True)
            assert sorted(home.rglob("*")) == before, f"{at} = {value!r}"


def test_no_field_of_a_record_reaches_outside(stage):
    home, values = stage
    path = home / "run" / "record.json"
    whole = json.loads(path.read_text())
    for value in values[::2]:
        everything, accepted = whole, 0
        for at in leaves(whole):
            rewrite(path, planted(everything, at, value))
            with watched() as touched:
                try:
                    load_record(path)
                    everything, accepted = planted(everything, at, value), accepted + 1
                except PrunusError as error:
                    assert "\n" not in str(error), at
            assert touched == [], f"{at} = {value!r}"
        assert accepted > 20, "names and settings take any text"
        rewrite(path, everything)
        with watched() as touched, suppress(PrunusError):
            write_report(home / "run")
        assert touched == []


def test_no_field_of_a_shard_index_reaches_outside(stage):
    home, values = stage
    source, weight = home / "in", "model.layers.0.weight"
    source.mkdir()
    save_file({weight: torch.ones(4, 4)}, source / "model-1.safetensors")
    save_file({weight: torch.ones(4, 4)}, home / "outside" / "data.csv")
    whole = {"metadata": {"total_size": 64}, "weight_map": {weight: "model-1.safetensors"}}
    for at in leaves(whole):
        for value in values:
            rewrite(source / "model.safetensors.index.json", planted(whole, at, value))
            with watched() as touched:
                try:
                    prune_shards(source, home / "out", keep_fraction=0.5)
                except PrunusError as error:
                    assert "\n" not in str(error), at
            assert touched == [], f"{at} = {value!r}"
            shutil.rmtree(home / "out", ignore_errors=True)


def test_the_watch_sees_what_it_is_there_to_see(stage, monkeypatch):
    home, values = stage
    monkeypatch.syspath_prepend(home)
    with watched() as touched:
        Path(values[2]).read_text()
        with pytest.raises(SystemExit):
            __import__(MODULE).f()
    monkeypatch.delitem(sys.modules, MODULE)
    assert {line.split()[0] for line in touched} == {"open", "import"}


def test_a_plan_is_carried_out_beside_its_run_wherever_its_recipe_says(stage):
    home, _ = stage
    path = home / "run" / "plan" / "plan.json"
    tree = json.loads(path.read_text())
    tree["recipe"]["output"] = "../../escaped"
    rewrite(path, tree)
    assert invoke(["apply", "run/plan", "--quiet"]) == 0
    assert (home / "run-applied" / "bundle").is_dir()
    assert not (home.parent.parent / "escaped-applied").exists()


@pytest.mark.parametrize("recipe", [{}, None, 7, "os:system", {"data": 3}])
def test_a_plan_without_a_recipe_is_refused_in_one_line(stage, recipe, capsys):
    home, _ = stage
    path = home / "run" / "plan" / "plan.json"
    rewrite(path, json.loads(path.read_text()) | {"recipe": recipe})
    assert invoke(["apply", "run/plan", "--quiet"]) == 6
    assert capsys.readouterr().err.startswith("error: run/plan")


def a_table(path: Path) -> str:
    rows = "".join(f"{i % 9},{i % 7},{'xy'[i % 2]}\n" for i in range(90))
    path.write_text("a,b,label\n" + rows)
    return str(path)


def test_ones_own_plan_over_ones_own_table_is_applied_as_plan_says(stage, capsys):
    import shlex

    import yaml

    home, _ = stage
    a_table(home / "mine.csv")
    (home / "r.yaml").write_text(yaml.safe_dump({**IRIS, "data": {"source": "mine.csv"}, "output": "o"}))
    assert invoke(["plan", "r.yaml", "--quiet", "-o", "output=p", "-o", "train.epochs=2"]) == 0
    command = capsys.readouterr().out.split("`")[1]
    assert command == "prunus apply p/plan --recipe r.yaml -o train.epochs=2"
    assert invoke(["apply", "p/plan", "--quiet"]) == 6
    said = capsys.readouterr().err
    assert said.startswith("error: p/plan: data.source names a file to read, 'mine.csv'; ")
    for way in ("--recipe", "-o KEY=VALUE", "--trust-code"):
        assert way in said
    assert not (home / "p-applied").exists()
    for number, options in enumerate(([], ["--trust-code"], ["-o", "data.source=mine.csv"])):
        words = shlex.split(command)[1:] if not options else ["apply", "p/plan", *options]
        assert invoke([*words, "--quiet", "-o", f"output=a{number}"]) == 0, capsys.readouterr().err
    assert len({(home / f"a{n}" / "bundle" / "model.safetensors").read_bytes() for n in range(3)}) == 1
    assert invoke([*shlex.split(command)[1:], "--quiet"]) == 0
    assert (home / "p-applied" / "bundle").is_dir()


def test_a_bundle_is_measured_on_its_own_table_only_if_the_user_says_so(stage, capsys):
    import yaml

    home, _ = stage
    a_table(home / "mine.csv")
    (home / "r.yaml").write_text(yaml.safe_dump({**IRIS, "data": {"source": "mine.csv"}, "output": "o"}))
    assert invoke(["run", "r.yaml", "--quiet"]) == 0
    assert invoke(["evaluate", "o"]) == 6
    said = capsys.readouterr().err
    assert "facts.data.source names a file to read, 'mine.csv'" in said
    answers = []
    for options in (["--trust-code"], ["--recipe", "r.yaml"]):
        assert invoke(["evaluate", "o", "--json", *options]) == 0
        answers.append(json.loads(capsys.readouterr().out)["splits"])
    assert answers[0] == answers[1]
    assert set(answers[0]) == {"train", "test"}


def test_data_that_a_bundle_wasn_t_made_for_are_refused(stage):
    home, _ = stage
    with pytest.raises(PrunusError, match=r"needs inputs of shape \(n, 4\), got \(n, 13\)"):
        evaluate_bundle(home / "run", data=Data(source="sklearn:wine"))


def test_a_folder_of_the_name_of_a_bundled_set_is_not_read(stage):
    home, _ = stage
    (home / "sklearn:iris" / "outside").mkdir(parents=True)
    with watched() as touched:
        evaluate_bundle(home / "run")
    assert touched == []


def test_python_callers_allow_in_the_call_too(stage):
    home, _ = stage
    table = a_table(home / "mine.csv")
    recipe = make_recipe({**IRIS, "data": {"source": table}, "output": "p"})
    plan = make_plan(recipe)
    with pytest.raises(PrunusError, match=r"data\.source names a file"):
        recipe_of_plan(plan, Path("p/plan"))
    assert isinstance(recipe_of_plan(plan, Path("p/plan"), trust_code=True), Recipe)
    assert recipe_of_plan(plan, Path("p/plan"), own=recipe).data == recipe.data


def test_a_bundle_that_another_run_made_is_noticed_by_the_record(stage, tmp_path_factory, capsys):
    home, _ = stage
    assert invoke(["evaluate", "run"]) == 0
    other = tmp_path_factory.mktemp("other") / "run"
    run(make_recipe({**IRIS, "train": {"epochs": 2}, "output": str(other)}))
    shutil.rmtree(home / "run" / "bundle")
    shutil.copytree(other / "bundle", home / "run" / "bundle")
    for use in (["evaluate", "run"], ["evaluate", "run/bundle"], ["export", "run", "--to", "onnx"]):
        assert invoke(use) == 6
        assert "isn't the bundle that this run made: its record says" in capsys.readouterr().err
    shutil.move(home / "run" / "bundle", home / "alone")
    assert invoke(["evaluate", "alone"]) == 0
