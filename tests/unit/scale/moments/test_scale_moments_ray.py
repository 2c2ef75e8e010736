"""Do workers of a Ray cluster add up what one process does?"""

import sys
from pathlib import Path

import numpy as np
import ray

from prunus.scale import moments_of_shards
from prunus.scale.dispatch import Dispatch
from ray_clusters import RAY_MARKS, loopback_cluster

sys.path.insert(0, str(Path(__file__).parent))
from test_scale_moments_of_shards import bits, save

pytestmark = RAY_MARKS


def test_the_moments_are_the_same_for_one_process_and_for_two_nodes(tmp_path):
    rows = np.random.default_rng(1).standard_normal((9000, 8)) + 3
    paths = save(tmp_path, rows, list(range(500, 9000, 500)))
    alone = moments_of_shards(paths, tmp_path / "alone")
    with loopback_cluster(2) as found:
        ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
        cluster = Dispatch(backend="ray", workers=2)
        assert bits(moments_of_shards(paths, tmp_path / "ray", backend=cluster)) == bits(alone)
