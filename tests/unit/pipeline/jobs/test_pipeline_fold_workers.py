"""Do workers that train folds say what one process says, to the bit, and does a run that was stopped train none of them twice?"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunus.core.files.example_table import read_example_table
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import clean_examples
from recipe_samples import IRIS


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe(output, **dispatch):
    draw = np.random.default_rng(0)
    label = np.arange(240) % 3
    values = (draw.normal(size=(3, 4)) * 3)[label] + draw.normal(size=(240, 4))
    names = np.array(["iris", "rose", "tulip"])[np.where(np.arange(240) % 20 == 0, (label + 1) % 3, label)]
    if not Path("flowers.parquet").exists():
        pq.write_table(
            pa.table({**{f"c{i}": values[:, i] for i in range(4)}, "kind": names.tolist()}), "flowers.parquet"
        )
    tree = {**IRIS, "data": {"source": "flowers.parquet", "target": "kind"}, "train": {"epochs": 4}, "output": output}
    more = {"dispatch": dispatch} if dispatch else {}
    return make_recipe({**tree, "examples": {"epochs": 4, "clean": {"rounds": 1}}, **more})


def told(found):
    table = read_example_table(found.table)
    return {name: [str(value) for value in column.tolist()] for name, column in table.columns.items()}


class Stopped(Exception):
    pass


def test_the_table_is_the_same_and_what_was_trained_before_a_stop_stays(tmp_path):
    alone = told(clean_examples(recipe("alone")))
    events = []

    def stops(event):
        events.append(event)
        if event.kind == "progress" and event.stage.endswith("/ folds") and event.done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        clean_examples(recipe("shared", backend="local", workers=2), listener=stops)
    held = {path: path.read_bytes() for path in Path("shared").rglob("*answers.safetensors")}
    assert len(held) == 2
    events.clear()
    found = clean_examples(recipe("shared", backend="local", workers=2), resume=True, listener=events.append)
    assert [event.done for event in events if event.kind == "progress" and event.stage.endswith("/ folds")] == [3]
    assert told(found) == alone
