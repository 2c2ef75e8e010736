"""Is a folder at a URL never half of what it says it is?"""

import json

import pytest

from prunus.core.errors import DataError, OutputError, RecipeError
from prunus.core.files.plain_files import atomic_folder
from prunus.core.files.sealed import sealed_tree
from prunus.core.files.urls import store as asked
from prunus.core.files.urls.copies import fetch_folder, send_folder
from prunus.core.files.urls.url_path import path_at
from prunus.pipeline.commands.copy_run import open_copy


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asked, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)


@pytest.fixture
def run(tmp_path):
    """A folder like a finished run's."""
    folder = tmp_path / "run"
    (folder / "bundle").mkdir(parents=True)
    for name in ("record.json", "recipe.yaml", "bundle/manifest.json", "bundle/model.safetensors"):
        (folder / name).write_text(f"this is {name}")
    (folder / ".lock").touch()
    (folder / ".work").mkdir()
    (folder / ".work" / "x").touch()
    return folder


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def held(store, bucket):
    return {key.removeprefix("runs/a/"): store.get(bucket, key) for key in store.keys(bucket) if "/." not in key}


def test_what_is_sent_comes_back_and_hidden_files_stay(run, store, bucket, tmp_path):
    send_folder(run, f"s3://{bucket}/runs/a", last=("record.json",))
    assert held(store, bucket) == content(run)
    fetch_folder(f"s3://{bucket}/runs/a", tmp_path / "back")
    assert content(tmp_path / "back") == content(run)


def test_what_says_that_the_rest_is_there_is_sent_last_and_goes_first(run, store, bucket):
    open_copy(f"s3://{bucket}/runs/a").send(run)
    puts = [
        path for method, path, _ in store.requests if method == "PUT" and "/runs/a/" in path and "copied" not in path
    ]
    assert [path.rpartition("/runs/a/")[2] for path in puts][-2:] == ["bundle/manifest.json", "record.json"]
    (run / "record.json").write_text("another run")
    (run / "bundle" / "model.safetensors").write_text("other weights")
    (run / "recipe.yaml").unlink()
    n = len(store.requests)
    open_copy(f"s3://{bucket}/runs/a", overwrite=True).send(run, overwrite=True)
    changes = [
        (method, path.rpartition("/runs/a/")[2])
        for method, path, _ in store.requests[n:]
        if method in ("PUT", "DELETE") and "copied" not in path
    ]
    assert changes[0][0] == changes[1][0] == "DELETE"
    assert {changes[0][1], changes[1][1]} == {"record.json", "bundle/manifest.json"}
    assert changes[-1] == ("PUT", "record.json")
    assert held(store, bucket) == content(run)


@pytest.mark.parametrize("n_before", range(1, 9))
def test_a_copy_that_is_stopped_anywhere_is_no_run_until_it_was_gone_on_with(run, store, bucket, n_before):
    n_puts = [0]

    def stop(method, path):
        if method == "PUT" and "/runs/a/" in path:
            n_puts[0] += 1
            return "deny" if n_puts[0] > n_before else None
        return None

    with store.faults(stop), pytest.raises(OutputError, match="may not write it"):
        open_copy(f"s3://{bucket}/runs/a").send(run)
    sent = held(store, bucket)
    assert "record.json" not in sent or sent == content(run)
    assert "bundle/manifest.json" not in sent or "bundle/model.safetensors" in sent
    n = len(store.requests)
    open_copy(f"s3://{bucket}/runs/a").send(run)
    assert held(store, bucket) == content(run)
    again = sum(method == "PUT" and "copied" not in path for method, path, _ in store.requests[n:])
    assert again <= len(content(run)) - max(n_before - 2, 0) // 2 + 1, "and what says that the rest is there"


