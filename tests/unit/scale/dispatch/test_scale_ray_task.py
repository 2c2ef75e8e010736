"""Is a function that can't travel through a full object store told in one line, at either end?"""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import ray.exceptions

from prunus.core.errors import RunError
from prunus.scale.dispatch import map_shards, ray_task, ray_workers
from prunus.scale.dispatch.ray_task import Order, serve


class Heavy:
    """Weighs more than what travels with each shard."""

    def __init__(self):
        self.ballast = bytes(200_000)

    def __call__(self, shard):
        return shard


@pytest.mark.parametrize("error", [ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError])
def test_a_store_without_room_for_the_function_is_one_line_and_the_cluster_is_left(monkeypatch, error):
    left = []

    def put(value):
        raise error("the store is full\nof lines")

    full = SimpleNamespace(exceptions=ray.exceptions, remote=ray.remote, put=put)
    cluster = SimpleNamespace(ray=full, nodes=dict, close=lambda: left.append(True))
    monkeypatch.setattr(ray_workers, "open_cluster", lambda asked: cluster)
    with pytest.raises(
        RunError, match=r"the object store of this node is full, and a function of 200,\d+ bytes"
    ) as found:
        list(map_shards(Heavy(), [1], backend="ray"))
    assert "\n" not in str(found.value)
    assert left == [True]


def test_a_function_that_does_not_arrive_is_asked_for_again_later(monkeypatch):
    came = iter([ray.exceptions.GetTimeoutError("no room"), b"packed"])

    def get(reference, timeout):
        assert timeout < 600
        found = next(came)
        if isinstance(found, Exception):
            raise found
        return found

    context = SimpleNamespace(get_node_id=lambda: "node")
    fake = SimpleNamespace(exceptions=ray.exceptions, get=get, get_runtime_context=lambda: context)
    monkeypatch.setattr(ray_task, "require", lambda name, extra: fake)
    monkeypatch.setattr(ray_task, "loaded", lambda function: lambda shard: ("done", function))
    monkeypatch.setattr(ray_task, "_LOADED", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    order = Order("key", ("a reference",), (), str(Path.cwd()), 1)
    kind, said, node = serve(order, 1)
    assert (kind, node) == ("again", "node")
    assert said.startswith("the function didn't arrive within 60 s")
    assert serve(order, 1) == serve(order, 2) == ("done", b"packed", "node")
