"""How far is what ``prunus estimate`` says from what a run takes?

Usage: python benchmarks/estimate.py [--rows 1000000 10000000] [--sample 200000] [--folder FOLDER]

The recipe and the files are those of ``larger_than_memory.py``, rows from disk. The estimate is made once for each number of rows,
from runs on the sample and on half of it; then the run itself is measured by the same means, each stage. Processor seconds stand
beside the clock, which also counts what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from larger_than_memory import recipe_of, write

from prunus.core.recipes.recipe import Recipe
from prunus.pipeline.planner.estimate_run import Estimate, estimate

AMOUNTS = {"seconds": "s", "cpu_seconds": "s", "peak_bytes": "MB"}


def main() -> None:
    """Print what was said and what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--sample", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for rows in arguments.rows:
            path = write(folder, rows)
            recipe = Recipe.model_validate(recipe_of(path, folder, in_memory=False))
            said = estimate(recipe, rows, sample_rows=arguments.sample, repeats=arguments.repeats)
            took = measured(recipe, folder)
            print(f"\n{rows:,} rows, estimated from {arguments.sample:,}\n")
            print("| stage | amount | estimated | range | measured | estimated / measured |")
            print("| --- | --- | --- | --- | --- | --- |")
            show(said, took)


def measured(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Return what the stages of the run take, converting included."""
    subprocess.run(["rm", "-rf", str(folder / "cache"), str(folder / "run")], check=True)
    told, facts = folder / "recipe.json", folder / "facts.json"
    told.write_text(recipe.model_dump_json())
    command = [sys.executable, "-m", "prunus.pipeline.planner.measured_run", str(told), str(facts)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(facts.read_text())["stages"]
    return found


def show(said: Estimate, took: dict[str, Any]) -> None:
    """Print a row for each stage and amount, and for the whole."""
    for stage in said.stages:
        for amount, unit in AMOUNTS.items():
            line(stage.name, amount, unit, getattr(stage, amount), took.get(stage.name, {}).get(amount, 0.0))
    for amount, unit in AMOUNTS.items():
        values = [stage[amount] for stage in took.values()]
        whole = max(values) if amount == "peak_bytes" else sum(values)
        line("**whole**", amount, unit, getattr(said, amount), whole)


def line(name: str, amount: str, unit: str, said: Any, took: float) -> None:
    """Print one row."""
    scale = 1e-6 if unit == "MB" else 1.0
    value, low, high, real = (number * scale for number in (said.value, said.low, said.high, took))
    ratio = f"{value / real:.2f}" if real else "-"
    print(
        f"| {name} | {amount} | {value:.1f} {unit} | {low:.1f} to {high:.1f} | {real:.1f} {unit} | {ratio} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
