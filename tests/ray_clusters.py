"""A Ray cluster of several nodes on the loopback of this machine, for tests."""

import os
import sys
from contextlib import contextmanager

import pytest

STORE_BYTES = 80 << 20
RAY_MARKS = [
    pytest.mark.nightly,  # Ray's driver lives in the test process, and may end it with no word when a node of its is gone
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def added_node(cluster, num_cpus=1, **options):
    """Return a node that was added to a cluster; on a machine that is busy, one may need more than the time that Ray gives it."""
    for attempt in range(3):
        try:
            return cluster.add_node(num_cpus=num_cpus, **{"object_store_memory": STORE_BYTES, **options})
        except Exception:
            if attempt == 2:
                raise
    raise AssertionError


@contextmanager
def loopback_cluster(n_nodes, n_cpus=1):
    """Yield a cluster of so many nodes, of so many cores each; it is gone afterwards."""
    variables = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # it means: listen on the loopback only
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_gcs_server_port_wait_time_s": "600",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    import ray
    from ray.cluster_utils import Cluster

    sys.modules["ray._private.ray_constants"].ENABLE_RAY_CLUSTER = False
    options = {"num_cpus": n_cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster()
    try:
        added_node(cluster, **options)
        for _ in range(n_nodes - 1):
            added_node(cluster, num_cpus=n_cpus)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