@pytest.mark.parametrize("n_before", range(4))
def test_a_copy_that_is_stopped_while_it_takes_away_vouches_for_nothing_that_is_gone(run, store, bucket, n_before):
    (run / "sizes").mkdir()
    (run / "sizes" / "manifest.json").write_text("this is no longer there next time")
    open_copy(f"s3://{bucket}/runs/a").send(run)
    (run / "sizes" / "manifest.json").unlink()
    (run / "recipe.yaml").unlink()
    (run / "record.json").write_text("another run")
    n_deletes = [0]

    def stop(method, path):
        n_deletes[0] += method == "DELETE"
        return "deny" if method == "DELETE" and n_deletes[0] > n_before else None

    n = len(store.requests)
    with store.faults(stop), pytest.raises(OutputError, match="may not write it"):
        open_copy(f"s3://{bucket}/runs/a", overwrite=True).send(run, overwrite=True)
    gone = {path.rpartition("/runs/a/")[2] for method, path, status in store.requests[n:] if method == "DELETE"} - held(
        store, bucket
    ).keys()
    assert len(gone) == n_before
    assert "record.json" in gone or not gone
    assert "recipe.yaml" not in gone
    n = len(store.requests)
    open_copy(f"s3://{bucket}/runs/a", overwrite=True).send(run, overwrite=True)
    assert held(store, bucket) == content(run)
    deleted = [path for method, path, _ in store.requests[n:] if method == "DELETE"]
    assert len(deleted) == len(set(deleted)) == 4 - n_before


def test_a_copy_that_is_there_is_not_sent_again_and_another_run_is_not_replaced(run, store, bucket):
    assert open_copy(f"s3://{bucket}/runs/a").send(run) == 4
    assert open_copy(f"s3://{bucket}/runs/a").send(run) == 0
    (run / "record.json").write_text("another run")
    with pytest.raises(OutputError, match="holds another run: add --overwrite"):
        open_copy(f"s3://{bucket}/runs/a").send(run)
    store.put(bucket, "other/x", b"x")
    with pytest.raises(OutputError, match=r"isn't empty \(x\)"):
        open_copy(f"s3://{bucket}/other")


def test_who_may_not_write_learns_that_before_the_run(store, bucket):
    with (
        store.faults(lambda method, path: "deny" if method == "PUT" else None),
        pytest.raises(OutputError, match="denied"),
    ):
        open_copy(f"s3://{bucket}/runs/a")
    with pytest.raises(RecipeError, match="expected a URL"):
        open_copy("runs/a")


def test_a_state_that_was_changed_is_refused(run, store, bucket):
    open_copy(f"s3://{bucket}/runs/a").send(run)
    tree = json.loads(store.get(bucket, "runs/a/.prunus-copied.json"))
    tree["done"]["record.json"]["size"] = 1
    store.put(bucket, "runs/a/.prunus-copied.json", json.dumps(tree).encode())
    with pytest.raises(OutputError, match="this state is damaged or was changed"):
        open_copy(f"s3://{bucket}/runs/a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 9999,
        *(
            json.dumps(sealed_tree(tree)).encode()
            for tree in ({}, {"done": 1}, {"done": []}, {"done": {"record.json": 1}}, {"done": {"x": [1]}})
        ),
    ],
    ids=lambda content: content[:40].decode("latin-1"),
)
def test_a_state_that_is_none_is_one_line(content, store, bucket):
    store.put(bucket, "runs/a/.prunus-copied.json", content)
    with pytest.raises(OutputError, match="this state is damaged or was changed; empty s3://"):
        open_copy(f"s3://{bucket}/runs/a")


def test_a_folder_that_is_replaced_in_one_step_here_has_its_manifest_last_there(store, bucket):
    for text in ("one", "two"):
        with atomic_folder(path_at(f"s3://{bucket}/b")) as folder:
            (folder / "manifest.json").write_text(text)
            (folder / "model.safetensors").write_text(text)
    assert store.get(bucket, "b/manifest.json") == b"two"
    changes = [(method, path) for method, path, _ in store.requests if method in ("PUT", "DELETE") and "/b/" in path]
    assert [path.rpartition("/")[2] for _, path in changes[-3:]] == [
        "manifest.json",
        "model.safetensors",
        "manifest.json",
    ]
    assert changes[-3][0] == "DELETE"


@pytest.mark.parametrize("key", ["b/../../x", "b/a\\b", "b/a\x1b"])
def test_an_object_whose_name_no_file_may_have_is_refused(store, bucket, tmp_path, key, monkeypatch):
    monkeypatch.setattr(
        "prunus.core.files.urls.store.tree", lambda url: {key.removeprefix("b/"): asked.Facts(False, 1, "v")}
    )
    with pytest.raises(DataError, match="can't be a file's name"):
        fetch_folder(f"s3://{bucket}/b", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_disk_without_room_is_said_before_anything_is_fetched(run, store, bucket, tmp_path, monkeypatch):
    send_folder(run, f"s3://{bucket}/runs/a", last=("record.json",))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Use", (), {"free": 3}))
    with pytest.raises(OutputError, match="set TMPDIR to a larger disk"):
        fetch_folder(f"s3://{bucket}/runs/a", tmp_path / "back")
