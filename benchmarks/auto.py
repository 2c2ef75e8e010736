"""How near does ``prunus.prune`` with ``auto`` come to the best single criterion, which nobody knows beforehand?

    python benchmarks/auto.py [--seeds 0 1 2] [--cases "digits, GRU"]

Real data that come with scikit-learn; dense models are trained here, nothing is trained after the cut. Every single criterion has
the same allocation for all groups (``uniform``) and the same adjustments as ``auto``. Prints a Markdown table: the metric on test
examples that no decision saw, mean over the seeds, each with its own split and weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import mean

import torch
from task_models import Encoder, conv, diabetes, digits
from torch import Tensor, nn

import prunus
from prunus.core.events import silent

SINGLE = ("magnitude_l2", "wanda", "activation_variance", "fisher_empirical", "taylor", "reconstruction")
SHARES = (0.75, 0.5, 0.25)


class Reader(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(8, 64, batch_first=True)  # type: ignore[arg-type]
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.rnn(x.squeeze(1))[0][:, -1])
        return found


Rows = dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, Tensor]], int]]
CASES: Rows = {
    "digits, conv net": (conv, digits, 10),
    "digits, GRU": (lambda: Reader(nn.GRU), digits, 30),
    "digits, LSTM": (lambda: Reader(nn.LSTM), digits, 30),
    "digits, transformer": (Encoder, digits, 30),
    "diabetes, two numbers (R²), MLP": (
        lambda: nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)),
        diabetes,
        40,
    ),
}


def fitted(make: Callable[[], nn.Module], x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.mse_loss if y.is_floating_point() else nn.functional.cross_entropy
            optimizer.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def score(model: nn.Module, x: Tensor, y: Tensor) -> float:
    outputs = model.eval()(x)
    if y.is_floating_point():
        return float((1 - (outputs - y).square().sum(0) / (y - y.mean(0)).square().sum(0)).mean())
    return float((outputs.argmax(1) == y).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    seeds = arguments.seeds
    torch.set_num_threads(1)
    ways = ("auto", "auto, no labels", *SINGLE)
    print("| model | MACs left | dense | " + " | ".join(ways) + " |")
    print("| --- " * (3 + len(ways)) + "|")
    for name in arguments.cases:
        make, load, epochs = CASES[name]
        found: dict[tuple[float, str], list[float]] = {}
        whole = []
        for seed in seeds:
            torch.manual_seed(seed)
            x, y = load()
            order = torch.randperm(len(x))
            fit, test = order[: int(0.7 * len(x))], order[int(0.7 * len(x)) :]
            dense = fitted(make, x[fit], y[fit], epochs)
            whole.append(score(dense, x[test], y[test]))
            labelled, alone = (x[fit], y[fit]), x[fit]
            for share in SHARES:
                for way in ways:
                    data = alone if way == "auto, no labels" else labelled
                    single = {"criterion": way, "allocation": "uniform"} if way in SINGLE else {}
                    small = prunus.prune(
                        dense, x[:2], data=data, target={"macs": share}, seed=seed, listener=silent, **single
                    ).model
                    found.setdefault((share, way), []).append(score(small, x[test], y[test]))
        for share in SHARES:
            row = {way: 100 * mean(found[share, way]) for way in ways}
            best = max(row[way] for way in SINGLE)
            cells = [f"**{value:.1f}**" if value >= best else f"{value:.1f}" for value in row.values()]
            print(f"| {name} | {share:g} | {100 * mean(whole):.1f} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
