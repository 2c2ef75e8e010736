"""A whole run on rows from disk ends with the bytes of the same run on rows in memory."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.flow.main_job import run

N = 600


@pytest.fixture
def rows(tmp_path):
    random = np.random.default_rng(0)
    x = random.standard_normal((N, 5))
    word = random.integers(0, 3, N)
    label = np.array(["no", "yes", "perhaps"])[(x[:, 0] + word + random.random(N) > 1.4).astype(int) + (x[:, 1] > 1)]
    table = {f"x{k}": np.where(random.random(N) < 0.05, np.nan, x[:, k]) for k in range(5)}
    table |= {"word": [["red", "green", "blue"][k] for k in word], "label": label}
    for part, chosen in enumerate(np.array_split(np.arange(N), 3)):
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table(table).take(chosen), tmp_path / "data" / f"{part}.parquet")
    return tmp_path / "data"


def recipe(rows, folder, *, in_memory):
    return Recipe.model_validate(
        {
            "name": "t",
            "data": {"source": str(rows), "in_memory": in_memory, "cache": str(folder / "cache"), "label_noise": 0.05},
            "model": {"builder": "mlp", "args": {"width": 16, "depth": 2}},
            "train": {"epochs": 2, "batch_size": 32},
            "examples": {"epochs": 2, "duplicates": {}, "remove": [{"criterion": "el2n", "keep_fraction": 0.8}]},
            "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
            "recovery": {"method": "fine_tune", "epochs": 1, "batch_size": 32},
            "evaluation": {"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5}},
            "runtime": {"device": "cpu", "threads": 1},
            "output": str(folder / f"run-{in_memory}"),
        }
    )


def test_the_bundle_the_plan_and_the_numbers_are_the_same(rows, tmp_path):
    records = {where: run(recipe(rows, tmp_path, in_memory=where)) for where in (True, False)}
    folders = {where: tmp_path / f"run-{where}" for where in records}
    weights = [(folder / "bundle" / "model.safetensors").read_bytes() for folder in folders.values()]
    assert weights[0] == weights[1]
    plans = [json.loads((folder / "plan" / "plan.json").read_text()) for folder in folders.values()]
    assert plans[0]["steps"] == plans[1]["steps"]
    assert plans[0]["fingerprints"]["data"] == plans[1]["fingerprints"]["data"]
    memory, disk = (records[where].model_dump(mode="json") for where in (True, False))
    for part in (
        "quality",
        "gaps",
        "comparison",
        "class_changes",
        "harm",
        "suspects",
        "precision",
        "pairs",
        "map",
        "classes",
    ):
        assert disk[part] == memory[part], part
    said = [note for note in disk["notes"] if note not in memory["notes"]]
    assert len(said) == 1
    assert said[0].startswith(
        f"{N} rows are read from disk (data.in_memory: false), where they lie converted in {tmp_path}"
    )
