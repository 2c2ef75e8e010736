"""The house stays tidy: no two files of one name, and no folder that nobody overlooks."""

from collections import Counter
from pathlib import Path

import prunus

SOURCE = Path(prunus.__file__).parent


def test_no_two_files_have_one_name():
    names = Counter(file.stem for file in SOURCE.rglob("*.py") if file.stem not in ("__init__", "__main__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_no_folder_has_more_than_fifteen_files():
    counts = Counter(str(file.parent.relative_to(SOURCE)) for file in SOURCE.rglob("*.py") if file.stem != "__init__")
    assert {folder: count for folder, count in counts.items() if count > 15} == {}


def test_no_file_has_many_more_than_four_hundred_lines():
    """One that passes 400 wants splitting by the question that each part answers; 420 leaves room for the change that notices."""
    sizes = {str(file.relative_to(SOURCE)): len(file.read_text("utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    assert {file: size for file, size in sizes.items() if size > 420} == {}
