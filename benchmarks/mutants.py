"""Would the tests notice? Change the code in one place at a time, run its tests, and count the changes that nothing fails on.

Usage: python benchmarks/mutants.py [--packages score select evaluate tasks graph/rules] [--sample 200] [--seed 0] [--out FILE]
       python benchmarks/mutants.py --again FILE [--out FILE2]      # those that survived, on the tests of today

The changes are cosmic-ray's (``pip install cosmic-ray coverage``): another operator, comparison, number, condition, a loop that
never runs, and so on. What stands in an annotation isn't changed, since nothing reads it, nor the bare star of a signature,
which the tester takes for a product; and what wouldn't be Python any more is no change. Places are drawn at random, one
change for each, so that a place with many possible changes counts no more than others. Each change has a process of its own,
forked from one that has torch imported already. A first run without a change notes which statements each test runs and how long
it takes; a change is then tried on the tests that run its statement, quick ones first, for ``--seconds`` of processor time at
most. A second start goes on.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib.abc
import importlib.machinery
import io
import itertools
import json
import math
import multiprocessing
import os
import random
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SOURCE, TESTS = ROOT / "src" / "prunus", ROOT / "tests"
PACKAGES = ("score", "select", "evaluate", "tasks", "graph/rules")
BESIDE = {
    "evaluate": ("unit/tasks", "property/test_task_laws.py"),
    "tasks": ("unit/evaluate", "property/test_task_laws.py", "property/test_evaluate_laws.py"),
}
"""Which tests are a package's, too: each kind of task is tested partly with the tasks, partly where they are measured."""
HANGS = 60
"""So many times its processor seconds a change may take by the clock: on a busy machine, less would call it caught."""
UNLIKELY = ("core/RemoveDecorator", "core/VariableReplacer", "core/VariableInserter")


def main() -> None:
    """Parse, run what is missing, and print the table and the survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packages", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--sample", type=int, default=200, help="changes for each package")
    parser.add_argument("--seconds", type=float, default=30, help="processor time of the tests for one change")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--again", type=Path, help="try the survivors of this file again, found by the line before the change"
    )
    parser.add_argument("--out", type=Path, default=Path("build/mutants.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    warm_up()
    for package in arguments.packages:
        done = {row["change"] for row in rows_of(arguments.out)}
        drawn = survivors(package, arguments.again) if arguments.again else draw_from(package, arguments)
        drawn = [change for change in drawn if change.name not in done]
        tests = watch(package) if drawn else {}
        for change in drawn:
            outcome, seconds, n_tests = run_tests(package, change, tests, arguments.seconds)
            row = {"package": package, "change": change.name, "places": change.places, "outcome": outcome}
            row |= {"seconds": seconds, "tests": n_tests, "diff": difference(change.module.read_text(), change.code)}
            with arguments.out.open("a") as out:
                out.write(json.dumps(row) + "\n")
            print(f"{outcome:9s} {seconds:6.1f} s {n_tests:4d} tests  {change.name}", flush=True)
    print_table([row for row in rows_of(arguments.out) if row["package"] in arguments.packages])


@dataclass(frozen=True)
class Change:
    """One changed module."""

    module: Path
    line: int
    operator: str
    code: str
    places: int

    @property
    def name(self) -> str:
        """Return what tells it from others."""
        return f"{self.module.relative_to(SOURCE)}:{self.line} {self.operator}"


def draw_from(package: str, arguments: argparse.Namespace) -> list[Change]:
    """Return changes at places drawn at random."""
    places = list(mutations(package))
    draw = random.Random(f"{arguments.seed}/{package}")
    drawn = (one_of(module, place, draw, len(places)) for module, place in draw.sample(places, len(places)))
    return list(itertools.islice((change for change in drawn if change is not None), arguments.sample))


def survivors(package: str, path: Path) -> list[Change]:
    """Return the changes that survived an earlier run and whose line is still there."""
    found = []
    for row in rows_of(path):
        if row["package"] != package or row["outcome"] != "survived":
            continue
        name, _, operator = row["change"].partition(" ")
        module, _, line = name.rpartition(":")
        before, _, after = row["diff"].partition("  ->  ")
        lines = (SOURCE / module).read_text().splitlines()
        same = [i for i, text in enumerate(lines) if text.strip() == before]
        if same:
            at = min(same, key=lambda i: abs(i + 1 - int(line)))
            lines[at] = lines[at].replace(before, after)
            found.append(Change(SOURCE / module, int(line), operator, "\n".join(lines) + "\n", row["places"]))
        else:
            print(f"moved      {row['change']}")
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return what was run already."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warm_up() -> None:
    """Import what no change touches, once for all."""
    import numpy
    import pytest
    import scipy.stats
    import sklearn.metrics
    import torch._dynamo
    import torchmetrics

    assert all((numpy, pytest, scipy, sklearn, torchmetrics))
    torch.set_num_threads(1)
    gc.freeze()  # what is imported is not looked through again in every child
    assert not any(name.partition(".")[0] == "prunus" for name in sys.modules)


def mutations(package: str) -> Iterator[tuple[Path, tuple[int, int]]]:
    """Yield every place of a package's code that can be changed: its module, line and column."""
    for module in sorted((SOURCE / package).rglob("*.py")):
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
    """Return where annotations stand, what only a type checker runs, and the bare star in a signature, which is no product."""
    spans: list[Any] = []
    lines = enumerate(text.splitlines(), 1)
    stars = [(number, star.start(1)) for number, line in lines if (star := re.search(r"(?:^ *|, )(\*),", line))]
    for node in ast.walk(ast.parse(text)):
        parts = (getattr(node, "annotation", None), getattr(node, "returns", None))
        spans += [part for part in parts if part is not None]
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            spans.append(node)
        typed = isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript)
        if typed and re.match(r"(Callable|Literal|Mapping)\b", ast.unparse(node.value)):
            spans.append(node)
    found = [((p.lineno, p.col_offset), (p.end_lineno or 0, p.end_col_offset or 0)) for p in spans]
    return found + [(star, (star[0], star[1] + 1)) for star in stars]


