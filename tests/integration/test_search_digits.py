"""A real search on real digits: dense models are shared, bad trials stop, the frontier is confirmed, and the page shows it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from prunus import load_bundle
from prunus.cli.app import invoke
from prunus.core.errors import OutputError
from prunus.core.files.plan_file import load_plan
from prunus.core.recipes.recipe import Recipe, Search
from prunus.report import load_record
from prunus.search import confirm, search, sizes_of_search, trial, warm_starts
from prunus.search.race import Rival
from prunus.search.trial import Asked, run_trial
from prunus.ship.sizes import list_sizes

AMOUNT = "strategy.keep_fraction"
make_sizes = sys.modules["prunus.pipeline.sizes.make_sizes"]

RECIPE = """
name: digits
data: {source: "sklearn:digits", split: {validation: 0.2, calibration: 0.1, test: 0.25}}
model: {builder: mlp, args: {width: 16}}
train: {epochs: 4}
strategy: {criterion: magnitude_l2, granularity: channel, keep_fraction: 0.6}
recovery: {method: fine_tune, epochs: 2}
evaluation: {bootstrap: 100, latency: {repeats: 5, warm_up: 1}}
seeds: [0]
search:
  space:
    strategy.keep_fraction: {low: 0.3, high: 0.9}
    recovery.learning_rate: {low: 1.0e-5, high: 1.0e-2, log: true}
  contract: {metric: accuracy, max_drop: 0.1}
  trials: 10
  batch: 5
  confirm: {points: 2, seeds: 1}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "recipe.yaml").write_text(RECIPE + f"output: {folder / 'out'}\n")
    events = []
    recipe = Recipe.model_validate(yaml.safe_load((folder / "recipe.yaml").read_text()))
    return folder, search(recipe, listener=events.append), events, recipe


def test_the_frontier_is_confirmed_on_test_examples_that_chose_nothing(searched):
    _, found, _, recipe = searched
    facts = found.facts
    assert facts["n"]["done"] + facts["n"]["stopped"] == 10
    assert len(facts["confirmed"]) == 2
    for row in facts["confirmed"]:
        assert row["seeds"] == [1]
        assert row["confidence"] == pytest.approx(0.975)
        assert row["n_test"] > 400
        assert (Path(row["bundle"]) / "manifest.json").exists()
        assert row["kept"] == (row["bound"] <= 0.1)
        assert row["bound"] >= -row["difference"]["value"]
        held = [load_bundle(Path(row["folder"]) / name).model.state_dict().values() for name in ("bundle", "dense")]
        small, large = (sum(tensor.numel() * tensor.element_size() for tensor in one) for one in held)
        assert row["shares"]["bytes"] == small / large  # as in trials, and as target.bytes counts
    assert recipe.seeds == (0,)


def test_the_dense_model_is_trained_once_for_each_seed(searched):
    folder, _, _, _ = searched
    assert sorted(path.name for path in (folder / "out" / ".dense").glob("[0-9a-f]*/seed *")) == ["seed 0", "seed 1"]


def test_a_trial_that_is_done_is_read_and_never_run_again(searched, monkeypatch):
    _, found, _, recipe = searched

    def run(*_):
        raise AssertionError("it was run again")

    monkeypatch.setattr(trial, "open_job", run)
    monkeypatch.setattr(confirm, "open_job", run)
    again = search(recipe, resume=True)
    assert again.facts == found.facts


