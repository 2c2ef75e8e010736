"""Do workers of a Ray cluster add up what one process does?"""

import sys
from pathlib import Path

import ray

from prunus.pipeline.cut import shared_evidence
from ray_clusters import RAY_MARKS, loopback_cluster

sys.path.insert(0, str(Path(__file__).parent))
from evidence_runs import left_by
from test_pipeline_shared_evidence import BOTH_PASSES, TWO_ROUNDS

pytestmark = RAY_MARKS


def test_a_run_leaves_the_same_for_one_process_and_for_two_nodes(tmp_path, monkeypatch):
    alone, _ = left_by(tmp_path / "alone", TWO_ROUNDS)
    monkeypatch.setattr(shared_evidence, "WORTH_S", 0.0)
    with loopback_cluster(2) as found:
        ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
        several, stages = left_by(tmp_path / "several", TWO_ROUNDS, dispatch={"backend": "ray", "workers": 2})
    assert several == alone
    assert stages >= BOTH_PASSES
