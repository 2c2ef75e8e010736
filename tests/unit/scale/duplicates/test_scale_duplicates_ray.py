"""Are near-duplicates that the nodes of a Ray cluster look for those that one process finds, to the byte?"""

import sys
from pathlib import Path

import pytest
import ray

from object_store import ENVIRONMENT
from prunus.scale import near_duplicates_shards
from prunus.scale.dispatch import Dispatch
from ray_clusters import RAY_MARKS, loopback_cluster

sys.path.insert(0, str(Path(__file__).parent))
from test_scale_near_duplicates_shards import content, planted, read, write

pytestmark = RAY_MARKS


@pytest.fixture(scope="module")
def two_nodes(running_store):
    """Two nodes whose environment says where the store is, and with which keys: each worker asks it for itself."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": running_store.endpoint}.items():
            patch.setenv(name, value)
        with loopback_cluster(2) as found:
            ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
            yield Dispatch(backend="ray", workers=2)


@pytest.mark.parametrize("crowd", [0, 900])
def test_two_nodes_write_what_one_process_writes(two_nodes, tmp_path, crowd):
    paths, events = write(tmp_path / "in", planted(2400, 8, crowd)), []
    near_duplicates_shards(paths, tmp_path / "alone", cosine=0.98)
    near_duplicates_shards(paths, tmp_path / "nodes", cosine=0.98, backend=two_nodes, listener=events.append)
    for mine, theirs in zip(read(tmp_path / "alone", paths), read(tmp_path / "nodes", paths), strict=True):
        assert mine.tobytes() == theirs.tobytes()
    assert content(tmp_path / "alone") == content(tmp_path / "nodes")
    by_node = [event.facts["by_node"] for event in events if "by_node" in event.facts]
    assert len(by_node[-1]) == 2, "both had a part in it"


def test_rows_at_a_url_are_found_by_nodes_and_written_to_one(two_nodes, store, bucket, tmp_path):
    write(tmp_path / "in", planted(600, 8))
    store.put_folder(bucket, "in", tmp_path / "in")
    near_duplicates_shards([tmp_path / "in"], tmp_path / "alone", cosine=0.98)
    there = [f"s3://{bucket}/in"], f"s3://{bucket}/out"
    near_duplicates_shards(*there, cosine=0.98, backend=two_nodes, work=tmp_path / "work")
    for name, raw in content(tmp_path / "alone").items():
        assert store.get(bucket, f"out/{name}") == raw
