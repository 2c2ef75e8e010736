"""What does an object store's refusal, or a connection that breaks, become?"""

import pytest

from prunus.core.errors import DataError, MissingExtraError, OutputError, RunError
from prunus.core.files.plain_files import atomic_path, write_text
from prunus.core.files.urls import store as asked
from prunus.core.files.urls.url_path import matching, path_at, pinned

CONTENT = bytes(range(256)) * 4096


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(asked, "_PAUSES_SECONDS", (0.0, 0.0))
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)


@pytest.fixture
def url(store, bucket):
    store.put(bucket, "in/a.bin", CONTENT)
    return f"s3://{bucket}/in/a.bin"


def test_any_span_of_an_object_reads_as_of_a_file(url, store):
    path = path_at(url)
    with path.open("rb") as file:
        for start, n in [(0, 10), (10, 5), (500_000, 300_000), (len(CONTENT) - 5, 50), (0, -1), (7, 0)]:
            file.seek(start)
            assert file.read(n) == (CONTENT[start:] if n < 0 else CONTENT[start : start + n])
    assert path.read_bytes() == CONTENT
    assert (path.exists(), path.is_file(), path.is_dir(), path.stat().st_size) == (True, True, False, len(CONTENT))
    assert path.parent.is_dir()
    assert [str(child) for child in path.parent.iterdir()] == [url]
    assert not path_at(url + "x").exists()


def test_little_is_fetched_where_little_is_read(url, store):
    before = store.bytes_sent
    with path_at(url).open("rb") as file:
        file.seek(200_000)
        file.read(100)
    assert store.bytes_sent - before <= 1 << 17


def test_planned_ranges_are_fetched_once_together_and_what_lies_between_far_ones_is_not(store, bucket):
    content = CONTENT * 4
    store.put(bucket, "b.bin", content)
    groups = [[(0, 1000), (1500, 3000), (1_000_000, 2_500_000)], [(3_000_000, 3_100_000)]]
    before, n = store.bytes_sent, len(store.requests)
    with path_at(f"s3://{bucket}/b.bin").open("rb") as file:
        file.plan(groups)
        for start, stop in [span for group in groups for span in group]:
            file.seek(start)
            assert file.read(stop - start) == content[start:stop]
    assert store.bytes_sent - before == 3000 + 1_500_000 + 100_000
    assert sum(method == "GET" for method, *_ in store.requests[n:]) == 3


def test_each_refusal_is_one_line_that_says_what_to_do(url, store, bucket):
    def said(url, error=DataError):
        with pytest.raises(error, match=r"^[^\n]+$") as caught:
            path_at(url).read_bytes()
        return str(caught.value)

    assert "there is no bucket 'no-such-bucket'" in said("s3://no-such-bucket/a.bin")
    assert "there is no such object" in said(url + "x")
    with store.faults(lambda method, path: "deny" if method == "GET" and path.endswith(".bin") else None):
        assert [child.name for child in path_at(url).parent.iterdir()] == ["a.bin"]
        assert f"{url}: access denied, these credentials may not read it" in said(url)


def test_without_credentials_it_says_how_they_are_given(url, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(asked, "_connections", {})
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"no credentials were found; set AWS_ACCESS_KEY_ID .*FSSPEC_S3_ANON=1"):
        path_at(url).read_bytes()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_read_that_breaks_is_tried_again_and_named_where_it_always_does(url, store):
    broken = []

    def twice(method, path):
        if method == "GET" and path.endswith("a.bin"):
            broken.append(path)
            return "break" if len(broken) <= 2 else None
        return None

    with store.faults(twice):
        assert path_at(url).read_bytes() == CONTENT
    assert len(broken) == 3
    with (
        store.faults(lambda method, path: "break" if method == "GET" else None),
        pytest.raises(RunError, match=r"a\.bin: the connection to the store broke, 3 times"),
    ):
        path_at(url).read_bytes()


def test_an_object_that_is_written_anew_while_it_is_read_is_noticed(url, store, bucket):
    with path_at(url).open("rb") as file:
        file.read(10)
        store.put(bucket, "in/a.bin", CONTENT[::-1])
        file.seek(900_000)
        with pytest.raises(DataError, match="changed while it was read"):
            file.read(100)


def test_an_object_that_changed_since_it_was_listed_is_noticed(url, store, bucket):
    (listed,) = path_at(url).parent.iterdir()
    held = pinned(path_at(url))
    store.put(bucket, "in/a.bin", CONTENT[::-1])
    for path in (listed, held):
        with pytest.raises(DataError, match="changed since it was listed"):
            path.open("rb")


def test_a_pattern_stands_for_the_objects_of_such_names(store, bucket):
    for name in ("a.csv", "b.csv", "c.txt"):
        store.put(bucket, f"in/{name}", b"x\n1\n")
    found = matching(path_at(f"s3://{bucket}/in/*.csv"))
    assert [path.name for path in found] == ["a.csv", "b.csv"]
    with pytest.raises(DataError, match="no object there has such a name"):
        matching(path_at(f"s3://{bucket}/in/*.parquet"))


def test_what_is_written_appears_whole_or_not_at_all(store, bucket):
    path = path_at(f"s3://{bucket}/out/a.txt")
    with pytest.raises(ValueError, match="planted"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError("planted")
    assert store.keys(bucket) == []
    write_text(path, "whole")
    assert store.get(bucket, "out/a.txt") == b"whole"
    with (
        store.faults(lambda method, path: "deny" if method == "PUT" else None),
        pytest.raises(OutputError, match="access denied, these credentials may not write it"),
    ):
        write_text(path, "other")
    assert store.get(bucket, "out/a.txt") == b"whole"
    with pytest.raises(OutputError, match="there is no bucket 'no-such-bucket'"):
        write_text(path_at("s3://no-such-bucket/a.txt"), "x")


@pytest.mark.parametrize(
    ("url", "extra"), [("gs://bucket/a", "gcs"), ("abfs://c@account/a", "azure"), ("s3a://b/a", "s3")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(url, extra, monkeypatch):
    import sys

    monkeypatch.setattr(asked, "_connections", {})
    for name in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'prunus\[{extra}\]'"):
        path_at(url).exists()
