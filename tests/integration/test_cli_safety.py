"""A run keeps both models, and how safe the smaller one is can be asked of its folder, of a pair, and by a contract."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from prunus.cli.app import invoke
from prunus.pipeline.jobs.parts import Crew
from prunus.pipeline.safety import Asked, evaluate_safety
from prunus.scale.dispatch import Dispatch

sys.path.insert(0, str(Path(__file__).parents[1]))
from workers_here import workers_here

FULL = {"train": {"epochs": 10}, "recovery": {"method": "fine_tune", "epochs": 2}}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return the folder of a run on digits."""
    folder = tmp_path_factory.mktemp("safety")
    recipe = {
        "name": "small",
        "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.2, "test": 0.3}},
        "model": {"builder": "cnn", "args": {"width": 8}},
        "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
        "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8, "runtime": "torch"}},
        "seeds": [0],
        "output": str(folder / "out"),
        **FULL,
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert invoke(["run", str(folder / "r.yaml"), "--quiet"]) == 0
    return folder / "out"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def asked(capsys, *arguments):
    code = invoke(["evaluate", *map(str, arguments), "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return json.loads(said.out)["safety"]


def test_a_run_tells_whom_the_smaller_model_harms_and_its_page_shows_the_examples(ran):
    record = json.loads((ran / "record.json").read_text())
    harm = record["harm"]
    assert len(harm["classes"]["changes"]) == 10
    test = next(row for row in record["quality"] if (row["model"], row["split"]) == ("pruned", "test"))
    for row, score in zip(harm["classes"]["changes"], test["per_class"], strict=True):
        assert row["n"] == score["support"]
        assert row["pruned"] == pytest.approx(score["recall"]["value"])
    flips = harm["flips"]
    confusion = next(row["confusion"] for row in record["quality"] if (row["model"], row["split"]) == ("dense", "test"))
    n_right = {"dense": sum(confusion[i][i] for i in range(10))}
    n_right["pruned"] = sum(test["confusion"][i][i] for i in range(10))
    gained, lost = flips["n_by_kind"]["wrong to right"], flips["n_by_kind"]["right to wrong"]
    assert n_right["pruned"] - n_right["dense"] == gained - lost
    assert set(harm["calibration"]["temperatures"]) == {"dense", "pruned"}
    page = (ran / "report.html").read_text()
    assert "Whom it harms" in page
    assert page.count("data:image/png") >= len(flips["shown"])


def test_the_folder_of_a_run_and_the_pair_in_it_say_the_same(ran, capsys):
    one = asked(capsys, ran, "--harm")
    other = asked(capsys, ran / "bundle", "--dense", ran / "dense", "--harm")
    assert one == other
    recorded = json.loads((ran / "record.json").read_text())["harm"]
    assert [row["n_lost"] for row in one["harm"]["classes"]["changes"]] == [
        row["n_lost"] for row in recorded["classes"]["changes"]
    ]


def test_a_model_beside_itself_harms_nobody(ran, capsys):
    found = asked(capsys, ran / "bundle", "--dense", ran / "bundle", "--harm")["harm"]
    assert all(row["n_lost"] == row["n_gained"] == 0 for row in found["classes"]["changes"])
    assert sum(found["flips"]["n_by_kind"].values()) == 0
    assert all(row["difference"]["value"] == 0 for row in found["calibration"]["rows"])


def test_text_says_what_json_says(ran, capsys):
    assert invoke(["evaluate", str(ran), "--harm"]) == 0
    said = capsys.readouterr().out
    assert "Change by class, 539 test examples" in said
    assert "decisions that flip" in said
    assert "temperatures: dense" in said


def test_harm_needs_a_dense_model(ran, tmp_path, capsys):
    import shutil

    shutil.copytree(ran / "bundle", tmp_path / "alone")
    assert invoke(["evaluate", str(tmp_path / "alone"), "--harm"]) == 3
    assert "--dense" in capsys.readouterr().err.splitlines()[-1]


def test_two_bundles_of_other_classes_arent_compared(ran, tmp_path, small_recipe, capsys):
    other = small_recipe(
        "o.yaml", data={"source": "sklearn:wine"}, model={"builder": "mlp"}, output=str(tmp_path / "o")
    )
    assert invoke(["run", str(other), "--quiet"]) == 0
    capsys.readouterr()
    assert invoke(["evaluate", str(ran), "--dense", str(tmp_path / "o"), "--harm"]) == 6
    assert "can't be compared" in capsys.readouterr().err


def test_a_contract_may_speak_of_the_worst_class_and_says_when_that_cant_be_shown(small_recipe, capsys):
    contract = {"metric": "accuracy", "max_drop": 0.1, "harm": {"worst_class": 0.03}}
    path = small_recipe(contract=contract, strategy={"criterion": "magnitude_l2", "granularity": "channel"})
    assert invoke(["run", str(path), "--quiet"]) == 4
    said = capsys.readouterr().err
    assert "contract.harm" in said
    assert "at least 99" in said


def test_a_contract_about_every_class_is_kept_by_what_is_delivered(small_recipe, capsys):
    contract = {"metric": "accuracy", "max_drop": 0.2, "harm": {"worst_class": 0.3}, "max_candidates": 3}
    sections = {
        "data": {"source": "sklearn:digits", "split": {"validation": 0.3, "calibration": 0.2, "test": 0.2}},
        "strategy": {"criterion": "magnitude_l2", "granularity": "channel"},
        "recovery": {"method": "fine_tune", "epochs": 6},
        "train": {"epochs": 12},
    }
    assert invoke(["run", str(small_recipe(contract=contract, **sections)), "--quiet"]) == 0
    record = json.loads(Path("out", "record.json").read_text())
    (search,) = record["searches"]
    assert search["contract"]["harm"] == {"worst_class": 0.3, "worst_group": None, "small": "refuse"}
    tested = [row for row in search["candidates"] if row["test"]]
    assert tested
    for row in tested:
        worst = row["test"]["worst"]
        assert len(worst["classes"]) == 10
        assert worst["bound"] == max(one["bound"] for one in worst["classes"])
        assert (row["verdict"] == "kept") == row["test"]["kept"]
        assert row["test"]["kept"] == (worst["kept"] and row["test"]["bound"] <= 0.2)
    if search["delivered"]:
        assert next(row for row in tested if row["number"] == search["delivered"])["test"]["worst"]["bound"] <= 0.3
        assert "no class loses more than" in capsys.readouterr().out


def test_corruptions_and_membership_are_asked_for_without_a_value_and_stay_with_the_run(ran, capsys):
    found = asked(capsys, ran, "--robustness", "--privacy", "--budget", 150)
    worse = found["robustness"]["corruptions"]
    assert worse["n"] == 150
    assert {(row["name"], row["severity"]) for row in worse["rows"]} == {
        (name, severity) for name in worse["says"] for severity in range(6)
    }
    assert {row["measure"] for row in found["privacy"]["rows"]} == {"auc", "tpr_at_0.01"}
    page = (ran / "report.html").read_text()
    assert "What it withstands" in page
    assert "What it tells of its training" in page
    again = asked(capsys, ran, "--robustness", "--privacy", "--budget", 150)
    assert again == found, "the same seed gives the same numbers"
    assert asked(capsys, ran, "--harm")["robustness"] == found["robustness"], "what was found before stays beside"
    assert invoke(["report", str(ran)]) == 0
    assert "What it withstands" in (ran / "report.html").read_text()


def test_attacks_never_are_pgd_alone(ran, tmp_path, capsys):
    out = tmp_path / "kept"
    found = asked(
        capsys,
        ran / "bundle",
        "--robustness=attacks",
        "--reach",
        0.1,
        "--norm",
        "linf,l2",
        "--budget",
        40,
        "--out",
        out,
    )
    for one in found["robustness"]["attacks"]:
        assert len(one["attacks"]) >= 4
        for model in one["models"].values():
            assert model["under_all"]["value"] <= model["under_pgd"]["value"] <= model["accuracy"]["value"]
            assert model["steps"][-1]["standing"] == pytest.approx(40 * model["under_all"]["value"])
    assert json.loads((out / "safety.json").read_text()) == found
    assert "right under all" in (out / "safety.html").read_text()


def test_a_stopped_suite_goes_on_with_what_was_done(ran, tmp_path, capsys, monkeypatch):
    module = importlib.import_module("prunus.pipeline.safety.evaluate_safety")
    out = tmp_path / "kept"
    words = [
        "evaluate",
        str(ran),
        "--robustness=corruptions,attacks",
        "--budget",
        "40",
        "--reach",
        "0.05",
        "--out",
        str(out),
    ]

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "attack_facts", stopped)
        assert invoke(words) == 130
    assert not (out / "safety.json").exists()
    with monkeypatch.context() as patched:
        patched.setattr(module, "corruption_facts", stopped)  # kept already: it isn't asked for again
        assert invoke(words) == 0
    gone_on = json.loads((out / "safety.json").read_text())
    whole = tmp_path / "whole"
    assert invoke([*words[:-1], str(whole)]) == 0
    assert json.loads((whole / "safety.json").read_text()) == gone_on
    assert not (out / ".work").exists()


def test_two_workers_find_what_one_finds_to_the_bit(ran, tmp_path, monkeypatch):
    words = ["evaluate", str(ran), "--robustness=corruptions,attacks", "--budget", "40", "--reach", "0.05", "--quiet"]
    words += ["--harm", "--privacy=loss,lira", "--shadows", "2"]
    sent, real = [], Crew.map
    monkeypatch.setattr(Crew, "map", lambda crew, tasks: sent.extend(tasks) or real(crew, tasks))
    found = {}
    for n in ("1", "2"):
        assert invoke([*words, "--workers", n, "--out", str(tmp_path / n)]) == 0
        found[n] = json.loads((tmp_path / n / "safety.json").read_text())
        assert sorted(path.name for path in (tmp_path / n).iterdir()) == [".lock", "safety.html", "safety.json"]
    assert found["1"] == found["2"]
    assert {task.stage for task in sent} == {
        "harm", "corruptions", "attacks, linf", "membership by loss", "shadow models",
    }  # fmt: skip
    corruptions = [task.name for task in sent if task.stage == "corruptions"]
    assert corruptions[:2] == ["without any", f"{found['1']['robustness']['corruptions']['rows'][0]['name']} 1"]
    assert len(corruptions) == len(set(corruptions)) == 1 + 5 * len(found["1"]["robustness"]["corruptions"]["says"])


def test_a_worker_opens_the_run_once_for_all_its_shadow_models_and_what_it_warns_of_is_told(ran, tmp_path, monkeypatch):
    module = importlib.import_module("prunus.pipeline.safety.evaluate_safety")
    facts = importlib.import_module("prunus.pipeline.safety.privacy_facts")
    opened, hashed, judged, told = [], [], [], []
    real_open, real_content, real_fit, real_judge = module.open_job, module.content_of, facts.fit, facts.membership

    def fit(job, *arguments, seed, stage):
        job.workspace.warn(stage, f"seed {seed}")
        return real_fit(job, *arguments, seed=seed, stage=stage)

    monkeypatch.setattr(module, "open_job", lambda *given: opened.append(given) or real_open(*given))
    monkeypatch.setattr(module, "content_of", lambda one: hashed.append(one) or real_content(one))
    monkeypatch.setattr(facts, "membership", lambda *given, **more: judged.append(given) or real_judge(*given, **more))
    monkeypatch.setattr(facts, "fit", fit)
    asked = Asked(privacy=("loss", "lira"), n_shadows=4)
    with workers_here(monkeypatch) as sent:
        evaluate_safety(ran, asked, out=tmp_path / "out", dispatch=Dispatch(workers=2), listener=told.append)
    assert sum(task.stage == "shadow models" for task in sent) == 4
    assert (len(opened), len(hashed), len(judged)) == (2, 4, 2)  # by who asked, and by the worker
    assert len({event.message for event in told if event.kind == "warning"}) == 4
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_a_trigger_is_measured(ran, tmp_path, capsys):
    import numpy as np

    np.save(tmp_path / "patch.npy", np.full((3, 3), 16.0))
    found = asked(capsys, ran, "--trigger", tmp_path / "patch.npy", "--trigger-class", "3", "--out", tmp_path / "kept")
    one = found["robustness"]["trigger"]
    assert one["n"] == 539 - 55
    for model in one["models"].values():
        assert model["success"]["low"] <= model["success"]["value"] <= model["success"]["high"]


def test_shadow_models_are_trained_by_the_runs_recipe(ran, tmp_path, capsys):
    found = asked(capsys, ran, "--privacy=loss,lira", "--shadows", 2, "--out", tmp_path / "kept")["privacy"]
    assert found["n_shadows"] == 2
    assert {row["attack"] for row in found["rows"]} == {"loss", "lira"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--robustness=corruption",), 3, "did you mean 'corruptions'"),
        (("--privacy=liar",), 3, "did you mean 'lira'"),
        (("--trigger", "x.npy"), 3, "--trigger-class"),
        (("--trigger", "x.npy", "--trigger-class", "cat"), 3, "must be a class"),
        (("--trigger", "x.npy", "--trigger-class", "3"), 4, "expected a .npy file"),
        (("--robustness=attacks", "--reach", "-1"), 3, "must be positive"),
        (("--privacy", "--source", "sklearn:digits"), 3, "aren't split"),
    ],
)
def test_what_cant_be_measured_is_said_in_one_line(ran, capsys, words, code, said):
    assert invoke(["evaluate", str(ran), *words]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("error: ")


def test_a_contract_about_every_group_of_a_column_is_kept_by_what_is_delivered(small_recipe, capsys):
    rng = np.random.default_rng(0)
    rows = [(*rng.normal(size=4), ("north", "south", "east")[n % 3]) for n in range(900)]
    lines = [f"{','.join(f'{x:.4f}' for x in row[:4])},{row[4]},{'ab'[int(row[0] + row[1] > 0)]}" for row in rows]
    Path("t.csv").write_text("\n".join(["p,q,r,s,site,label", *lines]), encoding="utf-8")
    sections = {
        "data": {
            "source": "t.csv",
            "target": "label",
            "groups": "site",
            "split": {"validation": 0.4, "calibration": 0.1, "test": 0.1},
        },
        "model": {"builder": "mlp"},
        "train": {"epochs": 20},
        "strategy": {"criterion": "magnitude_l2", "granularity": "channel"},
        "target": {"params": 0.6},
    }
    contract = {"metric": "accuracy", "max_drop": 0.2, "harm": {"worst_group": 0.2}, "max_candidates": 2}
    assert invoke(["run", str(small_recipe(contract=contract, **sections)), "--quiet"]) == 0
    (search,) = json.loads(Path("out", "record.json").read_text())["searches"]
    tested = [row["test"] for row in search["candidates"] if row["test"]]
    assert tested
    for test in tested:
        worst = test["worst_group"]
        assert (worst["column"], len(worst["groups"]), test["worst"]) == ("site", 3, None)
        assert sum(one["n"] for one in worst["groups"]) == test["n"] == search["n_validation"]
        assert test["kept"] == (worst["kept"] and test["bound"] <= 0.2)
    assert search["delivered"]
    assert "no group of site loses more than" in " ".join(capsys.readouterr().out.split())
    contract["harm"] = {"worst_group": 0.01}
    refused = small_recipe("r.yaml", contract=contract, output="refused", **sections)
    assert invoke(["run", str(refused), "--quiet"]) == 4
    assert "3 of 3 groups of 'site' have too few" in capsys.readouterr().err
    del sections["data"]["groups"]
    unnamed = small_recipe("u.yaml", contract=contract, output="unnamed", **sections)
    assert invoke(["run", str(unnamed), "--quiet"]) == 3
    assert "data.groups" in capsys.readouterr().err
