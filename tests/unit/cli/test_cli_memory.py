"""Too little memory is one line and a documented exit code, wherever it shows; what was done is kept."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys

import pytest
from torch import nn

from prunus.apply.traced import spans
from prunus.cli import ending
from prunus.cli.app import invoke
from prunus.core.code.extras import require
from prunus.core.errors import DataError, MissingExtraError, ModelError, out_of_memory
from prunus.pipeline.flow import main_job
from prunus.report.page import charts

LACKS = [
    MemoryError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."
    ),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("could not create a primitive"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
]


@pytest.mark.parametrize("error", LACKS)
@pytest.mark.parametrize("wrapped", [None, DataError, ModelError, MissingExtraError])
def test_whatever_says_it_and_whatever_was_made_of_it(capsys, error, wrapped):
    if wrapped is not None:
        outer = wrapped("something else")
        outer.__cause__ = error
        error = outer
    assert ending.explain(error, ["run", "r.yaml"]) == 8
    said = capsys.readouterr().err
    assert said.startswith("error: not enough memory (")
    assert said.endswith("what is done is kept: add --resume to go on\n")
    assert ending.explain(error, ["graph", "mlp"]) == 8
    assert "--resume" not in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("a memory of it"), RuntimeError("no"), ImportError("no module")])
def test_other_errors_are_no_lack_of_memory(error):
    assert out_of_memory(error) is None


def test_a_trial_that_lacks_memory_says_nothing_of_what_was_tried():
    def forward(*inputs):
        raise LACKS[2]

    with pytest.raises(RuntimeError, match="can't allocate"):
        spans._outputs(_Fails(forward), (), {})
    assert spans._outputs(_Fails(lambda: 1 / 0), (), {}) is None


class _Fails(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def test_a_package_that_can_t_be_loaded_isn_t_called_missing(monkeypatch):
    def fails(name):
        raise LACKS[-1]

    monkeypatch.setattr("importlib.import_module", fails)
    with pytest.raises(ImportError, match="failed to map segment") as caught:
        require("sklearn", extra="sklearn")
    assert not isinstance(caught.value, MissingExtraError)


def test_a_command_that_can_t_even_load_its_libraries_ends_in_one_line(small_recipe, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "prunus", "run", str(small_recipe()), "-q"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)),
    )
    assert done.returncode == 8, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


# Under a limit on the whole process, some library ends it while it is loaded; so everything is loaded before.
LIMITED = """
import resource, sys
from pathlib import Path
from prunus.cli.app import invoke
assert invoke(["run", sys.argv[1], "-q"]) == 0
large = ["-o", "model={builder: mlp, args: {width: 4096, depth: 3}}", "-o", "train.batch_size=16"]
for megabytes in map(int, sys.argv[2:]):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (megabytes << 20), -1))
    print(invoke(["run", sys.argv[1], "-q", "-o", f"output=under {megabytes}", *large]))
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
"""


def test_a_run_for_which_there_is_too_little_memory_ends_in_one_line_wherever_that_shows(small_recipe, tmp_path):
    """Its weights take 130 MB, their gradients and their averages as much each."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(small_recipe()), "20", "180", "400"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.splitlines()[-3:] == ["8", "8", "8"], done.stderr
    assert len(done.stderr.splitlines()) == 3, done.stderr


def test_what_was_done_before_is_kept(small_recipe, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    recipe = str(small_recipe())
    assert invoke(["run", recipe, "-q", "-o", f"output={whole}"]) == 0

    def lacks(*arguments, **options):
        raise LACKS[2]

    with monkeypatch.context() as patch:
        patch.setattr(main_job, "ship", lacks)
        assert invoke(["run", recipe, "-q", "-o", f"output={broken}"]) == 8
    assert invoke(["run", recipe, "-q", "--resume", "-o", f"output={broken}"]) == 0
    bundles = [(folder / "bundle" / "manifest.json").read_bytes() for folder in (whole, broken)]
    assert bundles[0] == bundles[1]


def test_charts_that_would_end_the_process_are_left_out(monkeypatch):
    monkeypatch.setattr(charts, "_address_limit", lambda: 4 << 30)
    with pytest.raises(MissingExtraError, match=r"need 72 GB of addresses .* may have 4"):
        charts.all_charts(None)