def one_of(module: Path, place: tuple[int, int], draw: random.Random, n_places: int) -> Change | None:
    """Return one change at a place; None where what each makes isn't Python, which is no fault that a test could miss."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    options = changes(module)[place]
    for name, occurrence in draw.sample(options, len(options)):
        mutated = mutate_code(module.read_text(), plugins.get_operator(name)(), occurrence)
        assert mutated is not None
        with warnings.catch_warnings(), contextlib.suppress(SyntaxError):
            warnings.simplefilter("ignore")
            compile(mutated, str(module), "exec")
            return Change(module, place[0], f"{name} {occurrence}", mutated, n_places)
    return None


@dataclass
class Test:
    """What one test runs, and how long it takes."""

    seconds: float = 0
    lines: set[tuple[str, int]] = field(default_factory=set)


class Watch:
    """Notes which lines of a package each test runs. What a fixture runs counts for every test of its file."""

    def __init__(self, package: str) -> None:
        from coverage import Coverage

        self.tests: dict[str, Test] = {}
        self.coverage = Coverage(data_file=None, source=[str(SOURCE / package)], config_file=False)

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Start when everything is imported."""
        self.coverage.start()

    def pytest_runtest_setup(self, item: Any) -> None:
        """Note what fixtures run."""
        self.coverage.switch_context(file_of(item.nodeid))

    def pytest_runtest_call(self, item: Any) -> None:
        """Note what the test runs."""
        self.tests[item.nodeid] = Test(-time.process_time())
        self.coverage.switch_context(item.nodeid)

    def pytest_runtest_teardown(self, item: Any) -> None:
        """Note the time."""
        if item.nodeid in self.tests:  # it may have been skipped
            self.tests[item.nodeid].seconds += time.process_time()

    def runs(self) -> dict[str, Test]:
        """Return every test with what it and its file's fixtures run."""
        self.coverage.stop()
        data = self.coverage.get_data()
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                for name, test in self.tests.items():
                    if not {name, file_of(name)}.isdisjoint(contexts):
                        test.lines.add((file, line))
        return self.tests