def test_what_was_seen_on_test_examples_asks_the_data_for_its_task_where_the_file_says_none(searched, monkeypatch):
    _, found, _, recipe = searched
    path = Path(found.facts["confirmed"][0]["folder"]) / "observed.npz"
    with np.load(path) as held:
        kept = {key: held[key] for key in held.files}
    assert json.loads(str(kept.pop("task")))["name"] == "classification"
    np.savez_compressed(path, **kept)
    opened, original = [], confirm.open_job
    monkeypatch.setattr(confirm, "open_job", lambda *given: opened.append(given) or original(*given))
    assert search(recipe, resume=True).facts == found.facts
    assert len(opened) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"contract": {"metric": "accuracy", "max_drop": 0.3}},
        {"objectives": ["quality", "bytes", "params"]},
        {"contract": {"metric": "f1_macro", "max_drop": 0.2}, "sampler": "random"},
        {"contract": None, "metric": "f1_macro"},
    ],
)
def test_another_target_runs_no_trial_and_no_analysis_again(searched, monkeypatch, changed):
    _, found, _, recipe = searched
    asked = Search.model_validate({**recipe.search.model_dump(mode="json"), **changed})
    monkeypatch.setattr(trial, "open_workspace", lambda *_, **__: pytest.fail("a trial was run again"))
    monkeypatch.setattr(
        warm_starts, "open_workspace", lambda *_, **__: pytest.fail("the sensitivity was measured again")
    )
    events = []
    again = search(recipe.model_copy(update={"search": asked}), resume=True, listener=events.append)
    assert [row["values"] for row in again.facts["trials"]] == [row["values"] for row in found.facts["trials"]]
    assert again.facts["study"] != found.facts["study"]
    assert any("10 settings that were tried here before" in event.message for event in events)
    if again.facts["metric"] == found.facts["metric"]:
        assert [row["quality"] for row in again.facts["trials"]] == [row["quality"] for row in found.facts["trials"]]
    else:
        assert [row["quality"] for row in again.facts["trials"]] != [row["quality"] for row in found.facts["trials"]]


def test_it_begins_where_the_sensitivity_says_that_the_contract_would_be_kept(searched):
    folder, found, events, _ = searched
    amounts = [row["values"]["strategy.keep_fraction"] for row in found.facts["trials"][:4]]
    assert amounts[0] == 0.6
    assert sorted(amounts[1:], reverse=True) == amounts[1:]
    said = next(event.message for event in events if "warm starts" in event.message)
    assert all(f"{amount:.3g}" in said for amount in amounts[1:])
    assert len(list((folder / "out" / ".dense").glob("sensitivity */drops.json"))) == 1
    # The first of them loses no more than is allowed in what it is made from: one layer at a time, added up.
    (path,) = (folder / "out" / ".dense").glob("sensitivity */drops.json")
    curves = json.loads(path.read_text())["done"]
    assert warm_starts.predicted_drop(curves, amounts[1]) <= 0.1 + 1e-9
    assert amounts[1] == 0.3 or warm_starts.predicted_drop(curves, amounts[1] - 0.01) > 0.1


def test_trials_use_a_share_of_the_training_examples_and_what_is_confirmed_all(searched, tmp_path):
    _, _, _, recipe = searched
    asked = recipe.search.model_copy(update={"share": 0.25, "trials": 2, "batch": 2, "warm_starts": 0})
    asked = asked.model_copy(update={"confirm": asked.confirm.model_copy(update={"points": 1})})
    seen = []
    original = trial.thinned

    def thinned(job, share):
        made = original(job, share)
        seen.append((len(job.data.train), len(made.data.train)))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "thinned", thinned)
        found = search(recipe.model_copy(update={"search": asked, "output": str(tmp_path / "out")}))
    assert all(part == round(0.25 * whole) for whole, part in seen)
    (row,) = found.facts["confirmed"]
    assert load_record(Path(row["folder"]) / "record.json").data.n["train"] == seen[0][0]


def test_a_trial_that_is_behind_is_stopped_and_measured_as_it_stands(searched, tmp_path):
    folder, _, _, recipe = searched
    tree = recipe.model_copy(update={"search": None, "output": str(tmp_path)}).model_dump(mode="json")
    rivals = tuple(Rival(0.0, {"recover 1 of 1, 1": 2.0}) for _ in range(4))
    asked = Asked(
        0, tree, str(tmp_path / "trial"), str(folder / "out" / ".dense"), "accuracy", ("macs",), rivals=rivals
    )
    found = run_trial(asked)
    assert found["state"] == "stopped"
    assert found["rungs"] == {"recover 1 of 1, 1": found["quality"]}
    assert 0 < found["shares"]["macs"] < 1
    assert found["drop"] == pytest.approx(found["dense_quality"] - found["quality"])
    assert run_trial(asked) == found


