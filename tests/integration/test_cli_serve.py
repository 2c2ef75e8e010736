"""``prunus serve`` answers clients of the Open Inference Protocol and ends when it is told to, or says why it doesn't start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from patience import PATIENCE_S
from prunus.cli.app import invoke
from prunus.ship import load_bundle, read_manifest
from serve_stand_ins import save_small, small_bundle

__all__ = ["small_bundle"]


class Process:
    """A server in a process of its own, and where it is."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "prunus", "serve", str(folder), "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving at http"), (line, self.process.stderr and self.process.stderr.read())
        self.url = line.split()[2]
        self.place = self.url.partition("//")[2]

    def end(self, sig: int = signal.SIGTERM) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(sig)
        _, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, err


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "c"


@pytest.fixture(scope="module")
def server(small_bundle, cache):
    made = Process(small_bundle, "--cache", str(cache))
    yield made
    code, err = made.end()
    assert code == 0, err
    assert all(json.loads(line)["event"] for line in err.splitlines())


def test_tritonclient_talks_to_it_unchanged(server, small_bundle):
    client = triton.InferenceServerClient(server.place)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("small")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "prunus"
    facts = client.get_model_metadata("small")
    assert facts["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 6]}]
    assert facts["platform"] == "onnx_onnxruntime"
    rows = torch.randn(5, 6)
    expected = load_bundle(small_bundle).predict(rows).numpy()
    ways = ((True, True, None), (False, False, None), (True, False, "gzip"), (True, True, "deflate"))
    for binary_in, binary_out, compression in ways:
        tensor = triton.InferInput("input", [5, 6], "FP32")
        tensor.set_data_from_numpy(rows.numpy(), binary_data=binary_in)
        wanted = [triton.InferRequestedOutput("output", binary_data=binary_out)]
        for outputs in (None, wanted):
            made = client.infer(
                "small",
                [tensor],
                outputs=outputs,
                request_id="r1",
                timeout=30_000_000,
                request_compression_algorithm=compression,
            )
            np.testing.assert_allclose(made.as_numpy("output"), expected, rtol=1e-4, atol=1e-5)
            assert made.get_response()["id"] == "r1"
    version = read_manifest(small_bundle).sha256[:12]
    assert client.infer("small", [tensor], model_version=version).get_response()["model_version"] == version
    bad = triton.InferInput("input", [5, 6], "FP32")
    bad.set_data_from_numpy(np.full((5, 6), np.nan, np.float32))
    with pytest.raises(InferenceServerException, match="expected finite numbers"):
        client.infer("small", [bad])
    client.close()


def test_its_interface_is_described(server):
    with urllib.request.urlopen(f"{server.url}/openapi.json") as page:
        document = json.load(page)
    assert {"/v2", "/v2/health/live", "/v2/models/small/infer", "/metrics"} <= set(document["paths"])
    with urllib.request.urlopen(f"{server.url}/docs") as page:
        assert b"openapi.json" in page.read()
    with urllib.request.urlopen(f"{server.url}/metrics") as page:
        assert b"prunus_requests_total" in page.read()


def refused(*arguments, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "prunus", "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_a_port_in_use_is_one_line(small_bundle, cache):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line = refused(small_bundle, "--port", port, "--cache", cache)
    assert (code, line) == (
        7,
        f"error: port {port} of 127.0.0.1 is in use by another program: end that one, or choose another (--port)",
    )


def test_more_processes_behind_one_port_are_refused_with_what_to_do_instead(capsys):
    assert invoke(["serve", "bundle", "--workers", "3"]) == 2
    said = capsys.readouterr().err
    assert "got 3" in said
    assert "behind a proxy" in said


def test_a_damaged_bundle_is_never_served(tmp_path, cache):
    folder = save_small(tmp_path / "b")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    code, line = refused(folder, "--port", 0, "--cache", cache)
    assert code == 6
    assert line.startswith(f"error: {folder / 'model.safetensors'}: expected ") or "loading" in line


def test_others_need_keys_and_a_key_file_is_its_owner_s(small_bundle, tmp_path):
    code, line = refused(small_bundle, "--port", 0, "--host", "0.0.0.0", env={"PRUNUS_API_KEYS": ""})
    assert code == 3
    assert "needs API keys" in line
    keys = tmp_path / "keys"
    keys.write_text("shop " + "k" * 20)
    keys.chmod(0o644)
    code, line = refused(small_bundle, "--port", 0, "--keys", keys)
    assert code == 3
    assert "others can read the key file" in line


def test_two_signals_end_it_at_once_and_one_lets_it_drain(small_bundle, cache):
    made = Process(small_bundle, "--cache", str(cache), "--drain", str(PATIENCE_S))
    made.process.send_signal(signal.SIGTERM)
    client = triton.InferenceServerClient(made.place)
    while client.is_server_ready():
        pass
    assert client.is_server_live()
    tensor = triton.InferInput("input", [1, 6], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 6), np.float32))
    assert client.infer("small", [tensor]).as_numpy("output").shape == (1, 3)
    client.close()
    code, err = made.end(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in err