class Only:
    """Keeps some of the tests, in a given order."""

    def __init__(self, names: list[str]) -> None:
        self.rank = {name: i for i, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep and sort."""
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda item: self.rank[item.nodeid])


def file_of(nodeid: str) -> str:
    """Return the file of a test."""
    return nodeid.partition("::")[0]


def watch(package: str) -> dict[str, Test]:
    """Run a package's tests without a change, in a process of its own, and return what each runs."""
    receive, send = multiprocessing.Pipe(duplex=False)

    def child() -> None:
        watcher = Watch(package)
        code = pytest_main(tests_of(package), watcher)
        send.send((code, watcher.runs()))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    code, tests = receive.recv()
    process.join()
    assert code == 0, f"the tests of {package} fail without a change"
    seen = {file for test in tests.values() for file, _ in test.lines}
    unseen = {str(module) for module, _ in mutations(package)} - seen
    assert not unseen, f"no test runs a line of {sorted(unseen)}"
    total = sum(test.seconds for test in tests.values())
    print(f"{package}: {len(tests)} tests, {total:.0f} s while watched", flush=True)
    return dict(sorted(tests.items(), key=lambda item: item[1].seconds))


def touching(change: Change, tests: dict[str, Test]) -> list[str]:
    """Return the tests that run the changed statement; every test, if it runs when the module is imported, or never."""
    first, last, function = statement_at(change.module.read_text(), change.line)
    wanted = {(str(change.module), line) for line in range(first, last + 1)} if function else set()
    return [name for name, test in tests.items() if wanted & test.lines] or list(tests)


def statement_at(text: str, line: int) -> tuple[int, int, bool]:
    """Return the lines of the statement at a line, a definition's being its whole body, and whether a function holds it."""
    first, last, function = 1, len(text.splitlines()), False
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.stmt) or isinstance(node, ast.ClassDef):
            continue
        start, end = node.lineno, node.end_lineno or node.lineno
        if isinstance(node, ast.FunctionDef):
            start = min([start, *(decorator.lineno for decorator in node.decorator_list)])
            function |= start <= line <= end
        elif getattr(node, "body", None):
            end = max(start, node.body[0].lineno - 1)
        if start <= line <= end and end - start <= last - first:
            first, last = start, end
    return first, last, function


def run_tests(package: str, change: Change, tests: dict[str, Test], limit: float) -> tuple[str, float, int]:
    """Return whether the change was caught, survived or took too long, the seconds, and the number of tests that could notice."""
    names, seconds = [], 0.0
    for name in touching(change, tests):
        if seconds + tests[name].seconds <= limit or not names:
            names.append(name)
            seconds += tests[name].seconds
    if not names:
        return "survived", 0, 0
    start, processor = time.perf_counter(), int(15 + 3 * seconds)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(package, change, names, processor))
    process.start()
    process.join(HANGS * processor)
    slow = process.is_alive() or process.exitcode == -signal.SIGXCPU
    outcome = "timeout" if slow else "survived" if process.exitcode == 0 else "caught"
    process.kill()
    process.join()
    return outcome, round(time.perf_counter() - start, 1), len(names)


def _child(package: str, change: Change, names: list[str], processor: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    module = ".".join(change.module.relative_to(SOURCE.parent).with_suffix("").parts)
    sys.meta_path.insert(0, Changed(module, change.module, change.code))
    files = {str(ROOT / file_of(name)) for name in names}
    os._exit(pytest_main(sorted(files), Only(names)))


def pytest_main(files: list[str], plugin: Any) -> int:
    """Run tests, silently."""
    import pytest

    os.chdir(ROOT)
    sys.path[:0] = [str(SOURCE.parent), str(TESTS)]
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    options = ["-x", "-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly", "--assert=plain"]
    with contextlib.redirect_stdout(io.StringIO()):
        return int(pytest.main([*options, *files], plugins=[plugin]))


def tests_of(package: str) -> list[str]:
    """Return the files with tests of a package: its doctests, its unit tests, its laws."""
    folder, _, part = package.partition("/")
    files = [*(SOURCE / package).rglob("*.py"), *(TESTS / "unit" / folder).rglob(f"test_{folder}_{part}*.py")]
    files += (TESTS / "property").glob(f"test_{folder}_{part}*.py")
    for beside in (TESTS / name for name in BESIDE.get(package, ())):
        files += beside.rglob("*.py") if beside.is_dir() else [beside]
    return [str(file) for file in sorted(files)]


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
