"""A small table with wrong labels, a recipe about its examples, and what a command found of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prunus.core.files.example_table import read_example_table
from prunus.core.recipes.recipe_file import make_recipe
from recipe_samples import IRIS

__all__ = ["CLEAN", "recipe", "told"]

CLEAN = {"clean": {"rounds": 1}}


def recipe(output, examples, dispatch=None, **changes):
    """Return a recipe about the table, which is written into the current folder."""
    draw = np.random.default_rng(0)
    label = np.arange(240) % 3
    values = (draw.normal(size=(3, 4)) * 3)[label] + draw.normal(size=(240, 4))
    names = np.array(["iris", "rose", "tulip"])[np.where(np.arange(240) % 10 == 0, (label + 1) % 3, label)]
    if not Path("flowers.parquet").exists():
        pq.write_table(
            pa.table({**{f"c{i}": values[:, i] for i in range(4)}, "kind": names.tolist()}), "flowers.parquet"
        )
    data = {"source": "flowers.parquet", "target": "kind", "split": {"validation": 0.2}}
    tree = {**IRIS, "data": data, "train": {"epochs": 4}, "output": output, "dispatch": dispatch}
    return make_recipe({**tree, "examples": {"epochs": 4, **examples}, **changes}, "r")


def told(found):
    """Return the table that a command wrote, and its summary, but for which recipe that was."""
    table = read_example_table(found.table)
    columns = {name: [str(value) for value in column.tolist()] for name, column in table.columns.items()}
    summary = {key: value for key, value in found.summary.items() if key != "recipe"}
    return columns, str(summary)
