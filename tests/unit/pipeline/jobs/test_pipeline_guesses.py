"""Is what was done ahead of a search what the search does, and is it taken over only where it goes that way?"""

import numpy as np
import pytest

from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run
from prunus.pipeline.jobs.workspace import Workspace
from prunus.ship import bundle_sha256
from recipe_samples import IRIS
from workers_here import workers_here


def searched(folder, data, **dispatch):
    contract = {"max_drop": 0.03, "max_candidates": 6}
    recipe = {
        **IRIS,
        "data": {"source": str(data), "split": {"validation": 0.5, "calibration": 0.15, "test": 0.1}},
        "model": {"builder": "mlp", "args": {"width": 12}},
        "train": {"epochs": 6, "batch_size": 32},
        "strategy": {"criterion": "taylor"},
        "contract": contract,
        "recovery": {"epochs": 1, "batch_size": 32},
        "output": str(folder),
        "dispatch": dispatch or None,
    }
    events = []
    facts = run(make_recipe(recipe, "r"), listener=events.append).model_dump(mode="json")
    stages = set(facts.pop("timing")["seconds"])
    facts["recipe"].pop("output")
    notes = [
        (event.kind, event.stage, event.message)
        for event in events
        if event.kind in ("note", "warning") and event.stage != "dispatch"
    ]
    plan = (folder / "plan" / "units.parquet").read_bytes()
    return facts, plan, bundle_sha256(folder / "bundle"), notes, stages


def clouds(folder):
    draw = np.random.default_rng(0)
    y = np.arange(700) % 3
    path = folder / "clouds.npz"
    np.savez(path, x=(1.1 * draw.normal(size=(700, 8)) + 2.5 * np.eye(3, 8)[y]).astype("f4"), y=y)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return where the data lie, and what one process finds."""
    folder = tmp_path_factory.mktemp("alone")
    data = clouds(folder)
    return data, searched(folder / "run", data)


def test_a_search_with_workers_is_the_search_without(alone, tmp_path, monkeypatch):
    data, found = alone
    candidates = found[0]["searches"][0]["candidates"]
    follows = [
        one["number"] for one, before in zip(candidates[1:], candidates, strict=False) if not before["promising"]
    ]
    assert len(follows) >= 2
    adopted, real = [], Workspace.adopt
    monkeypatch.setattr(Workspace, "adopt", lambda work, name: adopted.append(name) or real(work, name))
    with workers_here(monkeypatch):
        assert searched(tmp_path / "three", data, workers=3) == found
    assert 2 <= len(adopted) <= len(follows)
    assert adopted[0] == f"if {follows[0] - 1} fails"


def test_processes_of_their_own_find_and_decide_the_same(alone, tmp_path, monkeypatch):
    data, found = alone
    adopted, real = [], Workspace.adopt
    monkeypatch.setattr(Workspace, "adopt", lambda work, name: adopted.append(name) or real(work, name))
    assert searched(tmp_path / "two", data, workers=2) == found
    assert adopted
