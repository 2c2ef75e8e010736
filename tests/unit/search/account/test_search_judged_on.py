"""All settings of a search are judged on one set of examples, whatever varies, and however often it is stopped."""

import math
import sys

import pytest
from safetensors.torch import save_file

from prunus.core.errors import DataError, OutputError
from prunus.core.recipes.recipe import Recipe
from prunus.search import run_search, trial
from prunus.search.account.judged_on import JudgedOn, read_begun
from prunus.search.run_search import search
from prunus.search.trial import Asked, run_trial

TREE = {
    "model": {"builder": "mlp", "args": {"width": 4}},
    "train": {"epochs": 1},
    "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "keep_fraction": 0.5},
    "recovery": {"method": "fine_tune", "epochs": 1},
    "seeds": [0],
}
SPACE = {"strategy.keep_fraction": {"low": 0.3, "high": 0.9}}
MODULE = """
import torch
from torch.utils.data import TensorDataset

def rows(n=200):
    x = torch.arange(8.0 * n).reshape(n, 8)
    return TensorDataset(x, torch.arange(n) % 2)
"""


@pytest.fixture
def unconfirmed(monkeypatch):
    monkeypatch.setattr(run_search, "confirm", lambda *_, **__: [])


def recipe(folder, data, space=SPACE, **more):
    asked = {"space": space, "trials": 2 if space is SPACE else 6}
    tree = {**TREE, "data": data, "output": str(folder), "search": asked, **more}
    return Recipe.model_validate(tree)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.csv"
    lines = [f"{k % 7},{k % 5},{k % 3},{k % 2}" for k in range(200)]
    path.write_text("\n".join(["p,q,r,y", *lines]))
    return path


def data_of(table):
    return {"source": str(table), "target": "y", "kinds": dict.fromkeys("pqr", "number")}


def test_a_search_whose_data_were_changed_is_not_gone_on_with(unconfirmed, tmp_path, table):
    asked = recipe(tmp_path / "out", data_of(table))
    search(asked)
    before, record = table.read_text(), (tmp_path / "out" / "search.json").read_bytes()
    table.write_text(before.replace("6,4,2,0", "6,4,2,1"))
    with pytest.raises(DataError, match=r"begun on other data \(fingerprint [0-9a-f]{12}, got [0-9a-f]{12}\)"):
        search(asked, resume=True)
    assert (tmp_path / "out" / "search.json").read_bytes() == record
    search(asked, overwrite=True)
    table.write_text(before)
    with pytest.raises(DataError, match="begun on other data"):
        search(asked, resume=True)


def test_a_search_whose_weights_were_changed_is_not_gone_on_with(unconfirmed, tmp_path, monkeypatch):
    monkeypatch.setattr(run_search, "run_trial", lambda _: {"state": "failed", "why": "not run"})
    (tmp_path / "judged_on_models.py").write_text(
        "from torch import nn\n\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = __import__("judged_on_models").build()
    weights = tmp_path / "w.safetensors"
    save_file(model.state_dict(), weights)
    given = {"builder": "judged_on_models:build", "weights": str(weights)}
    asked = recipe(tmp_path / "out", {"source": "sklearn:digits", "check_weights": False}, model=given)
    with pytest.raises(Exception, match="no trial ended"):
        search(asked)
    save_file({name: value + 1 for name, value in model.state_dict().items()}, weights)
    with pytest.raises(OutputError, match=r"begun with other weights in .*w\.safetensors \(SHA-256 [0-9a-f]{12}, got"):
        search(asked, resume=True)
    del sys.modules["judged_on_models"]


def test_what_is_kept_of_the_beginning_is_told_where_it_is_damaged(unconfirmed, tmp_path, table):
    asked = recipe(tmp_path / "out", data_of(table))
    search(asked)
    kept = tmp_path / "out" / ".begun.json"
    for text in ("{", "[]", '{"data": "a"}', kept.read_text().replace('"data": "', '"data": "0')):
        kept.write_text(text)
        with pytest.raises(OutputError, match=r"\.begun\.json is damaged or was changed"):
            search(asked, resume=True)
    kept.unlink()  # a search of an older prunus
    search(asked, resume=True)
    assert read_begun(kept) is not None


def test_settings_that_change_what_they_are_judged_on_fail_alone(unconfirmed, tmp_path, monkeypatch):
    (tmp_path / "judged_on_rows.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    data = {"source": "judged_on_rows:rows", "args": {"n": 200}}
    found = search(recipe(tmp_path / "out", data, {"data.args.n": [200, 150]}))
    of = {row["values"]["data.args.n"]: row for row in found.facts["trials"]}
    assert of[200]["state"] == "done"
    assert of[150]["state"] == "failed"
    assert "these settings change which validation or test examples there are" in of[150]["why"]
    del sys.modules["judged_on_rows"]


def test_a_worker_that_reads_other_data_says_so_and_keeps_nothing(tmp_path, table):
    tree = recipe(tmp_path / "out", data_of(table)).model_dump(mode="json")
    asked = Asked(
        0, tree, str(tmp_path / "trial"), str(tmp_path / "shared"), "accuracy", ("macs",), on=JudgedOn("0" * 64, "")
    )
    with pytest.raises(DataError, match=r"search was begun on \(fingerprint 000000000000, got"):
        run_trial(asked)
    assert trial.read_result(tmp_path / "trial", "accuracy") is None


def test_a_metric_that_is_no_number_fails_its_trial_with_its_name(tmp_path, monkeypatch, table):
    monkeypatch.setattr(trial, "value_of", lambda *_: math.nan)
    tree = recipe(tmp_path / "out", data_of(table)).model_dump(mode="json")
    found = run_trial(Asked(0, tree, str(tmp_path / "trial"), str(tmp_path / "shared"), "accuracy", ("macs",)))
    assert found["state"] == "failed"
    assert found["why"].startswith("accuracy is no number of these settings (quality: nan)")