def test_the_page_and_the_command_say_what_was_found(searched, capsys):
    folder, found, _, _ = searched
    page = found.page.read_text()
    assert "pruned − dense" in page
    assert "<script" not in page
    assert invoke(["search", str(folder / "recipe.yaml"), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frontier"] == found.facts["frontier"]
    assert invoke(["search", str(folder / "recipe.yaml"), "--resume", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "10 trials: " in said
    assert f"page {found.page}" in said
    assert invoke(["search", str(folder / "recipe.yaml")]) == 7


def test_a_finished_search_leaves_as_nested_sizes_of_the_recommended_settings(searched, monkeypatch, capsys):
    folder, found, _, recipe = searched
    rows, out = {row["number"]: row for row in found.facts["trials"]}, folder / "out"
    best = found.facts["recommended"]
    asked = sorted((round(rows[row["number"]]["values"][AMOUNT], 3) for row in found.facts["confirmed"]), reverse=True)
    assert invoke(["search", str(folder / "recipe.yaml"), "--resume", "--sizes", "--quiet"]) == 0
    assert "2 sizes of one plan" in capsys.readouterr().out
    assert invoke(["sizes", str(out), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [row["keep_fraction"] for row in made["sizes"]] == asked == list(list_sizes(out / "sizes" / "sizes"))
    assert made["of"]["setting"] == best
    for row in made["sizes"]:
        assert row["confidence"] == pytest.approx(1 - 0.05 / 4)  # two sizes of either of two settings
        assert row["kept"] == (row["bound"] <= 0.1)
    kept = {}
    for step in load_plan(out / "sizes").of("prune"):
        for decision in step.decisions:
            units = set(decision.unit[decision.keep].tolist())
            assert units <= kept.get(decision.stratum, units)
            kept[decision.stratum] = units
    confirmed = next(row for row in found.facts["confirmed"] if row["number"] == best)
    dense = [load_bundle(place / "dense").model.state_dict() for place in (out / "sizes", Path(confirmed["folder"]))]
    assert all(torch.equal(dense[0][name], value) for name, value in dense[1].items())
    assert "One plan, many sizes" in found.page.read_text()
    assert search(recipe, resume=True).facts["sizes"] == made
    monkeypatch.setattr(make_sizes, "open_job", lambda *_: pytest.fail("the sizes were made again"))
    assert sizes_of_search(recipe).facts == made


def test_sizes_that_another_contract_judged_are_not_given_as_this_ones(searched, tmp_path):
    folder, _, _, recipe = searched
    shutil.copytree(folder / "out", tmp_path / "out")
    recipe = recipe.model_copy(update={"output": str(tmp_path / "out")})
    sizes_of_search(recipe, overwrite=True)
    tree = recipe.search.model_dump(mode="json") | {"contract": {"metric": "accuracy", "max_drop": 0.04}}
    tighter = recipe.model_copy(update={"search": Search.model_validate(tree)})
    assert search(tighter, resume=True).facts["sizes"] is None
    with pytest.raises(OutputError, match=r"judged by another contract.*prunus sizes .*out --overwrite"):
        sizes_of_search(tighter)
    made = sizes_of_search(tighter, overwrite=True).facts
    assert [row["kept"] for row in made["sizes"]] == [row["bound"] <= 0.04 for row in made["sizes"]]
    assert search(tighter, resume=True).facts["sizes"] == made


def test_sizes_of_another_setting_or_amount_are_asked_for_by_name(searched, capsys):
    folder, found, _, recipe = searched
    out = str(folder / "out")
    sizes_of_search(recipe)
    other = next(row["number"] for row in found.facts["trials"] if row["number"] != found.facts["recommended"])
    assert invoke(["sizes", out, "--setting", str(other)]) == 7
    assert "holds sizes of other settings" in capsys.readouterr().err
    assert invoke(["sizes", out, "--setting", "99"]) == 3
    assert "setting 99 is no finished trial of this search" in capsys.readouterr().err
    assert invoke(["sizes", out, "--overwrite", "-o", "sizes.keep_fractions=[0.9, 0.5, 0.4]", "--json"]) == 0
    assert [row["keep_fraction"] for row in json.loads(capsys.readouterr().out)["sizes"]] == [0.9, 0.5, 0.4]
    assert invoke(["sizes", str(folder), "--setting", "1"]) == 2


def test_a_folder_from_elsewhere_reaches_nothing_of_the_user(searched, tmp_path, capsys):
    folder, _, _, _ = searched
    shutil.copytree(folder / "out", tmp_path / "out")
    path = tmp_path / "out" / "recipe.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["model"]["builder"] = "strangers_search:build"
    path.write_text(yaml.safe_dump(tree))
    assert invoke(["sizes", str(tmp_path / "out")]) == 6
    assert "or trust the folder (--trust-code)" in capsys.readouterr().err
    path.unlink()
    (tmp_path / "out" / "search.json").unlink()
    assert invoke(["sizes", str(tmp_path / "out")]) == 2


def _one_choice(tree, facts):
    """Return a recipe whose own values are harmless, and which lets a trial call anything."""
    tree["search"]["space"]["model.builder"] = ["mlp", "strangers_search:build"]
    _only_in_the_trials(tree, facts)


def _only_in_the_trials(tree, facts):
    for row in facts["trials"]:
        row["values"]["model.builder"] = "strangers_search:build"


def _beyond_the_space(tree, facts):
    facts["trials"][0]["values"] = {AMOUNT: 1e9}


def _as_the_metric(tree, facts):
    facts["metric"] = "strangers_search:metric"


def _in_the_page(tree, facts):
    facts["trials"][1]["number"] = facts["frontier"][0] = "<img src=x onerror=alert(1)>"


def _without_costs(tree, facts):
    facts["confirmed"] = [{"number": row["number"]} for row in facts["confirmed"]]


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (_one_choice, 6, "model.builder names a function to call, 'strangers_search:build'"),
        (_only_in_the_trials, 7, "trial 0: expected values of the keys in search.space, got {"),
        (
            _beyond_the_space,
            7,
            "expected values of the keys in search.space, got {'strategy.keep_fraction': 1000000000.0",
        ),
        (_as_the_metric, 7, "metric: expected one that there is, got 'strangers_search:metric'"),
        (_in_the_page, 7, "trials: expected trial 1 and its state"),
        (_without_costs, 7, "its page can't be made (KeyError"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_search_from_elsewhere_says_of_its_trials_calls_nothing(
    searched, tmp_path, monkeypatch, capsys, change, code, said
):
    folder, _, _, _ = searched
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strangers_search.py").write_text("raise SystemExit('code of a stranger ran')\n")
    tree = yaml.safe_load((folder / "out" / "recipe.yaml").read_text())
    facts = json.loads((folder / "out" / "search.json").read_text())
    change(tree, facts)
    (out / "recipe.yaml").write_text(yaml.safe_dump(tree))
    (out / "search.json").write_text(json.dumps(facts))
    monkeypatch.setattr(make_sizes, "open_job", lambda *_: pytest.fail("it is begun"))
    assert invoke(["sizes", str(out)]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert "strangers_search" not in sys.modules


def test_a_link_in_a_search_from_elsewhere_is_not_followed(searched, tmp_path, capsys):
    folder, _, _, _ = searched
    (tmp_path / "mine").mkdir()
    (tmp_path / "out").mkdir()
    for name in ("recipe.yaml", "search.json"):
        shutil.copy(folder / "out" / name, tmp_path / "out" / name)
    (tmp_path / "out" / "sizes").symlink_to(tmp_path / "mine")
    assert invoke(["sizes", str(tmp_path / "out")]) == 7
    assert "sizes is a link, expected a folder of this search: remove it" in capsys.readouterr().err
    assert not list((tmp_path / "mine").iterdir())
