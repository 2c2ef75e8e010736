"""The pages that list what is registered say what the registries say."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = runpy.run_path(str(ROOT / "tools" / "write_reference.py"))["PAGES"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_reference_is_up_to_date(name):
    written = (ROOT / "docs" / "reference" / name).read_text()
    assert written == PAGES[name](), "write it anew: python tools/write_reference.py"
