"""What does least squares give back on transformers, where nothing is trained again?

Usage: python benchmarks/adjust_transformers.py [--seeds 0 1 2]

Transformers of four blocks (the norm before each part, or after it) learn scikit-learn's digits from patches, and are cut to a
share of their MACs: all widths or single kinds of them, every group by the same share. Then every matrix is fitted to its own
outputs before the cut, in the order of the calls. There are no labels.
Distance is that of the outputs to the dense model's on test examples, accuracy in percent; means over the seeds, and by seed.
"""

from __future__ import annotations

import argparse
from statistics import mean

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import prunus
from prunus.core.events import silent
from prunus.data import collect
from prunus.recover import distance

WAYS = ("cut", "least squares")
KINDS = ("channel", "mlp", "head_dim")


class Encoder(nn.Module):
    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 64, 2, stride=2)
        self.place = nn.Parameter(torch.randn(16, 64) * 0.02)
        self.blocks = nn.Sequential(*(Block(norm_first) for _ in range(4)))
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.blocks(self.embed(x).flatten(2).mT + self.place).mean(1))
        return found


class Block(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.norm_first, self.heads = norm_first, 4
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)
        self.one, self.two = nn.LayerNorm(64), nn.LayerNorm(64)

    def attend(self, x: Tensor) -> Tensor:
        parts = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        found: Tensor = self.out(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        return found

    def forward(self, x: Tensor) -> Tensor:
        if self.norm_first:
            x = x + self.attend(self.one(x))
            return x + self.down(functional.gelu(self.up(self.two(x))))
        x = self.one(x + self.attend(x))
        found: Tensor = self.two(x + self.down(functional.gelu(self.up(x))))
        return found


def trained(seed: int, x: Tensor, y: Tensor, *, norm_first: bool) -> nn.Module:
    torch.manual_seed(seed)
    model = Encoder(norm_first=norm_first).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    steps = 20 * len(x) // 32
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (32,))
        optimizer.zero_grad()
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        rate.step()
    return model.eval()


@torch.no_grad()
def one(
    model: nn.Module, x: Tensor, test: tuple[Tensor, Tensor], kind: str, share: float, way: str
) -> tuple[float, float]:
    """Return the distance and the accuracy."""
    found = prunus.prune(
        model,
        x[:4],
        data=x,
        target={"macs": share},
        criterion="activation_variance" if kind == "channel" else "fisher_empirical",
        allocation="uniform",
        granularity=kind,
        adjust=() if way == "cut" else ("least_squares",),
        listener=silent,
    ).model.eval()
    held = collect(test[0], x[:4], n=len(test[0]), seed=0, device=torch.device("cpu"))
    right = (found(test[0]).argmax(1) == test[1]).double().mean()
    return distance(found, model, held), 100 * float(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    settings = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    rows: dict[tuple[str, str, float], dict[str, list[tuple[float, float]]]] = {}
    for norm_first in (True, False):
        for seed in settings.seeds:
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
            fit, cal, test = order[:1000], order[1000:1256], order[1256:]
            dense = trained(seed, x[fit], y[fit], norm_first=norm_first)
            for kind in KINDS:
                for share in (0.75, 0.5) if kind == "channel" else (0.9, 0.8):
                    cell = rows.setdefault(("before" if norm_first else "after", kind, share), {})
                    for way in WAYS:
                        cell.setdefault(way, []).append(one(dense, x[cal], (x[test], y[test]), kind, share, way))
    print("| norm | cut | MACs | " + " | ".join(f"{way}: distance, accuracy" for way in WAYS) + " |")
    print("| --- " * (len(WAYS) + 3) + "|")
    for (norm, kind, share), cell in rows.items():
        cells = [f"{mean(d for d, _ in cell[way]):.3f}, {mean(a for _, a in cell[way]):.1f}" for way in WAYS]
        print(f"| {norm} | {kind} | {share} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
