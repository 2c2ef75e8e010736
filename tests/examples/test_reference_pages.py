"""The pages that list what is registered say what the registries say."""

import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
PAGES = runpy.run_path(str(ROOT / "tools" / "write_reference.py"))["PAGES"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_reference_is_up_to_date(name):
    written = (ROOT / "docs" / "reference" / name).read_text()
    assert written == PAGES[name](), "write it anew: python tools/write_reference.py"


def test_every_page_is_in_the_navigation_of_the_site():
    """The strict build of the site says so too, later."""

    def pages(nav):
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from [entry] if isinstance(entry, str) else pages(entry)

    listed = sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert listed == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
