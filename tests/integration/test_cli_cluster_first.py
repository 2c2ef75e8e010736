"""Is a cluster that can't be had told before a command reads any data, and without a trace of the command?"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunus.cli.app import invoke
from prunus.core.errors import RunError
from prunus.core.recipes.recipe import Model
from prunus.models import build
from prunus.scale.dispatch import ray_cluster
from prunus.ship import save_bundle

NOBODY = "127.0.0.1:1"
NO_DATA = ("-o", "data.source=spoilt.parquet", "-o", "data.target=label")


BEGUN = ("out/.lock", "out/log.jsonl", "out/recipe.yaml", "out/.work")
"""What a run that was begun and stopped leaves: it goes on from there."""


@pytest.fixture
def folder(tmp_path, monkeypatch, small_recipe):
    """A recipe with a search, a bundle, and a file of rows."""
    monkeypatch.chdir(tmp_path)
    small_recipe(search={"space": {"strategy.keep_fraction": [0.3, 0.6]}, "trials": 2})
    small_recipe("plain.yaml")
    config = Model(builder="mlp", args={"width": 4})
    shape = {"input_shape": (3,), "n_outputs": 2}
    model = build(config, seed=0, **shape)
    save_bundle(tmp_path / "b", model, built_by=config, task="classification", feature_names=tuple("uvw"), **shape)
    (tmp_path / "spoilt.parquet").write_bytes(b"PAR1 is no table")
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({name: np.arange(4.0) for name in "uvw"}), tmp_path / "in" / "rows.parquet")
    return tmp_path


COMMANDS = {
    "search": ("search", "r.yaml", *NO_DATA),
    "run": ("run", "plain.yaml", *NO_DATA),
    "plan": ("plan", "plain.yaml", *NO_DATA),
    "evaluate": ("evaluate", "b", "--source", "spoilt.parquet", "--target", "label", "--robustness"),
    "score-shards": ("score-shards", "b", "in", "--output", "out"),
    "duplicates-shards": ("duplicates-shards", "in", "--output", "out"),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        (NOBODY, 8, f"error: dispatch.address: nothing answers at {NOBODY}: Connection refused"),
        ("bad", 3, "error: dispatch.address: expected host:port, ray://host:port or auto: got 'bad'"),
    ],
)
def test_it_comes_before_any_data_and_leaves_nothing(folder, capsys, name, address, code, words):
    before = set(folder.rglob("*"))
    where = ("--backend", "ray", "--address", address)
    if name == "plan":
        where = ("-o", f"dispatch={{backend: ray, address: '{address}'}}")
    assert invoke([*COMMANDS[name], *where]) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("error: ") == 1
    left = {path.relative_to(folder).as_posix() for path in set(folder.rglob("*")) - before}
    assert left <= ({"out", *BEGUN} if name in ("run", "plan") else set())


def test_a_run_that_met_no_cluster_goes_on_where_there_is_one(folder, capsys):
    where = ("--backend", "ray", "--address", NOBODY)
    assert invoke(["run", "plain.yaml", "-o", "train.epochs=1", "--quiet", *where]) == 8
    assert invoke(["run", "plain.yaml", "-o", "train.epochs=1", "--quiet", "--resume", "--json"]) == 0
    capsys.readouterr()


def test_a_cluster_that_is_to_be_started_here_is_too(folder, capsys, monkeypatch):
    def refused(asked):
        raise RunError(f"no cluster with {asked.workers} workers")

    monkeypatch.setattr(ray_cluster, "open_cluster", refused)
    assert invoke(["run", "plain.yaml", *NO_DATA, "--backend", "ray", "--workers", "2"]) == 8
    assert "no cluster with 2 workers" in capsys.readouterr().err


def test_where_a_latency_is_measured_nobody_asks_for_it(folder, capsys):
    target = ("-o", "strategy.keep_fraction=null", "-o", "target={latency: 0.5}")
    assert invoke(["run", "plain.yaml", *NO_DATA, *target, "--backend", "ray", "--address", NOBODY]) != 8
    assert "spoilt.parquet" in capsys.readouterr().err
