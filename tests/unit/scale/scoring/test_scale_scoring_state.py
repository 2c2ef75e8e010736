"""Does the disk know of every shard that is done, at a price that hardly grows with their number?"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prunus.core.errors import OutputError
from prunus.scale import ShardFacts, score_shards
from prunus.scale.scoring import scoring_state
from prunus.scale.scoring.scoring_state import RECENT, STATE, ScoringState, read_done

sys.path.insert(0, str(Path(__file__).parent))
import shard_jobs


@pytest.fixture
def shards(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(7):
        columns = {name: np.random.default_rng(number).random(20) for name in ("a", "b")}
        pq.write_table(pa.table(columns), tmp_path / "in" / f"part-{number}.parquet")
    return tmp_path / "in"


def run(shards, output, **options):
    return score_shards([shards], output, shard_jobs.Opens(shard_jobs.Sums), settings={"of": "test"}, **options)


@pytest.mark.parametrize("fewest", [1, 2, 16])
def test_after_each_shard_the_disk_knows_of_all_that_are_done(shards, tmp_path, monkeypatch, fewest):
    monkeypatch.setattr(scoring_state, "_FEWEST", fewest)
    out, seen = tmp_path / "out", []

    def look(event):
        if event.kind == "progress":
            seen.append(sorted(read_done(out)[1]))

    run(shards, out, listener=look)
    assert seen == [[f"part-{number}.parquet" for number in range(n)] for n in range(1, 8)]
    assert not (out / RECENT).exists(), "what is over stands in one file"


def test_what_was_noted_for_many_shards_is_far_from_all_of_them_each_time(tmp_path, monkeypatch):
    for name, value in {"seen_of": ["x"], "_written": [1, 2], "print_of": "p"}.items():
        monkeypatch.setattr(scoring_state, name, lambda path, value=value: value)
    written = []
    plain = scoring_state.write_json
    monkeypatch.setattr(
        scoring_state, "write_json", lambda path, tree: written.append(len(tree["done"])) or plain(path, tree)
    )
    state, n = ScoringState(tmp_path, {}), 900
    state.write()
    for number in range(n):
        state.finish(Path(f"{number}.csv"), Path(f"{number}.parquet"), ShardFacts(1, ("a",)))
    assert len(read_done(tmp_path)[1]) == n
    assert sum(written) < 1.5 * n**1.5 < n * n / 10


def test_a_failed_shard_is_no_longer_noted_wherever_it_stood(shards, tmp_path):
    out = tmp_path / "out"
    run(shards, out)
    (shards / "part-3.parquet").write_bytes(b"spoilt")
    found = run(shards, out, resume=True)
    assert list(found.failed) == [str(shards / "part-3.parquet")]
    assert sorted(read_done(out)[1]) == [f"part-{number}.parquet" for number in (0, 1, 2, 4, 5, 6)]
    state = ScoringState(out, {})
    state.done = read_done(out)[1]
    state.write()
    state.forget(out / "part-1.parquet")
    assert (out / RECENT).exists()
    assert sorted(read_done(out)[1]) == [f"part-{number}.parquet" for number in (0, 2, 4, 5, 6)]


def test_notes_that_follow_another_whole_are_not_added_to_it(shards, tmp_path):
    out = tmp_path / "out"
    run(shards, out)
    state = ScoringState(out, {})
    state.write()
    state.finish(shards / "part-0.parquet", out / "part-0.parquet", ShardFacts(20, ("sum",)))
    held = (out / RECENT).read_bytes()
    assert list(read_done(out)[1]) == ["part-0.parquet"]
    state.forget(out / "part-0.parquet")
    state.finish(shards / "part-1.parquet", out / "part-1.parquet", ShardFacts(20, ("sum",)))
    state.write()  # a kill before the notes are removed leaves them beside a whole that knows better
    (out / RECENT).write_bytes(held)
    assert list(read_done(out)[1]) == ["part-1.parquet"]


def test_notes_that_were_changed_are_refused(shards, tmp_path):
    out = tmp_path / "out"
    run(shards, out)
    state = ScoringState(out, {})
    state.done = read_done(out)[1]
    state.write()
    state.forget(out / "part-0.parquet")
    tree = json.loads((out / RECENT).read_text())
    (out / RECENT).write_text(json.dumps({**tree, "done": {}}))
    with pytest.raises(OutputError, match=r"prunus-scores-recent\.json: this state is damaged or was changed"):
        read_done(out)
    assert (out / STATE).exists()


def test_scores_that_are_not_where_they_were_written_are_not_done(shards, tmp_path, monkeypatch):
    kept = scoring_state._written
    monkeypatch.setattr(scoring_state, "_written", lambda path: [] if path.name == "part-3.parquet" else kept(path))
    with pytest.raises(OutputError, match=r"part-3\.parquet was written, and isn't here: all workers need "):
        run(shards, tmp_path / "out")
    assert sorted(read_done(tmp_path / "out")[1]) == [f"part-{number}.parquet" for number in range(3)]
