"""A write is whole or it isn't there."""

import errno
import multiprocessing
from pathlib import Path

import pytest

from prunus.core.errors import OutputError
from prunus.core.files import atomic_folder, atomic_path, folder_lock, sha256_file, write_json, write_text


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
        leave.wait(30)


def test_a_second_run_in_the_same_folder_is_refused_and_the_lock_goes_with_its_process(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, leave))
    other.start()
    assert ready.wait(30)
    with pytest.raises(OutputError, match="another run is writing"), folder_lock(tmp_path):
        pass
    other.kill()
    other.join()
    with folder_lock(tmp_path):
        pass
