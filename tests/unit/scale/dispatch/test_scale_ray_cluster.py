"""Is a Ray cluster that prunus starts nobody else's, and is one that can't be had said in one line?"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from patience import PATIENCE_S
from prunus.core.errors import MissingExtraError, RecipeError, RunError
from prunus.scale.dispatch import Dispatch, map_shards, ray_cluster, ray_workers

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.nightly  # on a machine that is busy, Ray itself gives up before its node has started
def test_one_that_is_started_here_listens_on_the_loopback_only_and_leaves_nothing(tmp_path):
    (tmp_path / "marks").mkdir()
    script, report = Path(__file__).parent / "own_cluster.py", tmp_path / "report.json"
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have paths of a hundred letters at most
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "marks"), str(report)],
        env={**os.environ, "TMPDIR": str(folder), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(report.read_text())
    assert said["found"] == {"0": 0, "1": 1, "2": 4}
    assert len(said["addresses"]) > 0
    assert set(said["addresses"]) <= LOOPBACK
    assert done.stdout == ""  # where a command's answer goes; Ray prints there which workers it lost
    assert said["left"] is False
    assert list(folder.iterdir()) == []
    assert not (tmp_path / ".ray").exists()  # where Ray keeps a token for all that this user starts
    folder.rmdir()


class Full:
    """A cluster that takes no work, and counts how often it was left."""

    ray, n_left = None, 0

    def nodes(self):
        raise OSError("no room for the function")

    def close(self):
        self.n_left += 1


def test_where_the_work_cannot_begin_the_cluster_is_left(monkeypatch):
    cluster = Full()
    monkeypatch.setattr(ray_workers, "open_cluster", lambda asked: cluster)
    with pytest.raises(OSError, match="no room"):
        list(map_shards(len, ["a"], backend="ray"))
    assert cluster.n_left == 1


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("127.0.0.1:1", RunError, "nothing answers at 127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:1", RunError, "nothing answers at ray://127.0.0.1:1: Connection refused"),
        ("nowhere", RecipeError, "expected host:port, ray://host:port or auto: got 'nowhere'"),
    ],
)
def test_an_address_where_nobody_is_is_one_line(address, kind, said):
    with pytest.raises(kind, match=said) as refused:
        list(map_shards(len, ["a"], backend=Dispatch(backend="ray", address=address)))
    assert "\n" not in str(refused.value)


class Stranger(Thread):
    """Listens on a port of the loopback and says the same to everybody, or nothing."""

    def __init__(self, words):
        super().__init__(daemon=True)
        self.words, self.socket = words, socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                self.held, _ = self.socket.accept()
                self.held.sendall(self.words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"", "nothing answers at {}: timed out; is the cluster up"),
        (b"HTTP/1.0 505 HTTP Version Not Supported\r\n\r\n", "what answers at {} is no Ray cluster without TLS; "),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers at {} is no Ray cluster without TLS; "),
    ],
)
def test_a_port_where_something_else_listens_is_one_line_and_soon(words, said, monkeypatch):
    # Who says nothing is never heard, however short that is; who says something is waited for.
    monkeypatch.setattr(ray_cluster, "_SECONDS_TO_ANSWER", PATIENCE_S if words else 0.2)
    stranger = Stranger(words)
    stranger.start()
    with stranger.socket, pytest.raises(RunError) as refused:
        list(map_shards(len, ["a"], backend=Dispatch(backend="ray", address=stranger.address)))
    assert str(refused.value).startswith(f"dispatch.address: {said.format(stranger.address)}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("workers", "gpus", "there", "room"),
    [(1, 0.5, 0, 0), (3, 0.5, 1, 2), (2, 0.6, 1, 1), (2, 2, 3, 1), (2, 0.5, 1, None), (3, 1, 3, None), (4, 0, 0, None)],
)
def test_no_cluster_is_started_here_with_gpus_that_are_not_there(monkeypatch, workers, gpus, there, room):
    started = []
    monkeypatch.setattr(ray_cluster.torch.cuda, "device_count", lambda: there)
    monkeypatch.setattr(ray_cluster, "_init", lambda *given: started.append(given))
    monkeypatch.setitem(sys.modules, "ray._private.ray_constants", SimpleNamespace())
    asked = Dispatch(backend="ray", workers=workers, gpus=gpus)
    if room is None:
        ray_cluster._started(SimpleNamespace(shutdown=lambda: None), asked).close()
        assert started
        return
    said = (
        rf"dispatch.gpus: expected room for {workers} workers of {gpus} GPUs each, got {there} .*, for {room} of them"
    )
    with pytest.raises(RecipeError, match=said):
        ray_cluster._started(None, asked)
    assert not started


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'ray', which is not installed: pip install 'prunus\[ray\]'"):
        list(map_shards(len, ["a"], backend="ray"))


class Answer:
    """What a node answers when it is asked, some time later."""

    def __init__(self, value):
        self.value = value

    def options(self, **_):
        return self

    def remote(self):
        return self


class Nodes:
    """A cluster of two nodes that say what they are told to."""

    names = "ab"

    class exceptions:
        RayError = RuntimeError

    def __init__(self, told):
        self.told = iter(told)

    def remote(self, asked):
        return self

    def options(self, **_):
        return Answer(next(self.told))

    def get(self, answer, timeout):
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def nodes(self):
        return [
            {"NodeID": name * 56, "NodeManagerAddress": f"10.0.0.{place}", "Alive": True}
            for place, name in enumerate(self.names, 1)
        ]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (
            {"torch": "2.9.1"},
            (
                "dispatch: the node 10.0.0.2 has torch 2.9.1, where 2.13.0 is expected; install the same everywhere, or leave "
                "the node out"
            ),
        ),
        (
            {"prunus": "0.9.0 (sources 0123456789ab)"},
            (
                "dispatch: the node 10.0.0.2 has prunus 0.9.0 (sources 0123456789ab), where 1.0.0 (sources fedcba987654) is "
                "expected; install the same everywhere, or leave the node out"
            ),
        ),
        (
            {"prunus": "not at all", "torch": "not at all"},
            (
                "dispatch: the node 10.0.0.2 has prunus not at all, where 1.0.0 (sources fedcba987654) is expected, torch not at "
                "all, where 2.13.0 is expected; install the same everywhere, or leave the node out"
            ),
        ),
        (RuntimeError("no room"), "dispatch: the node 10.0.0.2 starts no worker: RuntimeError: no room"),
    ],
)
def test_a_node_with_another_prunus_or_torch_is_named_and_refused(monkeypatch, theirs, said):
    ours = {"prunus": "1.0.0 (sources fedcba987654)", "python": "3.11.7", "torch": "2.13.0"}
    monkeypatch.setattr(ray_cluster, "versions", lambda: ours)
    monkeypatch.setattr(ray_cluster, "_same_as_here", set())
    nodes = Nodes([ours, theirs if isinstance(theirs, Exception) else {**ours, **theirs}])
    with pytest.raises(RunError) as refused:
        ray_cluster._check_versions(ray_cluster.Cluster(nodes, ours=False))
    assert str(refused.value) == said
    ray_cluster._check_versions(ray_cluster.Cluster(Nodes([ours, ours]), ours=False))


def test_a_node_is_asked_once_and_again_when_it_is_another_or_when_this_process_runs_other_code(monkeypatch):
    ours, newer = {"torch": "2.13.0"}, {"torch": "2.14.1"}
    monkeypatch.setattr(ray_cluster, "versions", lambda: ours)
    monkeypatch.setattr(ray_cluster, "_same_as_here", set())
    left = []
    for names, answers in (("ab", [ours, ours]), ("ab", []), ("ac", [ours]), ("c", [])):
        nodes = Nodes(answers)
        monkeypatch.setattr(Nodes, "names", names)
        ray_cluster._check_versions(ray_cluster.Cluster(nodes, ours=False))
        left += list(nodes.told)
    assert left == []
    monkeypatch.setattr(ray_cluster, "versions", lambda: newer)
    with pytest.raises(RunError, match=r"torch 2\.13\.0, where 2\.14\.1"):
        ray_cluster._check_versions(ray_cluster.Cluster(Nodes([ours]), ours=False))


def test_a_node_that_was_refused_is_asked_again(monkeypatch):
    ours = {"torch": "2.13.0"}
    monkeypatch.setattr(ray_cluster, "versions", lambda: ours)
    monkeypatch.setattr(ray_cluster, "_same_as_here", set())
    with pytest.raises(RunError, match="the node 10"):
        ray_cluster._check_versions(ray_cluster.Cluster(Nodes([ours, {"torch": "2.9.1"}]), ours=False))
    nodes = Nodes([ours])
    ray_cluster._check_versions(ray_cluster.Cluster(nodes, ours=False))
    assert list(nodes.told) == []
