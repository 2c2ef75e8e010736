"""Do workers of a Ray cluster that is reached from outside, at ``ray://``, give what processes of this machine give?"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from patience import PATIENCE_S, free_port, until
from prunus.core.errors import MissingExtraError
from prunus.scale.dispatch import Dispatch, map_shards

HERE = Path(__file__).parent
SHARDS = [("", 0), ("die once", 1), ("wrong", 2), ("", 3)]
CHILD = f"""
import json, sys
sys.path.insert(0, {str(HERE)!r})
from dispatch_jobs import Job
from prunus.scale.dispatch import Dispatch, Failure, map_shards
marks, address = sys.argv[1:]
backend = Dispatch(backend="ray", workers=2, address=address)
found = {{}}
for number, one in map_shards(Job(marks), {SHARDS!r}, backend=backend):
    found[number] = one.message if isinstance(one, Failure) else one[0]
print(json.dumps(found))
"""


def test_without_what_ray_needs_for_it_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.setattr("prunus.core.code.extras.find_spec", lambda name: None if name == "grpc" else name)
    with pytest.raises(MissingExtraError) as refused:
        list(map_shards(len, ["a"], backend=Dispatch(backend="ray", address="ray://127.0.0.1:1")))
    assert str(refused.value) == (
        "dispatch.address: ray://127.0.0.1:1 needs the package 'grpc', which is not installed: pip install 'prunus[ray]'"
    )


def answers(port):
    with closing(socket.socket()) as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.nightly
def test_a_cluster_that_is_reached_from_outside_does_the_work_and_what_dies_again(tmp_path):
    pytest.importorskip("grpc")
    (tmp_path / "marks").mkdir()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets have paths of a hundred letters at most
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    port = free_port()
    asked = ["start", "--head", "--block", f"--port={free_port()}", f"--ray-client-server-port={port}", "--num-cpus=2"]
    asked += [
        "--include-dashboard=false",
        "--disable-usage-stats",
        "--object-store-memory=100000000",
        f"--temp-dir={folder}",
    ]
    with (tmp_path / "head.txt").open("w") as out:
        head = subprocess.Popen(
            [str(Path(sys.executable).parent / "ray"), *asked],
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            until(lambda: answers(port))
            done = subprocess.run(
                [sys.executable, "-c", CHILD, str(tmp_path / "marks"), f"ray://127.0.0.1:{port}"],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
        finally:
            os.killpg(head.pid, signal.SIGTERM)
            head.wait(timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("2").startswith("wrong data")
    assert found == {"0": 0, "1": 1, "3": 9}
