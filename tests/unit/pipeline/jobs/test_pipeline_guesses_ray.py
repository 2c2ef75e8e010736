"""Do the nodes of a Ray cluster try what a contract's search tries, with the plan and the record of one process?"""

import sys
from pathlib import Path

import ray

from prunus.pipeline.jobs.workspace import Workspace
from ray_clusters import RAY_MARKS, loopback_cluster

sys.path.insert(0, str(Path(__file__).parent))
from test_pipeline_guesses import clouds, searched

pytestmark = RAY_MARKS


def test_two_nodes_find_and_decide_the_same_as_one_process(tmp_path, monkeypatch):
    data = clouds(tmp_path)
    alone = searched(tmp_path / "alone", data)
    adopted, real = [], Workspace.adopt
    monkeypatch.setattr(Workspace, "adopt", lambda work, name: adopted.append(name) or real(work, name))
    with loopback_cluster(2) as cluster:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        assert searched(tmp_path / "nodes", data, backend="ray", workers=2) == alone
    assert adopted
