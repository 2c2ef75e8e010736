"""A search whose study is in PostgreSQL or MariaDB is the one of a journal, after kills, too; the password is nowhere."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.nightly

PASSWORD = "S3cret/pw@1"
TREE = {
    "data": {"source": "sklearn:digits", "split": {"validation": 0.2, "calibration": 0.1, "test": 0.2}},
    "model": {"builder": "mlp", "args": {"width": 8, "depth": 2}},
    "train": {"epochs": 10},
    "strategy": {"criterion": "magnitude_l2", "keep_fraction": 0.6},
    "recovery": {"epochs": 1},
    "evaluation": {"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
    "seeds": [0],
    "search": {
        "space": {"strategy.keep_fraction": {"low": 0.3, "high": 0.9}, "recovery.learning_rate": [1e-4, 1e-2]},
        "trials": 10,
        "confirm": {"points": 1, "seeds": 1},
    },
}


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return found.getsockname()[1]


def tool(*names):
    places = [os.environ["PATH"], "/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = [shutil.which(name, path=os.pathsep.join(places)) for name in names]
    if None in found:
        pytest.skip(f"needs {', '.join(names)}")
    return found


def as_user(name):
    """PostgreSQL doesn't start as root."""
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups"] if os.geteuid() == 0 else []


@pytest.fixture
def postgresql(tmp_path):
    initdb, server, createdb = tool("initdb", "postgres", "createdb")
    pytest.importorskip("psycopg")
    folder = Path("/tmp") / f"prunus-postgres-{os.getpid()}"
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    user, port = as_user("postgres"), free_port()
    made = ["-D", folder / "data", "-U", "prunus", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "-N"]
    subprocess.run([*user, initdb, *made], check=True, capture_output=True)
    options = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
    command = [*user, server, "-D", folder / "data", "-p", str(port), *options]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        create = [createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "prunus", "studies"]
        until_it_works(create, {"PGPASSWORD": PASSWORD})
        yield f"postgresql+psycopg://prunus@127.0.0.1:{port}/studies"
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(60)
        shutil.rmtree(folder)


@pytest.fixture
def mysql(tmp_path):
    install, server, client = tool("mariadb-install-db", "mariadbd", "mariadb")
    pytest.importorskip("pymysql")
    folder, port = Path("/tmp") / f"prunus-mariadb-{os.getpid()}", free_port()
    folder.mkdir()
    user = "root" if os.geteuid() == 0 else os.environ["USER"]
    start = ["--no-defaults", f"--user={user}", f"--datadir={folder / 'data'}"]
    subprocess.run([install, *start, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
    options = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder / 's'}", f"--pid-file={folder / 'pid'}"]
    running = subprocess.Popen([server, *start, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        words = "create database studies"
        for host in ("127.0.0.1", "localhost"):
            words += f"; create user prunus@'{host}' identified by '{PASSWORD}'"
            words += f"; grant all on studies.* to prunus@'{host}'"
        until_it_works([client, "--no-defaults", "-S", folder / "s", "-u", "root", "-e", words], {})
        yield f"mysql+pymysql://prunus@127.0.0.1:{port}/studies"
    finally:
        running.terminate()
        running.wait(60)
        shutil.rmtree(folder)


def until_it_works(command, variables):
    for _ in range(300):
        done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError(done.stderr)


def started(recipe, output, *options, **variables):
    command = [sys.executable, "-m", "prunus", "search", recipe, "-o", f"output={output}", "--quiet", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process):
    _, said = process.communicate(timeout=600)
    return process.returncode, said


def n_done(folder):
    return len(list(folder.glob("trials/*/trial.json")))


def found_in(folder):
    facts = json.loads((folder / "search.json").read_text())
    trials = [(trial["number"], trial["values"], trial["state"], trial["quality"]) for trial in facts["trials"]]
    return trials, [row["pruned"] for row in facts["confirmed"]]


@pytest.mark.parametrize("database", ["postgresql", "mysql"])
def test_a_search_by_two_workers_that_is_killed_twice_finds_what_one_process_finds(database, tmp_path, request):
    url = request.getfixturevalue(database)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TREE))
    assert ended(started(recipe, tmp_path / "alone"))[0] == 0
    out, told = tmp_path / "out", ["-o", f"search.storage={url}", "--workers", "2"]
    for again in ([], ["--resume"]):
        process, wanted = started(recipe, out, *told, *again, PRUNUS_STORAGE_PASSWORD=PASSWORD), n_done(out) + 2
        while process.poll() is None and n_done(out) < wanted:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    code, said = ended(started(recipe, out, *told, "--resume", PRUNUS_STORAGE_PASSWORD=PASSWORD))
    assert code == 0, said
    assert found_in(out) == found_in(tmp_path / "alone")
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert PASSWORD.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("database", ["postgresql", "mysql"])
def test_a_database_that_cannot_be_had_is_one_line_without_the_password(database, tmp_path, request):
    url = request.getfixturevalue(database)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TREE))
    start, _, place = url.partition("prunus@")
    host, _, name = place.partition("/")
    wrong = [
        (f"{start}prunus:hunter2@{place}", ("password", "denied")),
        (f"{start}prunus:hunter2@no.such.host.invalid/{name}", ("no.such.host.invalid",)),
        (f"{start}prunus:{PASSWORD.replace('/', '%2F').replace('@', '%40')}@{host}/nowhere", ("nowhere",)),
        (f"{start}prunus:hunter2@127.0.0.1:1/{name}", ("refused",)),
    ]
    for number, (given, words) in enumerate(wrong):
        code, said = ended(started(recipe, tmp_path / str(number), "-o", f"search.storage={given}"))
        assert code == 7, said
        assert said.count("\n") == 1
        assert said.startswith("error: search.storage: can't open the study in ")
        assert any(word in said.lower() for word in words)
        assert "hunter2" not in said
        assert "S3cret" not in said
