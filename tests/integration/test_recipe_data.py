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

from prunus.core.errors import DataError, UnknownNameError
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run

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
def pairs(): return Flipped(flips=True)
"""


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
        "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "runtime": "torch", "batch_size": 4}},
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


def test_a_bundle_of_such_a_run_is_a_model_again() -> None:
    from prunus import load_bundle

    record_of("several", "two")
    ids, x = torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 4)
    assert load_bundle(Path("several") / "bundle").predict({"ids": ids, "x": x}).shape == (3, 3)
