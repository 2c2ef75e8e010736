"""Shared by all tests: one thread, a small recipe, and a way to run the command line in a process of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import yaml

from object_store import ENVIRONMENT, Store
from patience import PATIENCE_S
from work_clock import WorkClock

torch.set_num_threads(1)

# `make test` says the same of the same code; new random examples are for who looks for faults: HYPOTHESIS_PROFILE=explore.
# How long an example takes says how busy the machine is, not whether a law holds: no deadline, and none may be too slow to draw.
STEADY = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("same", derandomize=True, **STEADY)
hypothesis.settings.register_profile("explore", print_blob=True, **STEADY)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def running_store() -> Iterator[Store]:
    """Yield a server that speaks S3, on the loopback."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        store = Store()
        yield store
        store.stop()


@pytest.fixture
def store(running_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return a server that speaks S3; the environment says where it is, and with which keys."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": running_store.endpoint}.items():
        monkeypatch.setenv(name, value)
    return running_store


@pytest.fixture
def bucket(store: Store, request: pytest.FixtureRequest) -> str:
    """Return the name of a bucket that is new for each test."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    return store.bucket(f"prunus-{digest}")


@pytest.fixture
def work_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> WorkClock:
    """Return the clock by which models in torch are timed in this test: it counts their work, and nothing measured is known yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    clock = WorkClock()
    clock.times(monkeypatch)
    return clock


SMALL = {
    "name": "small",
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.2, "test": 0.3}},
    "model": {"builder": "cnn", "args": {"width": 8}},
    "train": {"epochs": 2},
    "strategy": {"criterion": "taylor", "granularity": "channel", "keep_fraction": 0.5},
    "recovery": {"method": "fine_tune", "epochs": 1},
    "evaluation": {"bootstrap": 100, "latency": {"repeats": 5, "warm_up": 1, "batch_size": 8, "runtime": "torch"}},
    "seeds": [0],
    "output": "out",
}


@pytest.fixture
def small_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the small recipe with some sections replaced, and returns its path."""

    def write(name: str = "r.yaml", **sections: object) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump({**SMALL, **sections}))
        return path

    return write


@pytest.fixture
def prunus(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs the command line in ``tmp_path`` and returns the finished process."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "prunus", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run
