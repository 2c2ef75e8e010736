"""Every crafted file, by the loader that it is made for: a name and a function that puts it into a folder.

A folder starts with what is honest (a run with bundle, plan and record; shards; weights; data of every kind), and a case spoils one
file of it. Whatever is spoilt is sealed again with hashes that fit, as one who wants to fool the reader would.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from canary import MODULE
from hostile_bytes import BAD_JSON, NOT_FILES, archive, grown_yaml, lying_page, npy, npy_header, png, pt, safetensors
from prunus.core.plan_file import load_plan
from prunus.core.recipe import Data
from prunus.core.recipe_file import load_recipe, make_recipe
from prunus.core.sealed import sealed_tree
from prunus.data import open_source
from prunus.models import load_weights
from prunus.pipeline import recipe_of_plan
from prunus.pipeline.flow import run
from prunus.report import load_record
from prunus.scale import prune_shards
from prunus.ship import load_bundle
from recipe_samples import IRIS

Prepare = Callable[[Path], Any]


def honest(folder: Path) -> None:
    """Fill ``folder`` with one good file for every loader."""
    run(make_recipe({**IRIS, "output": str(folder / "run")}))
    (folder / "r.yaml").write_text(
        "data: {source: 'sklearn:iris'}\nmodel: {builder: mlp}\nstrategy: {keep_fraction: 0.5}\n"
    )
    torch.save(nn.Linear(4, 4).state_dict(), folder / "w.pt")
    save_file(nn.Linear(4, 4).state_dict(), folder / "w.safetensors")
    np.savez(folder / "a.npz", x=np.eye(4), y=np.array([0, 1, 0, 1]))
    (folder / "a.csv").write_text("a,b,label\n" + "1,2,0\n3,5,1\n" * 4)
    pq.write_table(pa.table({"a": [1.0, 2.0] * 4, "label": [0, 1] * 4}), folder / "a.parquet")
    for name in ("a", "b"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(2):
            (folder / "images" / name / f"{number}.png").write_bytes(png(2, 2, (b"\0" + bytes([number] * 6)) * 2))
    (folder / "shards").mkdir()
    weights = {f"h.{i}.w": torch.randn(8, 8) for i in range(2)}
    for number, (name, value) in enumerate(weights.items()):
        save_file({name: value}, folder / "shards" / f"m-{number}.safetensors")
    names = {name: f"m-{number}.safetensors" for number, name in enumerate(weights)}
    (folder / "shards" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def _answers(folder: Path, prefer: str) -> None:
    bundle = load_bundle(folder / "run" / "bundle", prefer=prefer)
    bundle.postprocess(bundle.predict(torch.zeros(2, *bundle.input_shape)))


def _data(name: str) -> Callable[[Path], Any]:
    def use(folder: Path) -> None:
        source = open_source(Data(source=name))
        source.inputs(torch.arange(len(source.ids)))

    return use


LOADERS: dict[str, Callable[[Path], Any]] = {
    "bundle": lambda folder: _answers(folder, "eager"),
    "graph": lambda folder: _answers(folder, "graph"),
    "plan": lambda folder: recipe_of_plan(load_plan(folder / "run" / "plan"), folder / "run" / "plan"),
    "recipe": lambda folder: load_recipe(folder / "r.yaml"),
    "record": lambda folder: load_record(folder / "run" / "record.json"),
    ".pt": lambda folder: load_weights(nn.Linear(4, 4), folder / "w.pt"),
    "safetensors": lambda folder: load_weights(nn.Linear(4, 4), folder / "w.safetensors"),
    "npz": _data("a.npz"),
    "CSV": _data("a.csv"),
    "Parquet": _data("a.parquet"),
    "images": _data("images"),
    "shard index": lambda folder: prune_shards(folder / "shards", folder / "out", keep_fraction=0.5),
}

CASES: dict[str, dict[str, Prepare]] = {loader: {} for loader in LOADERS}


def _write(name: str, content: bytes) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return prepare


def _instead(name: str, make: Callable[[Path], Any]) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return prepare


def reseal(bundle: Path, change: Callable[[dict[str, Any]], Any] = lambda tree: None) -> None:
    """Make the manifest agree with what lies there, after a change."""
    tree = json.loads((bundle / "manifest.json").read_text())
    for name in tree["files"]:
        content = (bundle / name).read_bytes()
        tree["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    change(tree)
    (bundle / "manifest.json").write_text(json.dumps(sealed_tree(tree)))
    record = bundle.parent / "record.json"
    record.unlink(missing_ok=True)  # it would tell that the bundle isn't the run's


def _json_cases(loader: str, name: str, after: Prepare = lambda folder: None, prefix: str = "") -> None:
    for what, content in BAD_JSON.items():

        def prepare(folder: Path, content: bytes = content) -> None:
            (folder / name).write_bytes(content)
            after(folder)

        CASES[loader][f"{prefix}{what}"] = prepare
    for what, make in NOT_FILES.items():
        CASES[loader][f"{prefix}{what}"] = _instead(name, make)


_json_cases("bundle", "run/bundle/manifest.json")
_json_cases("graph", "run/bundle/graph.json", lambda folder: reseal(folder / "run/bundle"))
_json_cases("plan", "run/plan/plan.json")
_json_cases("record", "run/record.json")
_json_cases("shard index", "shards/model.safetensors.index.json")
for what in (
    "nested ten million times",
    "three million values",
    "an integer of 5,000 digits",
    "a key twice among 200,000",
    "a list",
    "NaN",
):
    CASES["safetensors"][f"a header that is {what}"] = lambda folder, what=what: safetensors(
        folder / "w.safetensors", BAD_JSON[what]
    )


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    return lambda folder: reseal(folder / "run/bundle", change)


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
    "a manifest changed by hand": lambda folder: (folder / "run/bundle/manifest.json").write_text(
        (folder / "run/bundle/manifest.json").read_text().replace("setosa", "virginica")
    ),
    "weights cut off": lambda folder: (folder / "run/bundle/model.safetensors").write_bytes(
        (folder / "run/bundle/model.safetensors").read_bytes()[:-9]
    ),
    "one flipped bit": lambda folder: _flip(folder / "run/bundle/model.safetensors"),
    "weights that aren't numbers": lambda folder: _spoilt_weights(folder, float("nan")),
    "infinite weights": lambda folder: _spoilt_weights(folder, float("inf")),
    "weights that are a link": lambda folder: _moved(folder / "run/bundle/model.safetensors"),
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _moved(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


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
    "units that are a link": lambda folder: _moved(folder / "run/plan/units.parquet"),
}

_R = "data: {source: 'sklearn:iris'}\n"
CASES["recipe"] |= {
    name: _write("r.yaml", text.encode() if isinstance(text, str) else text)
    for name, text in {
        "aliases of aliases": grown_yaml("[", "x", "]"),
        "merges of merges": grown_yaml("{<<: [", "{k: 1}", "]}"),
        "an alias of itself": _R + "train: &a {epochs: *a}",
        "nested fifty thousand times": "[" * 50_000,
        "mappings nested five thousand times": "{a: " * 5_000,
        "dashes nested three thousand times": "- " * 3_000 + "a",
        "an integer of 5,000 digits": _R + "seeds: [" + "9" * 5_000 + "]",
        "an integer of 100,000 hexadecimal digits": _R + "seeds: [0x" + "f" * 100_000 + "]",
        "a long text": _R + "name: " + "b" * 300_000,
        "a hundred megabytes": b"#" * 100_000_000,
        "sixty thousand values": _R + "seeds: [" + "1," * 60_000 + "]",
        "a tag that calls": "!!python/object/apply:os.system [touch ran]",
        "a tag that imports": f"!!python/name:{MODULE}.f",
        "a tag that doesn't fit": "!!bool maybe",
        "a number that is empty": '!!int ""',
        "a time that is none": "!!timestamp soon",
        "a mapping that is a list": "!!map [1]",
        "a key that is a list": "? [a]\n: b",
        "a key twice": _R + _R,
        "an unknown key": _R + "exec: 1",
        "not UTF-8": b"\xff\xfe\x00",
        "zero bytes": b"\0" * 10,
        "terminal escapes": _R + "\x1b[2J: 1",
        "escapes in quotes": _R + '"\\x1b[2J\\u202e": 1',
        "empty": "",
        "a list": "[1]",
        "two documents": "---\na: 1\n---\nb: 2",
        "infinite epochs": _R + "train: {epochs: .inf}",
        "a keep fraction that is no number": _R + "strategy: {keep_fraction: .nan}",
        "negative epochs": _R + "train: {epochs: -1}",
        "a value where a section is": "data: 3",
        "a section of a hundred unknown keys": _R + "train: {" + ", ".join(f"k{i}: {i}" for i in range(100)) + "}",
    }.items()
}

KEY = b"(" * 400_000 + b"t" * 400_000
BASE = torch.zeros(2**18)


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def _saved(content: Any, **options: Any) -> Prepare:
    return lambda folder: torch.save(content(), folder / "w.pt", **options)


def _pickled(program: bytes, compression: int = zipfile.ZIP_STORED) -> Prepare:
    return lambda folder: pt(folder / "w.pt", program, compression)


CASES[".pt"] |= {
    "a stride of nought": _saved(lambda: {"weight": torch.zeros(1).expand(2**34), "bias": torch.zeros(4)}),
    "overlapping rows": _saved(lambda: {"weight": BASE.as_strided((2**17, 2**17), (1, 1))}),
    "twenty thousand views of one storage": _saved(lambda: {f"w{i}": BASE[i:] for i in range(20_000)}),
    "a bytearray of 64 GB": _saved(lambda: {"weight": Call(bytearray, 64 << 30)}),
    "a call of a command": _saved(lambda: {"weight": Call(__import__("os").system, "touch ran")}),
    "a call of a command, old format": _saved(
        lambda: {"weight": Call(__import__("os").system, "touch ran")}, _use_new_zipfile_serialization=False
    ),
    "a call of exec": _saved(lambda: {"weight": Call(exec, "open('/tmp/ran', 'w')")}),
    "a whole model": _saved(lambda: nn.Linear(4, 4)),
    "a sparse tensor": _saved(lambda: {"weight": torch.eye(4).to_sparse()}),
    "a tensor without data": _saved(lambda: {"weight": torch.empty(2**40, device="meta")}),
    "a list": _saved(lambda: [torch.zeros(1)]),
    "weights that aren't numbers": _saved(lambda: {"weight": torch.full((4, 4), float("nan")), "bias": torch.zeros(4)}),
    "complex weights": _saved(lambda: {"weight": torch.zeros(4, 4, dtype=torch.complex64), "bias": torch.zeros(4)}),
    "a key nested 400,000 times": _pickled(b"\x80\x02}" + KEY + b"K\x01s."),
    "a key of 2 to the 60 parts": _pickled(b"\x80\x02})q\x00" + b"h\x00\x86q\x00" * 60 + b"K\x01s."),
    "two million instructions": _pickled(b"\x80\x02" + b"]" * 2_000_000 + b"."),
    "fifty million instructions, compressed": _pickled(b"\x80\x02" + b"]" * 50_000_000, zipfile.ZIP_DEFLATED),
    "a place in the memo of two billion": _pickled(b"\x80\x02}r\xff\xff\xff\x7f."),
    "bytes that aren't there": _pickled(b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"."),
    "a number of 200,000 digits": _pickled(b"\x80\x02}X\x01\x00\x00\x00aI" + b"9" * 200_000 + b"\ns."),
    "50,000 keys that collide": _pickled(
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + ((2**61 - 1) * n).to_bytes(11, "little") + b"N" for n in range(50_000))
        + b"u."
    ),
    "a class by instruction": _pickled(b"(S'touch ran'\niposix\nsystem\n."),
    "a global by two texts": _pickled(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x09touch ran\x85R."),
    "a storage of another form": _pickled(b"\x80\x02}X\x01\x00\x00\x00a(X\x07\x00\x00\x00storageK\x01tQs."),
    "no end": _pickled(b"\x80\x02}"),
    "nothing on the stack": _pickled(b"\x80\x02."),
    "not an archive": _write("w.pt", bytes(1000)),
    "an archive of something else": lambda folder: archive(folder / "w.pt", {"readme": b"hello"}),
    "empty": _write("w.pt", b""),
    "cut off": lambda folder: (folder / "w.pt").write_bytes((folder / "w.pt").read_bytes()[:700]),
}

ENTRY = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


def _header(header: object, data: bytes = bytes(80)) -> Prepare:
    return lambda folder: safetensors(folder / "w.safetensors", header, data)


CASES["safetensors"] |= {
    "empty": _write("w.safetensors", b""),
    "a header of an exabyte": _write("w.safetensors", b"\xff" * 8 + b"{}"),
    "a header longer than the file": _write("w.safetensors", (10**6).to_bytes(8, "little") + b"{}"),
    "a negative start": _header({"weight": {**ENTRY, "data_offsets": [-64, 0]}}),
    "an end beyond the file": _header({"weight": {**ENTRY, "data_offsets": [0, 2**40]}}),
    "a shape of an exabyte": _header({"weight": {**ENTRY, "shape": [2**31, 2**31]}}),
    "a shape that overflows": _header({"weight": {**ENTRY, "shape": [2**63, 2**63]}}),
    "a negative shape": _header({"weight": {**ENTRY, "shape": [-4, -4]}}),
    "overlapping tensors": _header({"weight": ENTRY, "bias": {**ENTRY, "shape": [4], "data_offsets": [0, 16]}}),
    "a gap": _header({"weight": ENTRY, "bias": {**ENTRY, "shape": [4], "data_offsets": [72, 88]}}),
    "an unknown type": _header({"weight": {**ENTRY, "dtype": "PICKLE"}}),
    "a name twice": _header(
        b'{"weight":' + json.dumps(ENTRY).encode() + b',"weight":' + json.dumps(ENTRY).encode() + b"}"
    ),
    "metadata that is a list": _header({"__metadata__": [1], "weight": ENTRY}),
    "a pickle": lambda folder: torch.save({"weight": torch.zeros(4)}, folder / "w.safetensors"),
    "weights that aren't numbers": lambda folder: save_file(
        {"weight": torch.full((4, 4), float("nan")), "bias": torch.zeros(4)}, folder / "w.safetensors"
    ),
    "a name with terminal escapes": _header({"\x1b[2J\u202e": ENTRY}, bytes(64)),
}

LABELS = npy((4,), "<i8", np.array([0, 1, 0, 1]).tobytes())


def _npz(x: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> Prepare:
    return lambda folder: archive(folder / "a.npz", {"x.npy": x, "y.npy": LABELS, **more}, compression)


CASES["npz"] |= {
    "a hundred million rows of one byte": _npz(npy((10**8, 1), "|u1", bytes(10**8)), zipfile.ZIP_DEFLATED),
    "zeros that inflate a thousand times": _npz(npy((20_000, 1000), "<f8", bytes(160_000_000)), zipfile.ZIP_DEFLATED),
    "a shape of eight terabytes": _npz(npy((2**40,), "<f8", bytes(64))),
    "a shape that overflows": _npz(npy((2**62, 2**62), "<f8", bytes(64))),
    "a negative shape": _npz(npy((-1, 4), "<f8", bytes(64))),
    "texts of two gigabytes": _npz(npy((4,), "<U500000000", bytes(64))),
    "elements of two gigabytes": _npz(npy((1,), "|V2000000000", bytes(64))),
    "Python objects": lambda folder: np.savez(
        folder / "a.npz", x=np.array([Call(__import__("os").system, "touch ran")]), y=np.ones(1)
    ),
    "a header that is code": _npz(
        npy_header("{'descr': __import__('os').system('touch ran'), 'fortran_order': False, 'shape': (4,)}\n")
    ),
    "a header nested a thousand times": _npz(npy_header("(" * 1000 + ")" * 1000 + "\n")),
    "a header without a shape": _npz(npy_header("{'descr': '<f8'}\n")),
    "an unknown version": _npz(b"\x93NUMPY\x09\x09" + bytes(100)),
    "a member that is no array": _npz(b"hello"),
    "not numbers": _npz(npy((4, 2), "<f8", np.full(8, np.nan).tobytes())),
    "infinite values": _npz(npy((4, 2), "<f8", np.full(8, np.inf).tobytes())),
    "no inputs": lambda folder: archive(folder / "a.npz", {"y.npy": LABELS}),
    "more inputs than targets": _npz(npy((5, 2), "<f8", bytes(80))),
    "a name twice": lambda folder: _twice(folder / "a.npz"),
    "one array alone": _write("a.npz", npy((4, 2), "<f8", bytes(64))),
    "cut off": lambda folder: (folder / "a.npz").write_bytes((folder / "a.npz").read_bytes()[:-30]),
    "empty": _write("a.npz", b""),
}


def _twice(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as file:
        for content in (npy((4, 2), "<f8", bytes(64)), npy((4, 1), "<f8", bytes(32))):
            information = zipfile.ZipInfo("x.npy")
            file.writestr(information, content)
        file.writestr("y.npy", LABELS)


def _csv(text: str | bytes) -> Prepare:
    return _write("a.csv", text.encode() if isinstance(text, str) else text)


CASES["CSV"] |= {
    "one field of 20 MB": _csv("a,label\n" + "x" * 20_000_000 + ",1\n" + "y,0\n" * 1000),
    "one label of a megabyte": _csv("a,label\n1," + "x" * 1_000_000 + "\n" + "1,y\n" * 100_000),
    "integers of 5,000 digits": _csv("a,label\n" + ("9" * 5_000 + ",1\n") * 100 + "1,0\n"),
    "fifty thousand columns of one name": _csv(",".join(["c"] * 50_000) + "\n" + ",".join(["1"] * 50_000) + "\n"),
    "a column twice": _csv("a,a,label\n1,2,0\n3,4,1\n"),
    "a column without a name": _csv(",label\n1,0\n2,1\n"),
    "a quote that never ends": _csv('a,label\n"1,0\n' + "2,1\n" * 1000),
    "rows of unequal length": _csv("a,label\n1,0\n1,2,3\n"),
    "not numbers": _csv("a,label\nnan,0\n1,1\n"),
    "infinite values": _csv("a,label\ninf,0\n1,1\n"),
    "an empty cell": _csv("a,label\n,0\n1,1\n"),
    "not UTF-8": _csv(b"a,label\n\xff,0\n\xfe,1\n"),
    "zero bytes": _csv(bytes(1000)),
    "empty": _csv(""),
    "a header alone": _csv("a,label\n"),
    "a thousand categories": _csv("a,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(1000))),
    "no target": _csv("a,b\n1,2\n"),
    "terminal escapes in a name": _csv("\x1b[2J,\x1b[2J,label\n1,2,0\n"),
}


def _parquet(table: Callable[[], pa.Table], **options: Any) -> Prepare:
    return lambda folder: pq.write_table(table(), folder / "a.parquet", **options)


def _equal_rows(n_rows: int) -> pa.Table:
    return pa.table({"a": np.zeros(n_rows, np.int64), "label": np.zeros(n_rows, np.int8)})


def _one_text(n_letters: int, n_rows: int) -> pa.Table:
    column = pa.DictionaryArray.from_arrays(np.zeros(n_rows, np.int32), pa.array(["x" * n_letters]))
    return pa.table({"a": column, "label": np.arange(n_rows) % 2})


def _lying(**words: int) -> Prepare:
    def prepare(folder: Path) -> None:
        table = pa.table({"a": np.arange(1000.0), "label": np.arange(1000) % 2})
        pq.write_table(table, folder / "a.parquet", compression="zstd", use_dictionary=False)
        lying_page(folder / "a.parquet", **words)

    return prepare


def _empty_texts(n_texts: int) -> pa.Table:
    return pa.table({"a": [""] * n_texts, "label": np.zeros(n_texts, np.int8)})


CASES["Parquet"] |= {
    "a page that says it becomes two gigabytes": _lying(becomes=2**31 - 1),
    "a page that says it becomes two hundred megabytes": _lying(becomes=2 * 10**8),
    "a page of two billion values": _lying(n_values=2**31 - 1),
    "a page of less than nothing": _lying(becomes=-5),
    "six million equal rows": _parquet(lambda: _equal_rows(6_000_000)),
    "sixty columns of a million flags": _parquet(
        lambda: pa.table({**{f"a{i}": np.arange(10**6) % 2 == 0 for i in range(60)}, "label": np.arange(10**6) % 2})
    ),
    "six million texts of no letters": _parquet(lambda: _empty_texts(6_000_000)),
    "texts in lists, by what they share": _parquet(
        lambda: pa.table({"a": [["x" * 10_000] * 1000], "label": [1]}),
        use_dictionary=False,
        column_encoding={"a.list.element": "DELTA_BYTE_ARRAY", "label": "PLAIN"},
    ),
    "twenty million equal rows": _parquet(lambda: _equal_rows(20_000_000)),
    "one text of 100 kB in a million rows": _parquet(lambda: _one_text(100_000, 1_000_000), store_schema=False),
    "one text of 100 kB in a million rows, as a dictionary": _parquet(lambda: _one_text(100_000, 1_000_000)),
    "one label of 100 kB": _parquet(lambda: pa.table({"a": np.arange(1000.0), "label": ["x" * 100_000, "y"] * 500})),
    "nested lists": _parquet(lambda: pa.table({"a": [[[1.0]], [[2.0]]], "label": [0, 1]})),
    "a column twice": _parquet(
        lambda: pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([0])], names=["a", "a", "label"])
    ),
    "no rows": _parquet(lambda: pa.table({"a": pa.array([], pa.float64()), "label": pa.array([], pa.int8())})),
    "empty cells": _parquet(lambda: pa.table({"a": [None, 1.0], "label": [0, 1]})),
    "not numbers": _parquet(lambda: pa.table({"a": [float("nan"), 1.0], "label": [0, 1]})),
    "times": _parquet(lambda: pa.table({"a": pa.array([1, 2], pa.timestamp("s")), "label": [0, 1]})),
    "a footer of zeros": _write("a.parquet", b"PAR1" + bytes(100) + b"PAR1"),
    "a footer longer than the file": _write("a.parquet", b"PAR1" + b"\xff\xff\xff\x7fPAR1"),
    "cut off": lambda folder: (folder / "a.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20]),
    "a flipped page": lambda folder: _flip_page(folder / "a.parquet"),
    "empty": _write("a.parquet", b""),
}


def _flip_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4, 40):
        content[place] ^= 0x55
    path.write_bytes(content)


def _image(content: bytes, name: str = "0.png") -> Prepare:
    return lambda folder: [(folder / "images" / kind / name).write_bytes(content) for kind in ("a", "b")]


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n(touch ran) (w) file\n%%EOF\n"
CASES["images"] |= {
    "36 million pixels in a hundred bytes": _image(png(6_000, 6_000)),
    "144 million pixels in a hundred bytes": _image(png(12_000, 12_000)),
    "four billion pixels in a hundred bytes": _image(png(65_000, 65_000)),
    "40 million pixels of zeros": _image(png(6_400, 6_400, bytes(6_400 * (3 * 6_400 + 1)))),
    "no pixels": _image(png(2, 2)),
    "no width": _image(png(0, 2)),
    "PostScript named png": _image(EPS),
    "a text named png": _image(b"hello"),
    "empty": _image(b""),
    "cut off": _image(png(2, 2, bytes(14))[:-30]),
    "another size": _image(png(3, 2, bytes(20))),
    "sixteen bits": _image(png(2, 2, bytes(14)).replace(b"\x08\x02", b"\x10\x00")),
    "a BMP of four billion pixels": _image(
        b"BM" + bytes(12) + b"(\0\0\0" + b"\xff\xff\0\0" * 2 + b"\x01\0\x18\0" + bytes(24), "0.bmp"
    ),
    "a GIF of four billion pixels": _image(
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x02\x00;", "0.gif"
    ),
    "a PPM of nine billion pixels": _image(b"P6 99999 99999 255\n" + bytes(10), "0.ppm"),
    "a name with terminal escapes": lambda folder: (folder / "images/a" / "\x1b[2J.png").write_bytes(b"no"),
}


def _shard(header: object, data: bytes = bytes(256)) -> Prepare:
    return lambda folder: safetensors(folder / "shards/m-0.safetensors", header, data)


def _index(change: Callable[[dict[str, Any]], Any]) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "shards/model.safetensors.index.json"
        tree = json.loads(path.read_text())
        change(tree)
        path.write_text(json.dumps(tree))

    return prepare


SHARD = {"dtype": "F32", "shape": [8, 8], "data_offsets": [0, 256]}
CASES["shard index"] |= {
    "a shard outside": _index(lambda tree: tree["weight_map"].update({"h.0.w": "../m-0.safetensors"})),
    "a shard by its full path": _index(lambda tree: tree["weight_map"].update({"h.0.w": "/etc/passwd"})),
    "a shard that isn't there": _index(lambda tree: tree["weight_map"].update({"h.0.w": "m-7.safetensors"})),
    "a tensor that isn't there": _index(lambda tree: tree["weight_map"].update({"h.7.w": "m-0.safetensors"})),
    "a tensor that it doesn't know": _shard(
        {"h.0.w": SHARD, "h.9.w": {**SHARD, "data_offsets": [256, 512]}}, bytes(512)
    ),
    "a shard that is the index": _index(
        lambda tree: tree["weight_map"].update({"h.0.w": "model.safetensors.index.json"})
    ),
    "no map": _index(lambda tree: tree.pop("weight_map")),
    "a shard of negative start": _shard({"h.0.w": {**SHARD, "data_offsets": [-256, 0]}}),
    "a shard of overlapping tensors": _shard({"h.0.w": SHARD, "h.3.w": SHARD}),
    "a shard that is too short": _shard({"h.0.w": SHARD}, bytes(8)),
    "a shard with more than it says": _shard({"h.0.w": SHARD}, bytes(400)),
    "a shard of a petabyte": _shard({"h.0.w": {**SHARD, "shape": [2**25, 2**25]}}),
    "a shard of a name twice": _shard(
        b'{"h.0.w":' + json.dumps(SHARD).encode() + b',"h.0.w":' + json.dumps(SHARD).encode() + b"}"
    ),
    "a shard of 5,000 digits": _shard(
        b'{"h.0.w":' + json.dumps({**SHARD, "shape": [7]}).replace("7", "7" * 5000).encode() + b"}"
    ),
    "weights that aren't numbers": _shard({"h.0.w": SHARD}, np.full(64, np.nan, np.float32).tobytes()),
}


def copy(source: Path, folder: Path) -> None:
    """Make a folder for one case."""
    shutil.copytree(source, folder, symlinks=True)
