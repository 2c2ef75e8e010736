"""Another package offers criteria, metrics and readers as entry points; its code runs only where the user names one."""

import sys
from pathlib import Path

import pytest
import torch

from prunus import ModelOptimizer
from prunus.core.code.registry import offered
from prunus.core.errors import DataError, PlanError, RecipeError, UnknownNameError
from prunus.core.recipes.recipe import Data
from prunus.core.recipes.recipe_file import make_recipe
from prunus.core.types import Plan
from prunus.data import open_inputs, open_source
from prunus.data.sources.formats import readers
from prunus.pipeline import recipe_of_plan
from prunus.score import criteria
from prunus.search import run_search
from prunus.tasks import metrics

CODE = """
import torch
from prunus.tasks import metric
from prunus.score import criterion
from prunus.data.sources.formats import add_reader
from prunus.data.sources.arrays import array_source


@criterion("acme_norm", needs=("weight",))
def acme_norm(weight):
    "Return the sum of cubes."
    return weight.reshape(len(weight), -1).abs().pow(3).sum(dim=1)


@metric("acme_errors", task="classification", higher_is_better=False, label="errors", unit="share")
def acme_errors(tally):
    "Return the share of wrong answers."
    return 1 - tally.right.sum(axis=1) / tally.support.sum(axis=1)


def read(path):
    return torch.tensor([[float(word) for word in line.split()] for line in path.read_text().splitlines()])


def open_acme(path, config):
    rows = read(path)
    return array_source(rows[:, :-1], rows[:, -1].long().numpy(), config)


add_reader(".acme", holds="numbers between spaces, the class last", open=open_acme)
"""

ENTRY_POINTS = """
[prunus.criteria]
acme_norm = acme_pruning:acme_norm
acme_forgotten = acme_pruning
acme_broken = acme_nowhere:it
magnitude_l2 = acme_nowhere:it

[prunus.metrics]
acme_errors = acme_pruning:acme_errors

[prunus.readers]
acme = acme_pruning
"""


@pytest.fixture(autouse=True)
def acme(tmp_path, monkeypatch):
    """A distribution on the import path, and registries that forget what a test adds."""
    (tmp_path / "acme_pruning.py").write_text(CODE)
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in (criteria, metrics, readers):
        monkeypatch.setattr(registry, "_items", dict(registry._items))
    offered.cache_clear()
    yield tmp_path
    offered.cache_clear()
    sys.modules.pop("acme_pruning", None)


def imported():
    return "acme_pruning" in sys.modules


def numbers(folder: Path) -> str:
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    lines = [" ".join(f"{value:.4f}" for value in row) + f" {int(row[0] > 0)}" for row in x.tolist()]
    (folder / "points.acme").write_text("\n".join(lines))
    return str(folder / "points.acme")


def test_a_criterion_a_metric_and_a_reader_of_another_package_work_where_they_are_named(acme):
    network = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    assert not imported()
    optimizer = ModelOptimizer(
        network,
        numbers(acme),
        strategy="acme_norm",
        metrics=["accuracy", "acme_errors"],
        train={"epochs": 2},
        seeds=[0],
    )
    assert optimizer.prune(keep_fraction=0.5).model_[0].out_features == 8
    quality = optimizer.evaluate()["test"]
    assert quality.value("acme_errors") == pytest.approx(1 - quality.value("accuracy"))


def test_nothing_is_imported_by_looking_around():
    assert "acme_norm" not in criteria
    assert "acme_norm" not in list(criteria)
    with pytest.raises(
        UnknownNameError, match=r"'acme_norm', which the package 'acme' offers.*import acme_pruning first"
    ):
        criteria["acme_norm"]
    assert not imported()


def test_a_plan_from_elsewhere_does_not_import_what_it_names(tmp_path):
    tree = {"data": {"source": "sklearn:iris"}, "strategy": {"criterion": "acme_norm"}}
    plan = Plan((), 0, make_recipe(tree).model_dump(mode="json"), {})
    with pytest.raises(
        PlanError, match=r"strategy\.criterion names a function to call, 'acme_norm'; what came from elsewhere"
    ):
        recipe_of_plan(plan, tmp_path / "plan")
    assert not imported()
    own = recipe_of_plan(plan, tmp_path / "plan", overrides=["strategy.criterion=acme_norm"])
    assert own.strategy.criterion == "acme_norm"
    for section, key in (("evaluation", "metrics"), ("contract", "metric")):
        named = {**tree, "strategy": {}, section: {key: ["acme_errors"] if key == "metrics" else "acme_errors"}}
        plan = Plan((), 0, make_recipe(named).model_dump(mode="json"), {})
        with pytest.raises(PlanError, match=f"{section}.{key} names a function to call, 'acme_errors'"):
            recipe_of_plan(plan, tmp_path / "plan")


def test_what_prunus_has_is_never_taken_from_elsewhere():
    assert criteria.load("magnitude_l2").summary == "the Euclidean norm of each unit's weights"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acme_forgotten", "the package 'acme' offers it .* registers no such criterion; correct it there"),
        ("acme_broken", "importing 'acme_nowhere:it' of the package 'acme' failed: ModuleNotFoundError"),
        ("acme_nrm", "unknown criterion: got 'acme_nrm'"),
    ],
)
def test_a_package_that_does_not_hold_what_it_offers_is_named(name, said):
    with pytest.raises(RecipeError, match=said) as refused:
        criteria.load(name)
    assert "\n" not in str(refused.value)


def test_an_ending_of_another_package_is_a_file_and_no_function(acme):
    assert not Data(source="a:b.acme").is_function
    assert open_source(Data(source=numbers(acme))).input_shape == (4,)
    with pytest.raises(DataError, match=r"\.acme takes no data\.args, got sep"):
        open_source(Data(source=numbers(acme), args={"sep": ","}))
    with pytest.raises(DataError, match="expected a file that ends in"):
        open_inputs(numbers(acme), input_shape=(4,), feature_names=())


def test_a_search_varies_a_criterion_and_judges_by_a_metric_of_another_package(acme, monkeypatch):
    monkeypatch.setattr(run_search, "confirm", lambda *_, **__: [])
    asked = {"space": {"strategy.criterion": ["acme_norm", "magnitude_l2"]}, "metric": "acme_errors", "trials": 3}
    tree = {
        "data": {"source": numbers(acme)},
        "model": {"builder": "mlp", "args": {"width": 4}},
        "train": {"epochs": 1},
        "strategy": {"criterion": "magnitude_l2", "granularity": "channel", "keep_fraction": 0.5},
        "seeds": [0],
        "output": str(acme / "out"),
        "search": asked,
    }
    facts = run_search.search(make_recipe(tree, "a recipe")).facts
    assert facts["metric"] == "acme_errors"
    assert facts["n"]["done"] == 3
