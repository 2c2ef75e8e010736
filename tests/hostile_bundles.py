"""Which bundles, graphs and plans does somebody craft?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from canary import MODULE
from hostile_loaders import CASES, Prepare, moved, reseal
from prunus.core.files.sealed import sealed_tree


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    return lambda folder: reseal(folder / "run/bundle", change)


def _columns(*columns: dict[str, Any]) -> Prepare:
    """Say that the features of the honest bundle are made of these columns, called as the features are where they have no name."""

    def change(tree: dict[str, Any]) -> None:
        names = [*tree["feature_names"], *(f"c{number}" for number in range(len(columns)))]
        made = [{"name": name, **column} for name, column in zip(names, columns, strict=False)]
        tree.update(columns={"columns": made})

    return _manifest(change)


def _first(tree: dict[str, Any]) -> dict[str, Any]:
    return next(entry for entry in tree["tensors"].values() if len(entry["shape"]) == 2)


CASES["bundle"] |= {
    "an unknown key": _manifest(lambda tree: tree.update(more=1)),
    "a builder that runs a command": _manifest(
        lambda tree: (
            tree["model"].update(builder="os:system", args={"command": "touch ran"}),
            tree["files"].pop("graph.json"),
        )
    ),
    "a builder that is imported": _manifest(
        lambda tree: (tree["model"].update(builder=f"{MODULE}:f"), tree["files"].pop("graph.json"))
    ),
    "a dense model of a terabyte": _manifest(lambda tree: tree["model"]["args"].update(width=10**6, depth=10**6)),
    "inputs of a terabyte": _manifest(lambda tree: tree.update(input_shape=[2**30, 2**10])),
    "a compressed tensor of a terabyte": _manifest(
        lambda tree: _first(tree).update(shape=[2**20, 2**18], stored="bitmask", parts=[1, 1, 1, 1, 1])
    ),
    "a tensor of another shape": _manifest(lambda tree: _first(tree).update(shape=[1, 1])),
    "a file outside": _manifest(lambda tree: tree["files"].update({"../secret": tree["files"]["model.safetensors"]})),
    "a scaler of zeros": _manifest(lambda tree: tree["scaler"].update(deviation=[0.0] * 4)),
    "columns of another table": _columns({"kind": "number", "fill": 0.0}),
    "columns of fewer features": _columns(*[{"kind": "number", "fill": 0.0}] * 3),
    "a median that is no number": _columns(*[{"kind": "number", "fill": "nan"}] * 4),
    "a median beyond all numbers": _columns(*[{"kind": "number", "fill": 10**400}] * 4),
    "a hundred million shared features": _columns(*[{"kind": "category", "others": 1024}] * 20_000),
    "features whose names take a gigabyte": _columns(
        *[{"name": "n" * 900, "kind": "category", "categories": list(map(str, range(1000)))}] * 1100
    ),
    "a million categories": _columns({"kind": "category", "categories": list(map(str, range(10**6)))}),
    "a column that brings a function": _columns(*[{"kind": "number", "fill": 0.0, "function": f"{MODULE}:f"}] * 4),
    "a column of a kind that there isn't": _columns(*[{"kind": "pickle", "fill": 0.0}] * 4),
    "quantiles that go down": _columns(*[{"kind": "number", "fill": 0.0, "quantiles": [1.0, 0.0]}] * 4),
    "a date beyond time": _columns(*[{"kind": "date", "fill": 1e200, "parts": ["days"]}] * 4),
    "columns that are a list of lists": _manifest(lambda tree: tree.update(columns=[[[]]])),
    "texts for no value without end": _manifest(
        lambda tree: tree.update(columns={"columns": [], "no_value": ["x"] * 10**6})
    ),
    "a manifest changed by hand": lambda folder: (folder / "run/bundle/manifest.json").write_text(
        (folder / "run/bundle/manifest.json").read_text().replace("setosa", "virginica")
    ),
    "weights cut off": lambda folder: (folder / "run/bundle/model.safetensors").write_bytes(
        (folder / "run/bundle/model.safetensors").read_bytes()[:-9]
    ),
    "one flipped bit": lambda folder: _flip(folder / "run/bundle/model.safetensors"),
    "weights that aren't numbers": lambda folder: _spoilt_weights(folder, float("nan")),
    "infinite weights": lambda folder: _spoilt_weights(folder, float("inf")),
    "weights that are a link": lambda folder: moved(folder / "run/bundle/model.safetensors"),
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _spoilt_weights(folder: Path, value: float) -> None:
    path = folder / "run/bundle/model.safetensors"
    tensors = load_file(path)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.dim() == 2)
    tensors[name][0, 0] = value
    save_file(tensors, path)
    reseal(folder / "run/bundle")


def _graph(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "run/bundle/graph.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))
        reseal(folder / "run/bundle")

    return prepare


def _renamed_call(name: str) -> Callable[[dict[str, Any]], Any]:
    def change(tree: dict[str, Any]) -> None:
        for node in tree["nodes"]:
            if node[1] == "call":
                node[2] = name

    return change


for operation in (
    "aten.from_file.default", "aten._embedding_bag.default", "aten.native_batch_norm.default", "aten.softmax.int",
    "prims.empty.default", "aten.system.default", "os.system", "aten.set_.source_Tensor", "aten.as_strided.default",
    "aten.zeros.default",
):  # fmt: skip
    CASES["graph"][f"every call is {operation}"] = _graph(_renamed_call(operation))
CASES["graph"]["a graph without nodes"] = _graph(
    lambda tree: [tree.__setitem__(k, []) for k, v in tree.items() if isinstance(v, list)]
)
CASES["graph"]["every list doubled"] = _graph(
    lambda tree: [tree.__setitem__(k, v + v) for k, v in list(tree.items()) if isinstance(v, list) and v]
)
CASES["graph"]["a graph of 200,000 nodes"] = _graph(
    lambda tree: [
        tree.__setitem__(k, (v * 200_000)[:200_000]) for k, v in list(tree.items()) if isinstance(v, list) and v
    ]
)


def _plan(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "run/plan/plan.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(sealed_tree(tree)))

    return prepare


def _units(table: Callable[[pa.Table], pa.Table], **options: Any) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "run/plan/units.parquet"
        pq.write_table(table(pq.read_table(path)), path, **options)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        _plan(lambda tree: tree.update(units_sha256=digest))(folder)

    return prepare


def _longer(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.names.index(column), column, values)


CASES["plan"] |= {
    "data by a function": _plan(
        lambda tree: tree["recipe"]["data"].update(source="os:system", args={"command": "touch ran"})
    ),
    "data from outside": _plan(lambda tree: tree["recipe"]["data"].update(source="/etc/passwd.csv")),
    "a model by a function": _plan(lambda tree: tree["recipe"]["model"].update(builder=f"{MODULE}:f")),
    "weights from outside": _plan(lambda tree: tree["recipe"]["model"].update(weights="/etc/passwd.pt")),
    "a loss by a function": _plan(lambda tree: tree["recipe"]["train"].update(loss=f"{MODULE}:f")),
    "another seed, hash not renewed": lambda folder: (folder / "run/plan/plan.json").write_text(
        (folder / "run/plan/plan.json").read_text().replace('"seed": 0', '"seed": 1')
    ),
    "more units than there are": _plan(lambda tree: tree["steps"][0]["strata"][0].update(units=2**61)),
    "a negative count": _plan(lambda tree: tree["steps"][0].update(units=-1)),
    "an unknown operation": _plan(lambda tree: tree["steps"][0].update(operation="os:system")),
    "rows left out": _units(lambda table: table.slice(1)),
    "a column less": _units(lambda table: table.drop_columns(["keep"])),
    "rows that are one, three million times": _units(
        lambda table: (
            pa.concat_tables([table.slice(0, 1)] * 20_000)
            .combine_chunks()
            .take(pa.array(np.zeros(3_000_000, np.int64)))
        )
    ),
    "texts where numbers are": _units(lambda table: _longer(table, "unit", pa.array(["x"] * len(table)))),
    "units that aren't Parquet": lambda folder: (
        (folder / "run/plan/units.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1"),
        _plan(lambda tree: tree.update(units_sha256=hashlib.sha256(b"PAR1" + bytes(100) + b"PAR1").hexdigest()))(
            folder
        ),
    ),
    "units that are a link": lambda folder: moved(folder / "run/plan/units.parquet"),
}
