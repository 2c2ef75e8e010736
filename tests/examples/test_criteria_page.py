"""The page of criteria says what the registry says."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_of_criteria_is_up_to_date():
    page = runpy.run_path(str(ROOT / "tools" / "write_criteria.py"))["page"]()
    written = (ROOT / "docs" / "reference" / "criteria.md").read_text()
    assert written == page, "write it anew: python tools/write_criteria.py > docs/reference/criteria.md"
