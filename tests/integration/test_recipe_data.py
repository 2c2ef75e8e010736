"""A function that a recipe names may return whatever ModelOptimizer takes."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from prunus.core.errors import BundleError, DataError, PlanError, RecipeError, UnknownNameError
from prunus.core.recipes.recipe import Data
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import evaluate_bundle, run

CODE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from drawn_stand_ins import Made, Rows, Stream, Two, small_net, two_inputs

SEEN = []

class Flipped(Made):
    def __getitem__(self, row):
        image, label = super().__getitem__(row)
        if row == 0:  # a training example
            SEEN.append(image[0, 0, 0].item())
        return image, label

def net(input_shape=None, n_outputs=3): return small_net()
def sized(input_shape, n_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * 36, 16), nn.ReLU(), nn.Linear(16, n_outputs))
def two(): return Two()

def loader(): return DataLoader(Made(), batch_size=8)
def listed(): return DataLoader(Made(targets=[row % 3 for row in range(120)]))
def parts(): return {"train": Made(), "test": Made(40), "calibration": Stream()}
def several():
    ids, x, y = two_inputs()
    return {"ids": ids, "x": x, "label": y}
def rows():
    ids, x, y = two_inputs()
    return Rows(ids=ids, x=x, label=y)
def alone(): return torch.stack([Made()[row][0] for row in range(120)])
def masks():
    images = alone()
    return images, (images.mean(dim=1) > 0).long()
def painter():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
def stream(): return Stream()
def words():
    ids, _, y = two_inputs()
    return [(ids[row], int(y[row])) for row in range(len(y))]
def reader(): return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 3))
def amounts(): return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3))

def spread(outputs, targets): return (outputs.argmax(1) == targets).float().mean()
spread.higher_is_better = True
def unsaid(outputs, targets): return 0.0
def margin(outputs, batch): return nn.functional.multi_margin_loss(outputs, batch.targets)

from prunus.tasks import Classification, metric, metrics, own_task

def half(outputs, targets): return (outputs.argmax(1) == targets).float().mean() / 2
own = own_task(Classification(("a", "b", "c")), metric={"half": half}, higher_is_better=True)

class Mine(Classification):
    name = "mine"

if "twice" not in metrics:
    @metric("twice", task="mine", higher_is_better=True, default=0)
    def twice(totals):
        return 2 * totals.right.sum(axis=1) / totals.support.sum(axis=1)

def pairs(): return Flipped(flips=True)
"""


QUICK = {"repeats": 5, "warm_up": 1, "runtime": "torch", "batch_size": 4}


@pytest.fixture(autouse=True)
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(textwrap.dedent(CODE), encoding="utf-8")
    yield
    sys.modules.pop("mine", None)


def record_of(source: str, builder: str, **more: Any) -> Any:
    tree = {
        "data": {"source": f"mine:{source}", "check_weights": False, **more.pop("data", {})},
        "model": {"builder": f"mine:{builder}", **more.pop("model", {})},
        "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.5},
        "train": {"epochs": 2},
        "recovery": {"epochs": 1},
        "evaluation": {"bootstrap": 100, "latency": QUICK},
        "seeds": [0],
        "output": source,
        **more,
    }
    return run(make_recipe(tree, "test"))


@pytest.mark.parametrize(
    ("source", "builder"),
    [("loader", "net"), ("listed", "sized"), ("parts", "net"), ("several", "two"), ("rows", "two"), ("pairs", "sized")],
)
def test_a_run_takes_it_and_ships_what_answers_alike(source: str, builder: str) -> None:
    record = record_of(source, builder)
    assert record.data.task == "classification"
    assert record.data.test_set == ("your own" if source == "parts" else record.data.test_set)
    assert record.cost["pruned"].parameters < record.cost["dense"].parameters
    assert (Path(source) / "bundle" / "manifest.json").is_file()
    assert (Path(source) / "report.html").is_file()


def test_a_recipe_names_any_task() -> None:
    record = record_of("masks", "painter", data={"task": "segmentation"})
    assert record.data.task == "segmentation"
    assert [row.metric for row in record.comparison] == ["miou", "dice", "pixel_accuracy"]
    assert (Path("masks") / "bundle" / "manifest.json").is_file()


def test_a_task_that_is_not_there_or_reads_no_files_is_refused_in_one_line() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown task: got 'segmentatoin'.*segmentation"):
        record_of("masks", "painter", data={"task": "segmentatoin"})
    Path("t.csv").write_text("a,target\n" + "".join(f"{n},{n % 2}\n" for n in range(40)))
    with pytest.raises(
        DataError, match=r"classes or numbers are read here, got data.task multilabel: give a function"
    ) as caught:
        record_of("masks", "mlp", data={"source": "t.csv", "task": "multilabel"}, model={"builder": "mlp"})
    assert "\n" not in str(caught.value)


