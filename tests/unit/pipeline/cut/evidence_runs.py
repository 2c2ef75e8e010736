"""Runs whose calibration sets fall into four pieces, and what they leave."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run
from prunus.ship import bundle_sha256
from recipe_samples import IRIS

N = 7400
CALIBRATION = 3700


def write_flowers(path):
    draw = np.random.default_rng(0)
    label = np.arange(N) % 3
    values = (draw.normal(size=(3, 4)) * 2)[label] + draw.normal(size=(N, 4))
    names = np.array(["iris", "rose", "tulip"])[label]
    pq.write_table(pa.table({**{f"c{i}": values[:, i] for i in range(4)}, "kind": names.tolist()}), path)


def left_by(folder, strategy, **options):
    """Return what a run leaves but for its times, and the stages whose parts were done by workers."""
    flowers = folder.parent / "flowers.parquet"
    if not flowers.exists():
        write_flowers(flowers)
    recipe = {
        **IRIS,
        "data": {"source": str(flowers), "target": "kind", "split": {"calibration": CALIBRATION / N}},
        "model": {"builder": "mlp", "args": {"width": 6, "depth": 2}},
        "strategy": {"keep_fraction": 0.5, **strategy},
        "recovery": {"epochs": 1},
    }
    events = []
    record = run(make_recipe({**recipe, "output": str(folder), **options}, "r"), listener=events.append)
    facts = record.model_dump(mode="json")
    assert facts["timing"].pop("seconds")
    facts.pop("timing")
    facts["recipe"].pop("output")
    plan = {path.name: path.read_bytes() for path in (folder / "plan").iterdir()}
    told = json.loads(plan.pop("plan.json"))
    assert told.pop("recipe")["output"] == str(folder)
    told.pop("sha256")  # which counts the output, too
    stages = {event.stage for event in events if event.kind == "progress" and event.total > 1}
    return (facts, plan, told, bundle_sha256(folder / "bundle")), stages
