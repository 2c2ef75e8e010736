"""A graph that was made to eat time or memory is refused before it does, within 500 MB."""

# ruff: noqa: F811, F401 - fixtures are imported by name
from __future__ import annotations

import hashlib
import json
import os
import resource
import time
from pathlib import Path

import pytest

from patience import no_hang
from prunus.core.errors import BundleError
from prunus.ship import load_bundle
from ship_stand_ins import build, made, options, pruned

MOST_BYTES = 500 * 2**20


def rows(n, row=lambda i: [f"a{i}", "call", "aten.relu.default", [{"node": f"a{i - 1}" if i else "x"}], {}]):
    nodes = [["x", "input", None, [], {}], *(row(i) for i in range(n)), ["out", "output", None, [{"node": "x"}], {}]]
    return json.dumps({"format": 1, "nodes": nodes})


def squares(i):
    return [f"a{i}", "call", "operator.mul", [{"node": f"a{i - 1}"}, {"node": f"a{i - 1}"}] if i else [99, 99], {}]


BOMBS = {
    "200,000 nodes": lambda: rows(200_000),
    "lists without end": lambda: "[" + ",".join(["[]"] * 2_500_000) + "]",
    "more values than memory": lambda: "[" + "[],{}," * 4_000_000 + "1]",
    "lists in lists": lambda: "[" * 2_000_000,
    "lists in lists, closed": lambda: "[" * 900_000 + "]" * 900_000,
    "a value in many lists": lambda: rows(
        3, lambda i: [f"a{i}", "call", "aten.zeros.default", json.loads("[" * 500 + "]" * 500), {}]
    ),
    "an integer of 5,000 digits": lambda: rows(3, lambda i: [f"a{i}", "call", "aten.zeros.default", [[0]], {}]).replace(
        "0]", "9" * 5000 + "]"
    ),
    "integers of 4,000 digits": lambda: rows(
        3000, lambda i: [f"a{i}", "call", "aten.zeros.default", [[0]], {}]
    ).replace("[0]", "[" + "9" * 4000 + "]"),
    "squares of squares": lambda: rows(2000, squares),
    "a node with a million numbers": lambda: rows(
        1, lambda i: ["a0", "call", "aten.zeros.default", [[1] * 1_000_000], {}]
    ),
    "pieces of pieces": lambda: rows(
        300,
        lambda i: (
            [f"a{i}", "call", "aten.unbind.int", [{"node": "a0"}], {}]
            if i
            else ["a0", "call", "aten.zeros.default", [[16_000]], {}]
        ),
    ),
    "a name of ten million letters": lambda: rows(1, lambda i: ["a0", "call", "a" * 10_000_000, [], {}]),
    "a large key": lambda: json.dumps({"format": 1, "nodes": [], "x" * 10_000_000: 1}),
    "tensors on tensors": lambda: rows(
        40, lambda i: [f"a{i}", "call", "aten.cat.default", [[{"node": f"a{i - 1}" if i else "x"}] * 100, 1], {}]
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_takes_minutes_or_500_megabytes(made, name):
    content = BOMBS[name]().encode()
    (made.folder / "graph.json").write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    made.rewrite(lambda tree: tree["files"].__setitem__("graph.json", entry))
    report = made.folder / "said"
    child = os.fork()
    if child == 0:
        try:
            in_use = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_DATA, (in_use + MOST_BYTES, in_use + MOST_BYTES))
            try:
                with no_hang():
                    load_bundle(made.folder, prefer="graph")
                said = "loaded"
            except BundleError as error:
                said = f"refused {len(str(error))}"
            report.write_text(said)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert report.exists(), "it took too much memory or time, or ended in another way"
    said, length = report.read_text().split()
    assert said == "refused"
    assert int(length) < 1500
