"""Run every recipe under examples/ and print the README's table: what was saved, and what it cost, with intervals.

Usage: python benchmarks/examples.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from prunus import load_recipe, run
from prunus.core.recipes.recipe_file import make_recipe
from prunus.report.format import difference, times, value

EXAMPLES = Path(__file__).parent.parent / "examples"


def main() -> None:
    """Print one Markdown row per recipe."""
    sys.path.insert(0, str(EXAMPLES))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| recipe | MACs | bytes on disk | latency | dense | pruned | difference (95 %) | verdict |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in sorted(EXAMPLES.glob("*.yaml")):
        with tempfile.TemporaryDirectory() as folder:
            recipe = load_recipe(path)
            record = run(make_recipe({**recipe.model_dump(mode="json"), "output": f"{folder}/run"}))
        row = record.comparison[0]
        speed = record.timing["latency"]["speedup"]
        cells = [
            path.stem,
            f"{times(record.ratio('macs'))} fewer",
            f"{times(record.ratio('size_bytes'))} fewer",
            f"{times(speed['value'])} ({times(speed['low'])} to {times(speed['high'])})",
            value(row.metric, row.dense),
            value(row.metric, row.pruned),
            difference(row.metric, row.difference),
            row.verdict,
        ]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
