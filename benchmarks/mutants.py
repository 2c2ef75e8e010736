"""Would the tests notice? Change the code in one place at a time, run its tests, and count the changes that nothing fails on.

Usage: python benchmarks/mutants.py [--packages score select evaluate graph/rules] [--sample 200] [--seed 0] [--out FILE]

The changes are cosmic-ray's (``pip install cosmic-ray``): another operator, comparison, number, condition, a loop that never runs,
and so on. What stands in an annotation isn't changed, since nothing reads it. Places are drawn at random, one change for each, so
that a place with many possible changes counts no more than others. Each change has a process of its own, forked from one that has
torch imported already; the tests are the unit and property tests of the package, the module's own first. A second start goes on.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.abc
import importlib.machinery
import io
import json
import math
import multiprocessing
import os
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE, TESTS = ROOT / "src" / "prunus", ROOT / "tests"
PACKAGES = ("score", "select", "evaluate", "graph/rules")
SECONDS = 240
UNLIKELY = ("core/RemoveDecorator", "core/VariableReplacer", "core/VariableInserter")


def main() -> None:
    """Parse, run what is missing, and print the table and the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--sample", type=int, default=200, help="changes for each package")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/mutants.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = {row["change"]: row for row in rows_of(arguments.out)}
    warm_up()
    for package in arguments.packages:
        assert run_tests(package, None, "")[0] == "survived", f"the tests of {package} fail without a change"
        places = list(mutations(package))
        draw = random.Random(f"{arguments.seed}/{package}")
        for module, place in draw.sample(places, min(arguments.sample, len(places))):
            operator, occurrence, line, mutated = one_of(module, place, draw)
            change = f"{module.relative_to(SOURCE)}:{line} {operator} {occurrence}"
            if change in done:
                continue
            outcome, seconds = run_tests(package, module, mutated)
            row = {"package": package, "change": change, "places": len(places), "outcome": outcome, "seconds": seconds}
            row["diff"] = difference(module.read_text(), mutated)
            with arguments.out.open("a") as out:
                out.write(json.dumps(row) + "\n")
            print(f"{outcome:9s} {seconds:6.1f} s  {change}", flush=True)
    print_table([row for row in rows_of(arguments.out) if row["package"] in arguments.packages])


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return what was run already."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warm_up() -> None:
    """Import what no change touches, once for all."""
    import numpy
    import pytest
    import scipy.stats
    import sklearn.metrics
    import torch
    import torchmetrics

    assert all((numpy, pytest, scipy, sklearn, torchmetrics))
    torch.set_num_threads(1)
    assert not any(name.partition(".")[0] == "prunus" for name in sys.modules)


def mutations(package: str) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield every place of a package's code that can be changed: its module, line and column."""
    for module in sorted((SOURCE / package).glob("*.py")):
        if module.name != "__init__.py":
            yield from ((module, place) for place in sorted(changes(module)))


_CHANGES: dict[Path, dict[tuple[int, int], list[tuple[str, int]]]] = {}


def changes(module: Path) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Return the possible changes of a module: operator and occurrence, by place."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast_from_path

    if module in _CHANGES:
        return _CHANGES[module]
    text = module.read_text()
    spared = annotations(text)
    found: dict[tuple[int, int], list[tuple[str, int]]] = {}
    tree = get_ast_from_path(module)
    for name in plugins.operator_names():
        if name in UNLIKELY:
            continue
        operator, occurrence = plugins.get_operator(name)(), 0
        for node in ast_nodes(tree):
            for (line, column), _ in operator.mutation_positions(node):
                if not any(first <= (line, column) < last for first, last in spared):
                    found.setdefault((line, column), []).append((name, occurrence))
                occurrence += 1
    return _CHANGES.setdefault(module, found)


