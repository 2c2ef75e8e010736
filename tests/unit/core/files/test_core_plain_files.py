"""A write is whole or it isn't there."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from patience import PATIENCE_S
from prunus.core.errors import OutputError
from prunus.core.files.file_hash import sha256_file
from prunus.core.files.plain_files import (
    atomic_folder,
    atomic_path,
    clear_leftovers,
    folder_lock,
    write_json,
    write_text,
)
from prunus.core.tensors import save_tensors


def test_a_write_that_fails_leaves_the_old_file_and_no_debris(tmp_path: Path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_clear_line_and_the_old_folder_stays(tmp_path: Path):
    target = tmp_path / "bundle"
    with atomic_folder(target) as temporary:
        (temporary / "x").write_text("old")
    with pytest.raises(OutputError, match="no space left"), atomic_folder(target) as temporary:
        (temporary / "x").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (target / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_is_replaced_whole(tmp_path: Path):
    target = tmp_path / "bundle"
    for names in (("a", "b"), ("c",)):
        with atomic_folder(target) as temporary:
            for name in names:
                (temporary / name).write_text(name)
    assert sorted(p.name for p in target.iterdir()) == ["c"]


def test_json_refuses_what_json_cannot_say(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_sha256_is_the_digest_of_the_bytes(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def _hold(folder: Path, ready, leave) -> None:
    with folder_lock(folder):
        ready.set()
        leave.wait(PATIENCE_S)


def test_a_second_run_in_the_same_folder_is_refused_and_the_lock_goes_with_its_process(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, leave))
    other.start()
    assert ready.wait(PATIENCE_S)
    with pytest.raises(OutputError, match="another run is writing"), folder_lock(tmp_path):
        pass
    other.kill()
    other.join()
    with folder_lock(tmp_path):
        pass


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_are_what_the_umask_says(tmp_path: Path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "b") as temporary:
            save_tensors({"w": torch.ones(2)}, temporary / "w.safetensors")
        with atomic_path(tmp_path / "c") as path:
            save_tensors({"w": torch.ones(2)}, path)
        with folder_lock(tmp_path / "run"):
            pass
    finally:
        os.umask(before)
    for name in ("a.txt", "b/w.safetensors", "c", "run/.lock"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask, name
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_lock_that_is_a_link_or_a_pipe_is_refused_and_its_target_stays(tmp_path: Path):
    (tmp_path / "precious").write_text("all that I have")
    for number, make in enumerate((lambda p: p.symlink_to(tmp_path / "precious"), os.mkfifo, Path.mkdir)):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        make(folder / ".lock")
        with pytest.raises(OutputError, match=r"can't lock .*\.lock is no plain file"), folder_lock(folder):
            pass
    assert (tmp_path / "precious").read_text() == "all that I have"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("kept")
    with folder_lock(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text() == "kept", "a lock is held, not written"


def test_what_a_killed_process_left_half_written_goes_and_what_it_moved_aside_comes_back(tmp_path: Path):
    (tmp_path / ".recipe.yaml.k3_x9abc.part").write_text("half")
    (tmp_path / ".plan.0123abcd.part").mkdir()
    (tmp_path / ".bundle.0123abcd.old" / "old").mkdir(parents=True)
    (tmp_path / ".bundle.0123abcd.old" / "old" / "x").write_text("whole")
    (tmp_path / "outside").mkdir()
    (tmp_path / ".plan.89abcdef.old").symlink_to(tmp_path / "outside")
    for mine in (".notes.part", ".a.b.part", "x.12345678.part", ".my.TMP45678.part"):
        (tmp_path / mine).write_text("the user's own")
    (tmp_path / ".theirs.0123abcd.part").write_text("of another program")
    clear_leftovers(tmp_path, ("recipe.yaml", "plan", "bundle"))
    left = {path.name for path in tmp_path.iterdir()} - {"outside", "bundle"}
    assert left == {".notes.part", ".a.b.part", "x.12345678.part", ".my.TMP45678.part", ".theirs.0123abcd.part"}
    assert (tmp_path / "bundle" / "x").read_text() == "whole"


def test_a_process_that_was_killed_while_it_wrote_leaves_what_is_recognised(tmp_path: Path):
    code = "import os, sys; from pathlib import Path; from prunus.core.files.plain_files import atomic_path, atomic_folder\n"
    code += "with atomic_path(Path('r/x.json')), atomic_folder(Path('r/bundle')): os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == -9
    assert len(list((tmp_path / "r").iterdir())) == 2
    clear_leftovers(tmp_path / "r")
    assert not list((tmp_path / "r").iterdir())
