"""How much memory does a run need whose data don't fit into it?

200,000 images of 64 x 64 pixels in three channels (9.8 GB as single precision) are made when they are asked for, and a small
convolutional net is trained, pruned, recovered and measured on them. What counts is the peak of the process above what it held once
the model was built: it must stay under 1.5 GB. Each run is a child process, which reads its own ``ru_maxrss``.

    python benchmarks/memory_data.py [--images N] [--unlabelled] [--workers W]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

LIMIT_GB = 1.5
SIDE = 64


def child(n: int, *, unlabelled: bool, workers: int) -> None:
    """Run the whole job and print what it took as JSON."""
    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Dataset

    from prunus import ModelOptimizer
    from prunus.core.events import silent

    torch.set_num_threads(1)

    class Made(Dataset[Any]):
        """Images that exist while they are looked at: the class is where a square is bright."""

        targets = None if unlabelled else [row % 4 for row in range(n)]

        def __len__(self) -> int:
            return n

        def __getitem__(self, row: int) -> Tensor | tuple[Tensor, int]:
            image = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(row))
            top, left = 32 * (row % 4 // 2), 32 * (row % 2)
            image[:, top : top + 32, left : left + 32] += 0.5
            return image if unlabelled else (image, row % 4)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=4, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    optimizer = ModelOptimizer(
        model,
        DataLoader(Made(), batch_size=128, num_workers=workers),
        strategy={"criterion": "taylor", "keep_fraction": 0.5},
        train={"epochs": 1, "batch_size": 128},
        recovery={"epochs": 1, "batch_size": 128, "adjust": ["least_squares"]},
        evaluation={"bootstrap": 100, "latency": {"runtime": "torch", "repeats": 5, "warm_up": 1}},
        trained=unlabelled,
        seeds=[0],
        listener=silent,
    )
    record = optimizer.run()
    metric = next(row for row in record.quality if row.model == "pruned" and row.split == "test").metrics[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {
        "n": record.data.n,
        "metric": f"{metric.name} {metric.value:.3f}",
        "before_gb": before / 2**20,
        "above_gb": (peak - before) / 2**20,
        "seconds": round(time.process_time() - start),
    }
    print(json.dumps(facts))


def main() -> int:
    """Print one row; 1 where the run needed too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--unlabelled", action="store_true", help="images alone, and a model that counts as trained")
    parser.add_argument("--workers", type=int, default=0, help="processes of the DataLoader")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.images, unlabelled=asked.unlabelled, workers=asked.workers)
        return 0
    made = subprocess.run([sys.executable, *sys.argv, "--child"], capture_output=True, text=True, check=False)
    if made.returncode:
        print(made.stderr, file=sys.stderr)
        return made.returncode
    facts = json.loads(made.stdout.splitlines()[-1])
    size = asked.images * 3 * SIDE**2 * 4 / 1e9
    print(
        f"{asked.images:,} images, {size:.1f} GB: {facts['above_gb']:.2f} GB above the {facts['before_gb']:.2f} GB with the model "
        f"(limit {LIMIT_GB}); {facts['metric']}, {facts['seconds']} s of processor time; {facts['n']}"
    )
    return int(facts["above_gb"] > LIMIT_GB)


if __name__ == "__main__":
    sys.exit(main())
