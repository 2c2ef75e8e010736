import io
import json
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from prunus.core.errors import DataError, RunError
from prunus.core.recipes.recipe import Recipe
from prunus.data import open_row_set
from prunus.pipeline.planner import estimate_run, measured_run
from prunus.pipeline.planner.estimate_run import _measure, _sample, _warnings, estimate
from prunus.report import print_estimate


def recipe(path, **more):
    held = {"data": {"source": str(path)}, "model": {"builder": "mlp"}, "output": "run", "train": {"epochs": 1}, **more}
    return Recipe.model_validate({"name": "t", **held})


def stages(load, train):
    one = {"seconds": 2.0, "cpu_seconds": 1.0, "peak_bytes": 1e8}
    return {
        "start": one,
        "load data": {"seconds": 2 * load, "cpu_seconds": load, "peak_bytes": 3e8 * load},
        "seed 0 / train": {"seconds": train, "cpu_seconds": train, "peak_bytes": 1e8},
    }


def test_amounts_are_carried_on_stage_by_stage(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for part in range(3):
        table = {"x": random.random(2000), "label": random.integers(0, 2, 2000)}
        pq.write_table(pa.table(table), tmp_path / f"{part}.parquet", row_group_size=500)

    def measured(config, path, work, *, to_disk):
        n = pq.read_metadata(path).num_rows
        assert to_disk
        return {"stages": stages(1 + n / 1000, n / 500), "scratch_bytes": n, "cache_bytes": 20 * n, "output_bytes": 7}

    monkeypatch.setattr(estimate_run, "_measure", measured)
    events = []
    found = estimate(recipe(tmp_path), 10**8, sample_rows=4000, listener=events.append)
    warned = tuple(event.message for event in events if event.kind == "warning")
    assert warned == found.warnings
    assert warned[0].startswith("4000 rows are few to measure on")
    assert warned[1].startswith("100000000 rows are 25000 times the sample")
    events.clear()
    few = recipe(tmp_path, data={"source": str(tmp_path), "in_memory": False})
    estimate(few, 50_000, sample_rows=4000, listener=events.append)
    assert not [event for event in events if event.kind == "warning"]
    by_name = {stage.name: stage for stage in found.stages}
    assert found.sample_rows == (2000, 4000)
    assert by_name["load data"].cpu_seconds.value == pytest.approx(1 + 1e5)
    assert by_name["load data"].seconds.value == pytest.approx(2 * (1 + 1e5))
    assert found.cpu_seconds.value == pytest.approx(1 + 1 + 1e5 + 2e5)
    assert found.peak_bytes.value == pytest.approx(3e8 * (1 + 1e5))
    assert (found.cache_bytes, found.scratch_bytes.value, found.output_bytes.value) == pytest.approx((2e9, 1e8, 7))
    shared = estimate(recipe(tmp_path), 10**8, sample_rows=4000, workers=2, nodes=5)
    assert {s.name: s.seconds.value for s in shared.stages}["seed 0 / train"] == pytest.approx(2e5 / 10)
    assert shared.node_bytes.value == pytest.approx(2 * found.peak_bytes.value)
    assert json.loads(json.dumps(found.to_dict()))["rows"] == 10**8


def test_what_comes_before_the_data_takes_as_long_for_any_rows(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": np.arange(4000.0), "label": np.arange(4000) % 2}), tmp_path / "0.parquet")
    scatter = iter([3.0, 3.4, 3.2, 3.3, 3.1])

    def measured(config, path, work, *, to_disk):
        made = stages(1 + pq.read_metadata(path).num_rows / 1000, 1)
        made["start"]["cpu_seconds"] = next(scatter)
        return {"stages": made, "scratch_bytes": 1, "cache_bytes": 1, "output_bytes": 1}

    monkeypatch.setattr(estimate_run, "_measure", measured)
    found = estimate(recipe(tmp_path), 10**7, sample_rows=4000)
    by_name = {stage.name: stage.cpu_seconds.value for stage in found.stages}
    assert by_name["start"] == pytest.approx(3.225)
    assert found.cpu_seconds.value == pytest.approx(sum(by_name.values()))


def test_one_run_of_each_size_has_no_ranges_and_says_so_and_its_start_stays(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": np.arange(4000.0), "label": np.arange(4000) % 2}), tmp_path / "0.parquet")
    scatter = iter([3.0, 3.4, 3.2])

    def measured(config, path, work, *, to_disk):
        made = stages(1 + pq.read_metadata(path).num_rows / 1000, 1)
        made["start"]["cpu_seconds"] = next(scatter)
        return {"stages": made, "scratch_bytes": 1, "cache_bytes": 1, "output_bytes": 1}

    monkeypatch.setattr(estimate_run, "_measure", measured)
    found = estimate(recipe(tmp_path), 10**7, sample_rows=4000, repeats=1)
    assert {stage.name: stage.cpu_seconds.value for stage in found.stages}["start"] == pytest.approx(3.2)
    said = Console(file=io.StringIO(), width=200)
    print_estimate(found.to_dict(), said)
    assert "without ranges, which take more than one run of each (--repeats)" in said.file.getvalue()


def test_a_sample_comes_from_all_files_and_has_its_size(tmp_path):
    for part in range(40):
        pq.write_table(pa.table({"x": np.full(100, part)}), tmp_path / f"{part:02d}.parquet", row_group_size=50)
    every = open_row_set([tmp_path])
    for n in (400, 1000, 4000):
        path = _sample(every, n, tmp_path / "sample.out")
        found = pq.read_table(path)["x"].to_numpy()
        assert len(found) == n
        assert len(np.unique(found)) >= min(15, n // 100)


def test_what_cannot_be_sampled_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("x,label\n1,0\n")
    with pytest.raises(DataError, match="a sample is taken of files of rows"):
        estimate(recipe(tmp_path / "t.csv"), 10**6)
    pq.write_table(pa.table({"x": [1.0], "label": [0]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="at least 1000 rows to measure on, got 1"):
        estimate(recipe(tmp_path / "t.parquet"), 10**6)


def test_a_trial_run_that_fails_says_why(tmp_path, monkeypatch):
    said = "Traceback (most recent call last):\n  File x\nprunus.core.errors.DataError: only '3'\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", said))
    with pytest.raises(RunError, match=r"the trial run on t.parquet failed: prunus.core.errors.DataError: only '3'"):
        _measure(recipe("t.parquet"), tmp_path / "t.parquet", tmp_path, to_disk=False)


def test_a_trial_run_tells_of_each_stage(tmp_path):
    random = np.random.default_rng(0)
    table = {"x": random.random(300), "y": random.random(300), "label": random.integers(0, 2, 300)}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    evaluation = {"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5}}
    config = recipe(tmp_path / "t.parquet", evaluation=evaluation, output=str(tmp_path / "run"))
    (tmp_path / "recipe.json").write_text(config.model_dump_json())
    measured_run.main(str(tmp_path / "recipe.json"), str(tmp_path / "facts.json"))
    found = json.loads((tmp_path / "facts.json").read_text())["stages"]
    assert {"start", "load data", "seed 0 / train", "evaluate", "ship"} <= found.keys()
    assert all(stage["peak_bytes"] > 50e6 and stage["mapped_bytes"] > 10e6 for stage in found.values())
    assert all(stage["seconds"] >= 0 and stage["cpu_seconds"] >= 0 for stage in found.values())


@pytest.mark.parametrize(
    ("rows", "most", "said"),
    [
        (10**6, 60_000, ["60000 rows are few to measure on"]),
        (99_999, 60_000, []),
        (10**7, 200_000, []),
        (10**7 + 1, 200_000, ["10000001 rows are 50 times the sample"]),
    ],
)
def test_what_speaks_against_an_estimate_is_said(rows, most, said):
    found = _warnings(rows, most)
    assert [one.startswith(begin) for one, begin in zip(found, said, strict=True)] == [True] * len(said)


def test_rows_that_do_not_fit_into_half_of_the_memory_are_warned_of(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": np.arange(3000.0), "label": np.arange(3000) % 2}), tmp_path / "t.parquet")

    def measured(config, path, work, *, to_disk):
        n = pq.read_metadata(path).num_rows
        return {"stages": stages(1.0, 1.0), "scratch_bytes": 0, "cache_bytes": 10**9 * n, "output_bytes": 0}

    monkeypatch.setattr(estimate_run, "_measure", measured)
    config = recipe("", data={"source": str(tmp_path / "t.parquet"), "in_memory": False})
    events = []
    (warned,) = estimate(config, 3000, sample_rows=2000, listener=events.append).warnings
    assert warned.startswith("the converted rows, 3000000000000 bytes, don't fit into half")
    assert [event.message for event in events if event.kind == "warning"] == [warned]
