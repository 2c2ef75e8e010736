"""A name is suggested where it is nearly the one that was given, not where both are merely files of one kind."""

import pytest

from prunus.core.files.near_paths import near_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("trian.parquet", "train.parquet"),
        ("train.parquett", "train.parquet"),
        ("Train.parquet", "train.parquet"),
        ("x.parquet", ""),
        ("houses.parquet", ""),
        ("b.parquet", ""),
    ],
)
def test_what_is_suggested_is_like_the_name_and_not_only_like_its_ending(given, meant, tmp_path):
    for name in ("train.parquet", "a.parquet", "labels.parquet"):
        (tmp_path / name).write_text("")
    hint = near_path(tmp_path / given)
    assert hint == (f"did you mean {meant!r}?" if meant else "")
