"""Do processes that are forked have what a new one would have, nothing that another has, and do they end with who wanted them?"""

import gc
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest

from prunus.core.code import new_process
from prunus.scale.dispatch import open_workers

sys.path.insert(0, str(Path(__file__).parent))
from process_jobs import PROGRAM, Facts, is_gone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are spawned on other systems")


def told(shards=2):
    with open_workers(Facts(), workers=2) as opened:
        return [one for _, one in sorted(opened.map(range(shards)))]


def test_forked_processes_have_the_environment_folder_and_path_of_now(monkeypatch, tmp_path):
    first = told()[0]
    monkeypatch.setenv("PRUNUS_TEST_OF_WORKERS", "one")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    second = told()[0]
    monkeypatch.delenv("PRUNUS_TEST_OF_WORKERS")
    third = told()[0]
    assert [one["variable"] for one in (first, second, third)] == [None, "one", None]
    assert second["folder"] == str(tmp_path)
    assert second["path"][0] == str(tmp_path)
    assert first["parent"] == second["parent"] == third["parent"] != os.getpid()  # one server forked them all
    assert {one["safe_path"] for one in (first, second, third)} == {os.environ.get("PYTHONSAFEPATH")}


def test_a_forked_process_leaves_interrupts_to_who_wanted_it():
    assert {one["on_interrupt"] for one in told(8)} == {signal.SIG_IGN}


def test_processes_that_begin_with_one_state_of_chance_draw_otherwise():
    drawn = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        new_process._do(dict(os.environ), lambda: drawn.append(float(np.random.rand())), ())  # noqa: NPY002
    gc.unfreeze()
    assert drawn[0] != drawn[1]


def test_what_a_fork_would_not_see_makes_new_processes(monkeypatch):
    told()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    spawned = told()[0]
    assert spawned["parent"] == os.getpid()
    assert spawned["threads"] == "3"
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(new_process, "_server_began_in", [])
    new_process.import_ahead(["prunus"])
    assert new_process._server_began_in == []


@pytest.mark.nightly
def test_where_the_server_is_lost_its_processes_go_on_and_there_are_others():
    with open_workers(Facts(), workers=2) as opened:
        before = dict(opened.map(range(4)))
        (lost,) = {one["parent"] for one in before.values()}
        os.kill(lost, signal.SIGKILL)
        assert is_gone(lost)
        after = dict(opened.map(range(4)))
    assert {one["process"] for one in after.values()} == {one["process"] for one in before.values()}
    assert lost not in {one["parent"] for one in told()}


@pytest.mark.nightly
def test_a_server_that_cannot_be_asked_costs_nothing_but_time(monkeypatch):
    told()

    def refused(*_):
        raise ConnectionRefusedError

    monkeypatch.setattr(forkserver, "connect_to_new_process", refused)
    assert {one["parent"] for one in told()} == {os.getpid()}


@pytest.mark.nightly
def test_the_server_looks_for_no_module_in_the_folder_of_now(tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit('a folder was trusted')")
    called = "sorted(map_shards(len, ['a', 'bc'], workers=2))"
    program = f"import sys; sys.path.remove(''); from prunus.scale.dispatch import map_shards; print({called})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("[(0, 1), (1, 2)]\n", "")


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_nothing_outlives_who_wanted_it_and_an_interrupt_is_told_once(how, tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    processes = [int(number) for number in run.stdout.readline().split()]
    if how == signal.SIGKILL:
        run.kill()
    else:
        os.killpg(run.pid, how)
    _, said = run.communicate()
    assert len(processes) == 3
    assert all(map(is_gone, processes))
    assert said.count("KeyboardInterrupt") == (how == signal.SIGINT)
