"""What do pruning and int8 give together, with the contract kept in the exported file?

    npm install --no-save --prefix build mnist  # the digits
    python benchmarks/int8.py [--models resnet bert] [--runs build/int8] [--out FILE.json]

Each model of ``int8_models.py`` is trained and pruned by a run (one that lies in the folder already is taken). Dense and pruned are
exported in float, in int8 by ONNX Runtime and in int8 by NNCF for OpenVINO, one point of accuracy allowed against the dense model
in each; then all six take turns in every runtime that is installed and reads them, on one thread, in batches of 1 and 8. Prints
Markdown: bytes of the file, accuracy of what the file answers to the test examples with its 95 % interval, and for each batch size
the time in the runtime that is fastest for that file, with the ratio to the dense model in its own fastest runtime.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from int8_models import CONTRACT, EVALUATION, RECIPES

from prunus.core.errors import ModelError
from prunus.core.recipes.recipe_file import make_recipe
from prunus.evaluate import measure_quality, observe
from prunus.pipeline import run
from prunus.pipeline.bundle_examples import run_examples
from prunus.pipeline.commands.bench_bundles import bench_bundles
from prunus.pipeline.commands.quantise_bundle import quantise_bundle
from prunus.pipeline.int8.quantise import model_of_file
from prunus.ship import load_bundle
from prunus.ship.openvino_file import OpenVinoFile
from prunus.ship.quantize.int8_formats import INT8_RUNTIMES
from prunus.ship.quantize.int8_runtime import Int8Runtime

BATCHES = (1, 8)
NAMES = {
    "dense": "dense",
    "pruned": "pruned",
    "dense.int8.onnx": "dense, int8 by ONNX Runtime",
    "dense.int8.openvino": "dense, int8 for OpenVINO",
    "bundle.int8.onnx": "pruned, int8 by ONNX Runtime",
    "bundle.int8.openvino": "pruned, int8 for OpenVINO",
}


def main() -> None:
    """Parse, run what isn't there yet, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--runs", type=Path, default=Path("build/int8"))
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    torch.set_num_threads(1)
    found = {name: one(name, asked.runs / name, asked.repeats) for name in asked.models}
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1))
    for name, facts in found.items():
        table(name, facts)


def one(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Return what the six files of a model are."""
    if not (folder / "record.json").exists():
        tree = {"name": name, **RECIPES[name], "evaluation": EVALUATION, "seeds": [0], "output": str(folder)}
        run(make_recipe(tree), overwrite=True)
    facts: dict[str, Any] = {"quality": {}, "bytes": {}, "promise": {}}
    files: list[Path] = []
    bundle = load_bundle(folder / "bundle", trust_code=True)
    recipe = make_recipe({"data": RECIPES[name]["data"]})
    test = run_examples(recipe.data, bundle, None, parts=("test",))["test"]

    def tell(key: str, runtime: Int8Runtime[Any], file: Any) -> None:
        observed = observe(model_of_file(runtime, bundle, file, test), test, test.task)
        facts["quality"][key] = measure_quality(observed, test.task, metrics=["accuracy"]).metrics[0].to_dict()
        facts["bytes"][key] = len(file)

    for part in ("dense", "bundle"):
        whole = INT8_RUNTIMES["onnx"]
        tell(part.replace("bundle", "pruned"), whole, whole.float_file(load_bundle(folder / part, trust_code=True)))
        for to, runtime in INT8_RUNTIMES.items():
            key = f"{part}.int8.{to}"
            try:
                made = quantise_bundle(
                    folder / part,
                    to,
                    asked={"max_drop": CONTRACT["max_drop"]},
                    dense=folder / "dense",
                    trust_code=True,
                    out=folder / key,
                )
            except ModelError as error:
                facts["promise"][key] = str(error)
                continue
            files.append(Path(made["path"]))
            facts["promise"][key] = {name: made[name] for name in ("method", "n_layers", "in_float", "test")}
            written = OpenVinoFile.at(files[-1]) if to == "openvino" else files[-1].read_bytes()
            tell(key, runtime, written)
    names = ["torch", "onnxruntime", "openvino", "mnn"]
    timed = bench_bundles(
        [folder, *files], batch_sizes=BATCHES, threads=(1,), runtimes=names, repeats=repeats, trust_code=True
    )
    return facts | {"bench": timed}


def table(name: str, facts: dict[str, Any]) -> None:
    """Print the table of one model."""
    called = {runtime["name"]: runtime["called"] for runtime in facts["bench"]["runtimes"]}
    heads = [f"ms, batch of {size} | against the best dense" for size in BATCHES]
    print(f"\n**{name}**\n\n| file | bytes | accuracy (95 %) | {' | '.join(heads)} |")
    print(f"|{' --- |' * (3 + 2 * len(BATCHES))}")
    for key, said in NAMES.items():
        if key not in facts["bytes"]:
            continue
        quality = facts["quality"][key]
        cells = [said, f"{facts['bytes'][key] / 1000:.0f} kB"]
        cells.append(f"{100 * quality['value']:.1f} % ({100 * quality['low']:.1f} to {100 * quality['high']:.1f})")
        for cell in facts["bench"]["cells"]:
            row = next(row for row in cell["best"] if Path(row["model"]).name == key)
            cells.append(f"{row['milliseconds']['value']:.3g} ({called[row['runtime']]})")
            speed = row["speedup"]
            cells.append("1" if speed is None else f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})")
        print(f"| {' | '.join(cells)} |")
    for key, promise in facts["promise"].items():
        if isinstance(promise, str):
            print(f"\n{NAMES[key]}: {promise}")
            continue
        test, n_int8 = promise["test"], promise["n_layers"] - len(promise["in_float"])
        print(
            f"\n{NAMES[key]}: {promise['method']}, {n_int8} of {promise['n_layers']} layers in int8; the file's accuracy drops by "
            f"at most {100 * test['bound']:.2f} points against the dense model (95 % confidence, {test['n']} test examples, "
            f"{test['n_lost']} lost and {test['n_gained']} gained; {100 * test['max_drop']:g} allowed)"
        )


if __name__ == "__main__":
    main()