def annotations(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where annotations stand, and what only a type checker runs."""
    spans: list[Any] = []
    for node in ast.walk(ast.parse(text)):
        parts = (getattr(node, "annotation", None), getattr(node, "returns", None))
        spans += [part for part in parts if part is not None]
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            spans.append(node)
        typed = isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
        if typed and re.match(r"(Callable|Literal|Mapping)\b", ast.unparse(node.value)):
            spans.append(node)
    return [((p.lineno, p.col_offset), (p.end_lineno or 0, p.end_col_offset or 0)) for p in spans]


def one_of(module: Path, place: tuple[int, int], draw: random.Random) -> tuple[str, int, int, str]:
    """Return one change at a place: operator, occurrence, line, and the changed code."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    name, occurrence = draw.choice(changes(module)[place])
    mutated = mutate_code(module.read_text(), plugins.get_operator(name)(), occurrence)
    assert mutated is not None
    return name, occurrence, place[0], mutated


def run_tests(package: str, module: Path | None, mutated: str) -> tuple[str, float]:
    """Return whether the change was caught, survived or took too long, and the seconds."""
    start = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=_child, args=(package, module, mutated))
    process.start()
    process.join(SECONDS)
    outcome = "timeout" if process.is_alive() else "survived" if process.exitcode == 0 else "caught"
    process.kill()
    process.join()
    return outcome, round(time.perf_counter() - start, 1)


def _child(package: str, module: Path | None, mutated: str) -> None:
    import pytest

    os.chdir(ROOT)
    sys.path[:0] = [str(SOURCE.parent), str(TESTS)]
    if module is not None:
        name = ".".join(module.relative_to(SOURCE.parent).with_suffix("").parts)
        sys.meta_path.insert(0, Changed(name, module, mutated))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    with contextlib.redirect_stdout(io.StringIO()):
        code = pytest.main(
            [
                "-x",
                "-n",
                "0",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:randomly",
                "--assert=plain",
                *tests_of(package, module),
            ]
        )
    os._exit(int(code))


def tests_of(package: str, module: Path | None) -> list[str]:
    """Return the tests of a package, those that are named after the module first, with its doctests."""
    folder = package.partition("/")[0]
    files = [
        *sorted((TESTS / "unit" / folder).glob("test_*.py")),
        *sorted((TESTS / "property").glob(f"test_{folder}_*.py")),
    ]
    if module is None:
        return [str(file) for file in files]
    stem = module.stem.rstrip("s")
    return [str(module), *(str(file) for file in sorted(files, key=lambda file: stem not in file.name))]


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module from changed code instead of from its file."""

    def __init__(self, name: str, path: Path, code: str) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Answer for the changed module alone."""
        if name != self.name:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(self.path))

    def exec_module(self, module: Any) -> None:
        """Run the changed code."""
        module.__file__ = str(self.path)
        exec(compile(self.code, str(self.path), "exec"), vars(module))


def difference(before: str, after: str) -> str:
    """Return the lines that differ."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next((f"{one.strip()}  ->  {other.strip()}" for one, other in pairs if one != other), "")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the share that was caught, with Wilson's interval, and every change that survived."""
    print("| package | places | changed | caught | share (95 %) |\n| --- | --- | --- | --- | --- |")
    for package in (*dict.fromkeys(row["package"] for row in rows), "all"):
        mine = [row for row in rows if package in (row["package"], "all")]
        caught, n = sum(row["outcome"] != "survived" for row in mine), len(mine)
        places = mine[0]["places"] if package != "all" else ""
        low, high = wilson(caught, n)
        print(f"| {package} | {places} | {n} | {caught} | {caught / n:.1%} ({low:.1%} to {high:.1%}) |")
    print("\n| survived | change |\n| --- | --- |")
    for row in rows:
        if row["outcome"] == "survived":
            print(f"| `{row['change']}` | `{row['diff'].replace('|', chr(92) + '|')}` |")


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    middle, half = (hits + z * z / 2) / (n + z * z), z * math.sqrt(hits * (n - hits) / n + z * z / 4) / (n + z * z)
    return middle - half, middle + half


if __name__ == "__main__":
    main()
