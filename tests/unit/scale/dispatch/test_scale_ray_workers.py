"""Do the workers of a Ray cluster give what processes of this machine give, also when one of them, or a node, is lost?"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from prunus.core.errors import OutputError, RecipeError, RunError
from prunus.scale import score_shards
from prunus.scale.dispatch import Dispatch, Failure, map_shards, run_trials
from ray_clusters import added_node, loopback_cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "scoring"))
sys.path.insert(0, str(Path(__file__).parent))
import shard_jobs
from dispatch_jobs import Job, OnlyHere, Sums

pytestmark = [
    pytest.mark.nightly,  # Ray's driver lives in the test process, and may end it with no word when a node of its is gone
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning"
    ),  # Ray's own: sockets and processes that it leaves to the collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    with loopback_cluster(2) as found:
        yield found


@pytest.fixture(scope="module")
def two_workers(cluster):
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")  # once, since workers are a job's own
    return Dispatch(backend="ray", workers=2)


def test_what_hurts_one_shard_is_tried_again_or_named_and_costs_no_other(two_workers, tmp_path):
    shards = [("", 0), ("die once", 1), ("pass once", 2), ("wrong", 3), ("pass", 5), ("odd", 6), ("lambda", 7)]
    events = []
    found = dict(map_shards(Job(str(tmp_path)), shards, backend=two_workers, retries=1, listener=events.append))
    assert {number: one[0] for number, one in found.items() if not isinstance(one, Failure)} == {0: 0, 1: 1, 2: 4}
    words = {number: (one.message.partition(" (on ")[0], one.n_tries) for number, one in found.items() if number > 2}
    assert words.pop(6)[0].startswith("the answer can't be pickled: ")
    assert words == {3: ("wrong data", 1), 4: ("a passing fault", 2), 5: ("ValueError: two lines", 2)}
    assert "2 workers on 2 nodes" in events[0].message
    assert sum(events[-1].facts["by_node"].values()) == 3


def test_shards_are_spread_over_the_nodes_and_the_scores_are_those_of_one_process(two_workers, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(6):
        draw = np.random.default_rng(number)
        table = pa.table({"a": draw.random(200), "b": draw.random(200)})
        pq.write_table(table, tmp_path / "in" / f"part-{number}.parquet")
    events, opens = [], shard_jobs.Opens(shard_jobs.Slow)
    score_shards([tmp_path / "in"], tmp_path / "one", opens, settings={})
    score_shards([tmp_path / "in"], tmp_path / "ray", opens, settings={}, backend=two_workers, listener=events.append)
    for path in (tmp_path / "one").glob("*.parquet"):
        assert (tmp_path / "ray" / path.name).read_bytes() == path.read_bytes()
    (by_node,) = [event.facts["by_node"] for event in events if "by_node" in event.facts]
    assert len(by_node) == 2
    assert sum(by_node.values()) == 6


def test_trials_are_the_same_as_in_one_process(two_workers):
    study, alone = Sums(3), Sums(3)
    seen = sorted(answer[0] for _, answer in run_trials(Job(), study, backend=two_workers))
    assert seen == sorted(answer[0] for _, answer in run_trials(Job(), alone))
    assert study.told == alone.told


def test_what_cannot_be_done_is_one_line(two_workers, monkeypatch):
    with pytest.raises(OutputError, match="no space left"):
        list(map_shards(Job(), [("full", 0)], backend=two_workers))
    with pytest.raises(RecipeError, match=r"can be pickled: got .*<lambda>"):
        list(map_shards(lambda shard: shard, [1], backend=two_workers))
    ((_, failure),) = map_shards(OnlyHere(), [1], backend=two_workers)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in failure.message
    with pytest.raises(
        RecipeError, match=r"no node .* has the 3 cores and 0 GPUs of a worker: got 1 cores and 0 GPUs, 1 cores"
    ):
        list(map_shards(Job(), [("", 0)], backend=two_workers.model_copy(update={"cpus": 3.0})))


def test_a_node_with_other_versions_is_named_and_refused(two_workers, monkeypatch):
    ours = {"prunus": "9.0", "python": "3.1.4", "torch": "9.9"}
    monkeypatch.setattr(sys.modules["prunus.scale.dispatch.ray_cluster"], "versions", lambda: ours)
    with pytest.raises(RunError, match=r"the node 127\S* has prunus .*, where 9.0 is expected, python .*, torch .*9.9"):
        list(map_shards(Job(), [("", 0)], backend=two_workers))


def test_a_node_that_is_lost_costs_the_shards_that_it_had(cluster, two_workers, tmp_path):
    node = added_node(cluster)
    three = two_workers.model_copy(update={"workers": 3})
    found = {}
    for number, answer in map_shards(Job(str(tmp_path)), [("slowly", n) for n in range(12)], backend=three):
        if not found:
            cluster.remove_node(node, allow_graceful=False)
        found[number] = answer
    assert {number: answer[0] for number, answer in found.items()} == {n: n**2 for n in range(12)}
    assert len(list(tmp_path.iterdir())) <= 12 + 3  # begun: each once, and again what was under way
