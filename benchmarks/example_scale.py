"""What does it cost to judge examples that don't fit into memory: a scoring pass over files, influence, a thousand classes?

Usage: python benchmarks/example_scale.py [--only influence] [--repetitions 3] [--scale 1] [--folder FOLDER]

One thread. Every cell is a process of its own, and those of one table take turns; the columns are those of
``example_algorithms.py``. The files of the scoring pass (1.4 GB at full scale) are written to ``--folder``, by default a
temporary one that goes afterwards. The bare loop reads the same columns of the same files with pyarrow, stacks them into rows and
runs the same model, and does nothing with what comes out; at pyarrow's own 65,536 rows a batch, and at 8,192, which is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from example_algorithms import MILLION, _measured

ROWS_PER_FILE = MILLION
WIDTH = 32


def main() -> None:
    """Run the cells in turns and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="part of a cell's name")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="where the files of the scoring pass lie, or are written to")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(CELLS[arguments.cell](arguments.folder, arguments.scale)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        chosen = [name for name in CELLS if arguments.only in name]
        if any(name.startswith("scoring pass") for name in chosen):
            _write_files(folder, arguments.scale)
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
        for _ in range(arguments.repetitions):
            for name in chosen:
                rows[name].append(_in_a_process(name, folder, arguments.scale))
                print(f"{name}: {rows[name][-1]['seconds']:.2f} s", file=sys.stderr, flush=True)
    print("| operation | input | processor seconds, median (spread) | MB above | what came out |")
    print("| --- | --- | --- | --- | --- |")
    for name, found in rows.items():
        seconds = sorted(row["seconds"] for row in found)
        spread = f"{statistics.median(seconds):.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f})"
        most = max(row["mb"] for row in found)
        print(f"| {name} | {found[0]['input']} | {spread} | {most:.0f} | {found[0]['found']} |", flush=True)


def _in_a_process(name: str, folder: Path, scale: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--cell", name, "--scale", str(scale), "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _write_files(folder: Path, scale: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    n = int(ROWS_PER_FILE * scale)
    for number in range(10):
        path = folder / f"part-{number}.parquet"
        if path.exists():
            continue
        random = np.random.default_rng(number)
        columns = {f"x{j}": random.standard_normal(n, dtype=np.float32) for j in range(WIDTH)}
        pq.write_table(pa.table({**columns, "label": random.integers(0, 10, n)}), path)


def _files(folder: Path, n_files: int) -> list[Path]:
    return [folder / f"part-{number}.parquet" for number in range(n_files)]


def small_model() -> Any:
    """Return the model of the scoring pass: 32 inputs, 64 units, 10 classes."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 10)).eval()


def bare_loop(folder: Path, scale: float, batch_rows: int, n_files: int = 10) -> dict[str, Any]:
    """A plain inference loop over the files."""
    import pyarrow.parquet as pq
    import torch

    model, names = small_model(), [f"x{j}" for j in range(WIDTH)]

    def loop() -> int:
        n = 0
        with torch.inference_mode():
            for path in _files(folder, n_files):
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=batch_rows, columns=names, use_threads=False):
                        rows = np.stack([column.to_numpy() for column in batch.columns], axis=1)
                        n += len(model(torch.from_numpy(rows)))
        return n

    n, seconds, mb = _measured(loop)
    return {"input": f"{n:,} x {WIDTH} in {n_files} files", "seconds": seconds, "mb": mb, "found": "nothing is kept"}


def scoring_pass(folder: Path, scale: float, names: tuple[str, ...] | None, n_files: int = 10) -> dict[str, Any]:
    """The scores of every row, written to files."""
    from prunus.pipeline.sharding.score_files import score_files

    columns = [f"x{j}" for j in range(WIDTH)]
    labelled = names is None or "loss" in names
    with tempfile.TemporaryDirectory() as output:
        found, seconds, mb = _measured(
            lambda: score_files(
                "example_scale:small_model",
                _files(folder, n_files),
                Path(output) / "scores",
                target="label" if labelled else None,
                names=names,
                columns=columns,
            )
        )
        size = sum(path.stat().st_size for path in Path(output).rglob("*.parquet"))
    result = f"{'all 8 scores' if names is None else ', '.join(names)}: {size / 1e6:.0f} MB on the disk"
    return {"input": f"{found.rows:,} x {WIDTH} in {n_files} files", "seconds": seconds, "mb": mb, "found": result}


def in_turns(folder: Path, scale: float) -> dict[str, Any]:
    """The bare loops and prunus on one file, twelve times in turns in one process: what else the machine does hits all alike."""
    from prunus.pipeline.sharding.shard_scorers import OpenFunction
    from prunus.scale import score_shard

    columns = tuple(f"x{j}" for j in range(WIDTH))
    asked = {"entropy": (None, ("entropy",)), "loss": ("label", ("loss",)), "all scores": ("label", None)}
    opened = {
        name: OpenFunction("example_scale:small_model", target, names, columns)()
        for name, (target, names) in asked.items()
    }
    (file,) = _files(folder, 1)

    def ours(name: str) -> float:
        with tempfile.TemporaryDirectory() as output:
            scores = Path(output) / "scores.parquet"
            return _measured(lambda: score_shard(file, scores, opened[name], batch_rows=65_536))[1]

    ways: dict[str, Callable[[], float]] = {
        "bare 65,536": lambda: bare_loop(folder, scale, 65_536, 1)["seconds"],
        "bare 8,192": lambda: bare_loop(folder, scale, 8_192, 1)["seconds"],
        **{name: lambda name=name: ours(name) for name in asked},
    }
    for work in ways.values():
        work()
    seconds = {name: [] for name in ways}
    for _ in range(12):
        for name, work in ways.items():
            seconds[name].append(work())
    told = "; ".join(f"{name} {statistics.median(found):.3f} s" for name, found in seconds.items())
    best = min(("bare 65,536", "bare 8,192"), key=lambda name: statistics.median(seconds[name]))
    shares = []
    for name in asked:
        ratios = sorted(bare / own for bare, own in zip(seconds[best], seconds[name], strict=True))
        shares.append(f"{name} {statistics.median(ratios):.2f} ({ratios[2]:.2f} to {ratios[-3]:.2f})")
    result = f"{told}; speed over {best}, turn by turn, median and all but the two outermost: {', '.join(shares)}"
    total = sum(map(sum, seconds.values()))
    return {"input": f"{int(ROWS_PER_FILE * scale):,} x {WIDTH}", "seconds": total, "mb": 0, "found": result}


def _influence_case(scale: float) -> tuple[Any, Any, Any, Any]:
    import torch
    from torch import nn

    from prunus.core.batch import Batch

    class Rows:
        def __init__(self, inputs: Any, targets: Any) -> None:
            self.inputs, self.targets = inputs, targets

        def __len__(self) -> int:
            return len(self.inputs)

        def batches(self, batch_size: int, generator: Any = None) -> Any:
            n = len(self.inputs)
            order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
            for index in order.split(batch_size):
                if generator is None:
                    rows = slice(int(index[0]), int(index[-1]) + 1)
                    yield Batch(index, self.inputs[rows], self.targets[rows])
                else:
                    yield Batch(index, self.inputs[index], self.targets[index])

    n = int(MILLION * scale)
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(WIDTH, 10, generator=draw)
    inputs = torch.randn(n + 1000, WIDTH, generator=draw)
    clean = (inputs @ truth).argmax(dim=1)
    wrong = torch.rand(n, generator=draw) < 0.1
    given = torch.where(wrong, (clean[:n] + 1) % 10, clean[:n])
    training, target = Rows(inputs[:n], given), Rows(inputs[n:], clean[n:])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    few = Rows(inputs[: min(n, 50_000)], given[: min(n, 50_000)])
    for _ in range(3):
        for batch in few.batches(256, draw):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
            optimizer.step()
    return model, training, target, wrong


def forward_backward(folder: Path, scale: float) -> dict[str, Any]:
    """One pass with gradients of the mean loss by all weights: an epoch without the optimizer's step."""
    from torch import nn

    model, training, _, _ = _influence_case(scale)

    def loop() -> None:
        for batch in training.batches(2048):
            model.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()

    _, seconds, mb = _measured(loop)
    described = f"{len(training):,} x 32, MLP 128-64-10"
    return {"input": described, "seconds": seconds, "mb": mb, "found": "gradients of batches"}


def influence_on(folder: Path, scale: float, kind: str, n_checkpoints: int = 1) -> dict[str, Any]:
    """Influence of every row on a thousand clean examples, by the last two layers."""
    from prunus.score import influence
    from prunus.tasks import Classification

    model, training, target, wrong = _influence_case(scale)
    task = Classification(tuple(map(str, range(10))))
    found, seconds, mb = _measured(
        lambda: influence([model] * n_checkpoints, training, target, task, kind=kind)  # type: ignore[arg-type]
    )
    order = np.argsort(np.argsort(found.value)) + 1.0
    bad = wrong.numpy()
    n_bad, n_good = bad.sum(), (~bad).sum()
    auc = 1 - (order[bad].sum() - n_bad * (n_bad + 1) / 2) / (n_bad * n_good)
    described = f"{len(training):,} x 32, MLP 128-64-10, 1,000 target examples"
    result = f"wrong labels (10 %) found with AUC {auc:.3f}"
    return {"input": described, "seconds": seconds, "mb": mb, "found": result}


def many_classes(folder: Path, scale: float, share: float) -> dict[str, Any]:
    """Confident learning over a thousand classes, in shards of 10,000 rows that are made when they are asked for."""
    from prunus.score import confident_labels

    n_shards = max(int(100 * scale * share), 1)

    class Shards:
        def __len__(self) -> int:
            return n_shards

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            random = np.random.default_rng(number)
            probability = random.random((10_000, 1000), dtype=np.float32)
            labels = random.integers(0, 1000, 10_000)
            probability[np.arange(10_000), labels] += 50
            probability /= probability.sum(axis=1, keepdims=True)
            return probability, np.where(random.random(10_000) < 0.1, (labels + 1) % 1000, labels)

    found, seconds, mb = _measured(lambda: confident_labels(Shards()))  # type: ignore[arg-type]
    result = f"{found.contradicted.mean():.2%} contradicted (seconds hold the making of the shards, twice)"
    return {"input": f"{n_shards * 10_000:,} x 1,000", "seconds": seconds, "mb": mb, "found": result}


CELLS: dict[str, Callable[[Path, float], dict[str, Any]]] = {
    "scoring pass, a bare loop, batches of 65,536": lambda folder, scale: bare_loop(folder, scale, 65_536),
    "scoring pass, a bare loop, batches of 8,192": lambda folder, scale: bare_loop(folder, scale, 8_192),
    "scoring pass, prunus, entropy": lambda folder, scale: scoring_pass(folder, scale, ("entropy",)),
    "scoring pass, prunus, loss": lambda folder, scale: scoring_pass(folder, scale, ("loss",)),
    "scoring pass, prunus, all scores": lambda folder, scale: scoring_pass(folder, scale, None),
    "scoring pass, prunus, all scores, one file": lambda folder, scale: scoring_pass(folder, scale, None, 1),
    "scoring pass, all in turns in one process": in_turns,
    "influence: one forward and backward pass": forward_backward,
    "influence, prunus, gradient": lambda folder, scale: influence_on(folder, scale, "gradient"),
    "influence, prunus, cosine": lambda folder, scale: influence_on(folder, scale, "cosine"),
    "influence, prunus, leave_out": lambda folder, scale: influence_on(folder, scale, "leave_out"),
    "influence, prunus, gradient, three checkpoints": lambda folder, scale: influence_on(folder, scale, "gradient", 3),
    "many classes, confident learning, prunus": lambda folder, scale: many_classes(folder, scale, 1.0),
    "many classes, confident learning, prunus, a tenth": lambda folder, scale: many_classes(folder, scale, 0.1),
}

if __name__ == "__main__":
    main()
