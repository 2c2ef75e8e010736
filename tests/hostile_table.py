"""Which ends did the crafted files come to? ``PYTHONPATH=src:tests python tests/hostile_table.py`` writes the table."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "threat-model.md"
BEGIN, END = "<!-- crafted files: begin -->", "<!-- crafted files: end -->"
ENDS = ("refused", "ran code", "crash", "hang", "internal error", "accepted")
HEAD = f"| loader | crafted files | {' | '.join(ENDS)} |\n|---|{'---:|' * (1 + len(ENDS))}\n"


def row(loader: str, ends: Counter[str]) -> str:
    """Return a loader's line of the table; noise and more than one line count as internal errors."""
    shown = Counter({end: ends[end] for end in ENDS}) + Counter(
        {"internal error": ends["noise"] + ends["more than one line"]}
    )
    return f"| {loader} | {sum(ends.values())} | {' | '.join(str(shown[end]) for end in ENDS)} |\n"


def main() -> None:
    """Run every case and write the table."""
    from hostile_cases import CASES, LOADERS, copy, honest
    from hostile_child import outcome_of

    with tempfile.TemporaryDirectory() as place:
        honest(Path(place) / "honest")
        rows = []
        for loader, cases in CASES.items():
            ends: Counter[str] = Counter()
            for number, prepare in enumerate(cases.values()):
                folder = Path(place) / f"{loader.replace(' ', '-')}-{number}"
                copy(Path(place) / "honest", folder)
                prepare(folder)
                ends[outcome_of(LOADERS[loader], folder).what] += 1
            rows.append(row(loader, ends))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + HEAD + "".join(rows) + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
