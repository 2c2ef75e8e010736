"""Is a machine that sees other files than the one that asks told by the path, and is nothing left of the asking?"""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray.exceptions

from prunus.core.errors import OutputError, RunError
from prunus.core.files.plain_files import is_leftover
from prunus.core.files.urls.url_path import path_at
from prunus.scale.dispatch import Dispatch, Files, map_shards, ray_task, ray_workers
from prunus.scale.dispatch.attempt import Tries
from prunus.scale.dispatch.ray_cluster import Cluster
from prunus.scale.dispatch.ray_task import Order, serve
from prunus.scale.dispatch.same_files import expected, odd_file


@pytest.fixture
def files(tmp_path):
    for name in ("in/a.csv", "in/b.csv", "bundle/manifest.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "out").mkdir()
    reads = (tmp_path / "bundle", tmp_path / "in" / "a.csv", tmp_path / "in" / "b.csv", path_at("s3://bucket/c.csv"))
    return Files((*reads, Path("sklearn:digits")), (tmp_path / "out", path_at("s3://bucket/out")))


def test_whoever_sees_the_same_is_not_odd_and_the_marks_go_with_the_work(files, tmp_path):
    with expected(files) as asked:
        assert odd_file(asked) == ""
        (mark,) = (tmp_path / "out").iterdir()
        assert is_leftover(mark)  # a kill leaves it, and the next run clears it away
        assert sorted(name for name, _ in asked.sizes) == [str(tmp_path / "bundle"), str(tmp_path / "in" / "a.csv")]
    assert list((tmp_path / "out").iterdir()) == []
    assert odd_file(asked).startswith("finds another folder at ")  # as one does that never was marked


def test_what_another_machine_lacks_or_has_otherwise_is_named_with_its_path(files, tmp_path):
    with expected(files) as asked:
        asked = dataclasses.replace(asked, host="head")
        (tmp_path / "in" / "a.csv").write_text("longer than it was")
        said = odd_file(asked)
        assert said == f"has another {tmp_path / 'in' / 'a.csv'} than head: 18 bytes, expected 8 bytes"
        (tmp_path / "in" / "a.csv").unlink()
        said = odd_file(asked)
        assert said == f"can't read {tmp_path / 'in' / 'a.csv'}, which head has: No such file or directory"
        (tmp_path / "in" / "a.csv").mkdir()
        assert odd_file(asked).endswith("than head: a folder, expected 8 bytes")
        moved = dataclasses.replace(asked, sizes=(), marks=(str(tmp_path / "nowhere" / "mark"),))
        assert odd_file(moved) == f"finds no folder at {tmp_path / 'nowhere'}, where head looks for what workers write"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="can't write"), expected(Files((), (tmp_path / "out",))):
        pass


class Nodes:
    """A cluster of two nodes, of which the second one has another disk; what is asked there is answered here."""

    exceptions = ray.exceptions

    def __init__(self, disk):
        self._disk, self.begun = disk, 0

    def nodes(self):
        resources = {"CPU": 1.0}
        return [
            {"NodeID": name * 56, "NodeManagerAddress": f"10.0.0.{place}", "Alive": True, "Resources": resources}
            for place, name in enumerate("ab", 5)
        ]

    def remote(self, function):
        def options(*, scheduling_strategy, **_):
            if isinstance(scheduling_strategy, str):
                self.begun += 1
                return None
            there = self._disk if scheduling_strategy.node_id[0] == "b" else lambda: None
            return SimpleNamespace(remote=lambda: (there, function))

        return SimpleNamespace(options=options)

    def get(self, answer, timeout):
        change, function = answer
        change()
        return function()


@pytest.mark.parametrize("gone", ["in", "out"])
def test_a_node_with_a_disk_of_its_own_is_one_line_before_any_shard_is_begun(files, tmp_path, monkeypatch, gone):
    cluster = Nodes(lambda: (tmp_path / gone).rename(tmp_path / "elsewhere"))
    monkeypatch.setattr(ray_workers, "open_cluster", lambda asked: Cluster(cluster, ours=False))
    with pytest.raises(RunError) as refused:
        list(map_shards(len, ["a"], backend=Dispatch(backend="ray"), files=files))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("dispatch: the node 10.0.0.6 ")
    assert str(tmp_path / gone) in str(refused.value)
    assert cluster.begun == 0


def test_a_node_that_came_later_is_asked_too_and_does_nothing(monkeypatch, tmp_path):
    context = SimpleNamespace(get_node_id=lambda: "node")
    fake = SimpleNamespace(exceptions=ray.exceptions, get_runtime_context=lambda: context)
    monkeypatch.setattr(ray_task, "require", lambda name, extra: fake)
    monkeypatch.setattr(ray_task, "_LOADED", {})
    monkeypatch.setattr("sys.path", [])
    with expected(Files((), (tmp_path,))) as asked:
        pass
    order = Order("key", (b"",), (), str(Path.cwd()), 1)
    kind, said, _ = serve(dataclasses.replace(order, files=asked), 1)
    assert (kind, said.startswith(f"finds another folder at {tmp_path}")) == ("refused", True)
    kind, said, _ = serve(dataclasses.replace(order, versions={"torch": "1.0"}), 1)
    assert (kind, said.startswith("has torch ")) == ("refused", True)
    with pytest.raises(RunError, match="has torch"):
        list(Tries(1, 5).settle(0, "refused", "has torch"))