def test_given_weights_and_inputs_alone_are_compared_with_the_dense_model() -> None:
    from drawn_stand_ins import small_net

    save_file(small_net().state_dict(), "weights.safetensors")
    record = record_of("alone", "net", model={"weights": "weights.safetensors"})
    assert record.data.task == "agreement"
    assert record.comparison[0].metric == "agreement"
    measured = evaluate_bundle(Path("alone"), trust_code=True)["splits"]
    (told,) = (row for row in record.quality if (row.split, row.model) == ("test", "pruned"))
    (again,) = (row for row in measured["test"]["metrics"] if row["name"] == "agreement")
    assert again["value"] == next(row.value for row in told.metrics if row.name == "agreement")


def test_an_augmentation_is_drawn_anew_in_each_epoch_and_a_run_repeats_itself() -> None:
    record = record_of("pairs", "sized", train={"epochs": 12})
    seen = sys.modules["mine"].SEEN
    assert len(set(seen)) == 2, "both reflections must come up in twelve epochs"
    again = record_of("pairs", "sized", train={"epochs": 12}, output="again")
    assert [q.metrics[0].value for q in record.quality] == [q.metrics[0].value for q in again.quality]
    assert record.fingerprints["data"] == again.fingerprints["data"]


def test_a_stream_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match="got Stream") as caught:
        record_of("stream", "net")
    assert "\n" not in str(caught.value)


def test_data_alone_and_a_model_that_is_not_trained_are_refused() -> None:
    with pytest.raises(DataError, match="so it has to be trained"):
        record_of("alone", "net")


@pytest.mark.parametrize(("builder", "looked_up"), [("reader", True), ("amounts", False)])
def test_whole_numbers_of_pairs_are_ids_where_the_model_looks_them_up(builder: str, looked_up: bool) -> None:
    record = record_of("words", builder)
    assert any("aren't scaled" in note for note in record.notes) is looked_up


def test_a_bundle_of_such_a_run_is_a_model_again() -> None:
    from prunus import load_bundle

    record_of("several", "two")
    ids, x = torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 4)
    assert load_bundle(Path("several") / "bundle").predict({"ids": ids, "x": x}).shape == (3, 3)


@pytest.mark.parametrize(("task", "metric"), [("mine:own", "half"), ("mine:Mine", "twice")])
def test_a_recipe_names_a_task_of_ones_own(task: str, metric: str) -> None:
    record = record_of("loader", "net", data={"task": task})
    assert record.comparison[0].metric == metric
    again = evaluate_bundle(Path("loader"), data=Data(source="mine:loader", task=task))
    shown = {row["name"]: row["value"] for row in again["splits"]["test"]["metrics"]}
    measured = {q.split: q.metrics[0].value for q in record.quality if q.model == "pruned"}
    assert shown[metric] == pytest.approx(measured["test"])


def test_a_bundle_of_such_a_task_is_measured_with_a_permission_alone() -> None:
    record_of("loader", "net", data={"task": "mine:Mine"})
    with pytest.raises(PlanError, match=r"facts\.data\.source names a function to call"):
        evaluate_bundle(Path("loader"))
    with pytest.raises(BundleError, match="this bundle's task is mine:Mine, Python code that no bundle holds"):
        evaluate_bundle(Path("loader"), source="mine:loader")
    found = evaluate_bundle(Path("loader"), trust_code=True)
    assert [row["name"] for row in found["splits"]["test"]["metrics"]] == ["twice"]


def test_a_recipe_names_metrics_and_a_loss_of_ones_own() -> None:
    record = record_of(
        "loader",
        "net",
        train={"epochs": 2, "loss": "mine:margin"},
        evaluation={"bootstrap": 100, "metrics": ["mine:spread"], "latency": QUICK},
    )
    (row,) = record.comparison
    assert row.metric == "mine:spread"
    assert 0 <= row.dense <= 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data": {"task": "nowhere:Task"}}, "'nowhere:Task': there is no module 'nowhere'"),
        ({"data": {"task": "mine:margin"}}, "task must be one of .*, or module:object of one: got 'mine:margin'"),
        ({"data": {"task": "mine:Nothing"}}, "mine.*Nothing"),
        ({"evaluation": {"metrics": ["mine:unsaid"]}}, "metric mine:unsaid: is higher better"),
        ({"evaluation": {"metrics": ["mine:spread", "accuracy"]}}, "'mine:spread' beside 'accuracy'"),
        ({"evaluation": {"metrics": ["mine:nothing"]}}, "mine.*nothing"),
        (
            {"data": {"source": "sklearn:digits", "task": "mine:own"}, "model": {"builder": "mlp"}},
            "data.task: mine:own needs data as they are: expected a function as data.source",
        ),
        (
            {
                "data": {"source": "sklearn:digits"},
                "model": {"builder": "mlp"},
                "evaluation": {"metrics": ["mine:spread"]},
            },
            "evaluation.metrics: mine:spread needs data as they are",
        ),
    ],
)
def test_what_isnt_there_or_doesnt_fit_is_one_line(more: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        record_of("loader", "net", **more)
    assert "\n" not in str(caught.value)
