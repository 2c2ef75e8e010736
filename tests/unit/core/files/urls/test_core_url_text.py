"""Which URLs are followed, and is nothing secret ever shown?"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.core.errors import RecipeError
from prunus.core.files.urls.url_path import is_url, path_at
from prunus.core.files.urls.url_text import checked_url, scrubbed

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("simplecache::s3://bucket/a.csv", "chain"),
        ("zip://a.csv::s3://bucket/a.zip", "chain"),
        ("file:///etc/passwd", "file:// is never read as a URL"),
        ("local:///etc/passwd", "local:// is never read as a URL"),
        ("reference://x", "reference:// is never read as a URL"),
        ("ftp://host/a.csv", "ftp:// isn't allowed"),
        ("http://169.254.169.254/latest", "http:// isn't allowed"),
        ("memory://a/b", "memory:// isn't allowed"),
        (f"s3://me:{SECRET}@bucket/a.csv", "expected no user or key"),
        (f"s3://{SECRET}@bucket/a.csv", "expected no user or key"),
        (f"abfs://me:{SECRET}@account/a.csv", "expected no user or key"),
        (f"s3://bucket/a.csv?X-Amz-Signature={SECRET}", "no more: expected none of ? and #"),
        (f"s3://bucket/a.csv#{SECRET}".replace(SECRET, "x"), "no more: expected none of ? and #"),
        ("s3://", "expected a bucket"),
        ("s3:///a.csv", "expected a bucket"),
        ("s3://host:9000/a.csv", "expected a bucket"),
        ("s3://bucket/../other/a.csv", "names between the slashes"),
        ("s3://bucket//a.csv", "names between the slashes"),
        ("s3://bucket/a\x1b[2J.csv", "control characters"),
        ("://x", "expected a URL like"),
    ],
)
def test_what_is_no_plain_place_is_refused_in_one_line_that_shows_no_secret(url, said):
    with pytest.raises(RecipeError, match=r"^[^\n]+$") as caught:
        path_at(url)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_protocol_is_allowed_by_the_user_alone_and_some_never_are(monkeypatch):
    monkeypatch.setenv("PRUNUS_URL_PROTOCOLS", "oss, file")
    assert is_url(path_at("oss://bucket/a.csv"))
    with pytest.raises(RecipeError, match="never"):
        path_at("file:///etc/passwd")


def test_the_path_of_a_url_keeps_its_slashes_through_all_that_paths_can_do():
    path = path_at("s3://bucket/folder/part-0.parquet")
    assert str(path) == "s3://bucket/folder/part-0.parquet"
    assert (path.name, path.stem, path.suffix) == ("part-0.parquet", "part-0", ".parquet")
    assert str(path.parent) == "s3://bucket/folder"
    assert str(path.parent / "x.csv") == str(path.with_name("x.csv")) == "s3://bucket/folder/x.csv"
    assert path.relative_to(path.parent.parent).as_posix() == "folder/part-0.parquet"
    assert str(pickle.loads(pickle.dumps(path))) == str(path)
    assert str(path_at(Path("s3://bucket/a"))) == "s3://bucket/a", "a command line's path has one slash"
    assert all(is_url(one) for one in (path, path.parent, path / "x", path.resolve(), path_at(path)))
    assert checked_url("S3://bucket/a/") == "s3://bucket/a"


@pytest.mark.parametrize("text", ["runs/a", "sklearn:digits", "my.data:make", "C:/x", "s3", "/tmp/a:b"])
def test_other_texts_are_paths_as_before(text):
    assert path_at(text) == Path(text)
    assert type(path_at(text)) is type(Path())


@pytest.mark.parametrize("use", [open, os.stat, os.listdir, lambda path: path.open("wb"), lambda path: path.touch()])
def test_what_needs_a_file_of_the_system_says_so_and_makes_no_folder_called_s3(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="a URL can't stand here"):
        use(path_at("s3://bucket/a"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://host/a?X-Amz-Signature={SECRET}&b=1 failed",
        f"https://me:{SECRET}@host/a",
        f"https://{SECRET}@host/a",
        f"aws_secret_access_key={SECRET}",
        f"url='https://host/a?sig={SECRET}'",
        f"sas_token: {SECRET} is wrong",
    ],
)
def test_what_a_library_says_is_shown_without_its_secrets(text):
    assert SECRET not in scrubbed(text)


def test_nothing_of_fsspec_is_imported_for_paths_of_this_machine(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    code = (
        "import sys\n"
        "from prunus.core.recipes.named_places import check_source\n"
        "from prunus.core.files.plain_files import write_text\n"
        "from pathlib import Path\n"
        f"check_source({str(tmp_path / 'a.csv')!r}); write_text(Path({str(tmp_path / 'b')!r}), 'x')\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('fsspec', 's3fs', 'botocore', 'aiohttp')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
