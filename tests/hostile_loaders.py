"""What is honest, and which loader reads it? What the crafted files of every kind are made from.

A folder starts with what is honest (a run with bundle, plan and record; shards; weights; data of every kind), and a case spoils one
file of it. Whatever is spoilt is sealed again with hashes that fit, as one who wants to fool the reader would.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import nn

from hostile_bytes import BAD_JSON, NOT_FILES, png
from prunus.core.files.plan_file import load_plan
from prunus.core.files.sealed import sealed_tree
from prunus.core.recipes.recipe import Data
from prunus.core.recipes.recipe_file import load_recipe, make_recipe
from prunus.data import encoded_as, open_source
from prunus.models import load_weights
from prunus.pipeline import recipe_of_plan
from prunus.pipeline.flow.main_job import run
from prunus.report import load_record
from prunus.scale import prune_shards
from prunus.ship import SignWith, VerifyPolicy, load_bundle, sign_bundle, verify_bundle
from recipe_samples import IRIS
from signing_stand_ins import pair
from tests_support import fitted

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
    shutil.copytree(folder / "run" / "bundle", folder / "signed")
    signer = pair(folder)
    sign_bundle(folder / "signed", SignWith(signer.private), version="2.0")
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
        if getattr(source, "table", None) is not None:
            source = encoded_as(source, fitted(source))
        source.inputs(torch.arange(len(source.ids)))

    return use


LOADERS: dict[str, Callable[[Path], Any]] = {
    "bundle": lambda folder: _answers(folder, "eager"),
    "graph": lambda folder: _answers(folder, "graph"),
    "verify": lambda folder: verify_bundle(folder / "run" / "bundle"),
    "signature": lambda folder: verify_bundle(folder / "signed", policy=VerifyPolicy(folder / "signer.pub", (), "2")),
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


def write(name: str, content: bytes) -> Prepare:
    def prepare(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return prepare


def instead(name: str, make: Callable[[Path], Any]) -> Prepare:
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


def json_cases(loader: str, name: str, after: Prepare = lambda folder: None, prefix: str = "") -> None:
    for what, content in BAD_JSON.items():

        def prepare(folder: Path, content: bytes = content) -> None:
            (folder / name).write_bytes(content)
            after(folder)

        CASES[loader][f"{prefix}{what}"] = prepare
    for what, make in NOT_FILES.items():
        CASES[loader][f"{prefix}{what}"] = instead(name, make)


def moved(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


class Call:
    """Pickled as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def copy(source: Path, folder: Path) -> None:
    """Make a folder for one case."""
    shutil.copytree(source, folder, symlinks=True)
