"""What do allocations lose, and what do adjustments give back, on a U-Net that nothing trains again?

Usage: python benchmarks/adjust.py [--seeds 5] [--keep 0.5] [--steps 400] [--width 8]

A small U-Net with batch norms learns to outline discs, squares and crosses in noise. It is cut to a share of its MACs three ways
(uniform, global, cost-aware; L2 magnitudes), and each result is set right by each adjustment on three calibration sets: 96 pictures
like those of the training, 16 of them, and 96 of another camera (darker, with less contrast). ``measured anew`` is what batch norm
recalibration usually means, on the same pictures, for the dense model too. Dice is the mean over the three shapes on 200 other
pictures of the training's kind; the divergence is that of the answers from the dense model's there, in nats. Medians over seeds
with the least and the largest.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.apply import shrink
from prunus.data import Batch
from prunus.graph.costs.cost_model import count_model
from prunus.pipeline.costing.cost_targets import masks_of
from prunus.pipeline.cut.alternatives import within
from prunus.pipeline.cut.prunable import prunable_graph
from prunus.pipeline.cut.unit_places import kept_outputs
from prunus.recover import adjust, distance, recompute_batch_norm
from prunus.score import Evidence, norm_scales, score_groups
from prunus.select import cost_aware

SIDE, CLASSES = 32, 4
ADJUSTMENTS: tuple[tuple[str, ...], ...] = (
    ("batch_norm",),
    ("bias",),
    ("least_squares",),
    ("least_squares", "bias", "batch_norm"),
)


class Pictures:
    """Pictures with what each pixel shows, like a set of examples."""

    def __init__(self, n: int, seed: int, *, other_camera: bool = False) -> None:
        draw = torch.Generator().manual_seed(seed)
        rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        self.inputs = 0.3 * torch.randn(n, 1, SIDE, SIDE, generator=draw)
        self.targets = torch.zeros(n, SIDE, SIDE, dtype=torch.long)
        for place in range(n):
            for shape in torch.randperm(3, generator=draw)[:2].tolist():
                y, x = torch.randint(6, SIDE - 6, (2,), generator=draw).tolist()
                size = int(torch.randint(3, 6, (1,), generator=draw))
                down, across = (rows - y).abs(), (columns - x).abs()
                inside = (
                    down**2 + across**2 <= size**2,
                    torch.maximum(down, across) <= size - 1,
                    (torch.minimum(down, across) <= 1) & (torch.maximum(down, across) <= size),
                )[shape]
                self.inputs[place, 0][inside] += 1.0
                self.targets[place][inside] = shape + 1
        if other_camera:
            self.inputs = 0.3 * self.inputs - 0.5

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Any:
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for index in order.split(batch_size):
            yield Batch(index, self.inputs[index], self.targets[index])


class Twice(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        parts = []
        for width in (inputs, outputs):
            parts += [
                nn.Conv2d(width, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*parts)


class UNet(nn.Module):
    """Two steps down, two up, with the wide way across."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second, self.deep = Twice(1, width), Twice(width, 2 * width), Twice(2 * width, 4 * width)
        self.up_second = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.up_first = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.out_second, self.out_first = Twice(4 * width, 2 * width), Twice(2 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(functional.max_pool2d(first, 2))
        deep = self.deep(functional.max_pool2d(second, 2))
        second = self.out_second(torch.cat([self.up_second(deep), second], dim=1))
        return self.head(self.out_first(torch.cat([self.up_first(second), first], dim=1)))


def trained(seed: int, steps: int, width: int) -> nn.Module:
    torch.manual_seed(seed)
    model, pictures = UNet(width).train(), Pictures(800, 1000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(pictures), (16,), generator=draw)
        optimizer.zero_grad()
        functional.cross_entropy(model(pictures.inputs[rows]), pictures.targets[rows]).backward()
        optimizer.step()
        rate.step()
    return model.eval()


@torch.no_grad()
def dice(model: nn.Module, pictures: Pictures) -> float:
    found = torch.cat([model(batch.inputs).argmax(1) for batch in pictures.batches(100)])
    scores = []
    for shape in range(1, CLASSES):
        mine, true = found == shape, pictures.targets == shape
        scores.append(2 * float((mine & true).sum()) / max(float(mine.sum() + true.sum()), 1.0))
    return sum(scores) / len(scores)


def cuts(model: nn.Module, share: float) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
    """Return by allocation the model with that share of its MACs, and which outputs of its layers are left."""
    inputs = (torch.zeros(2, 1, SIDE, SIDE),)
    graph = prunable_graph(model, inputs, (), seed=0)
    names = {name: p.detach() for name, p in model.named_parameters()}
    strata = score_groups(graph.groups, Evidence(weight=names), "magnitude_l2", norm_scales=norm_scales(model))
    cost = count_model("macs", graph, graph.groups, model)
    limit = share * cost.total([group.size for group in graph.groups])
    kept = {name: within(strata, cost, limit, name, "mean") for name in ("uniform", "global")}
    kept["cost"] = masks_of(strata, cost_aware(strata, cost, limit))
    found = {}
    for name, masks in kept.items():
        keep = {group.name: mask for group, mask in zip(graph.groups, masks or (), strict=True)}
        small = shrink(model, inputs, graph, {key: torch.from_numpy(mask) for key, mask in keep.items()}).model
        found[name] = small, kept_outputs(model, graph.groups, keep)
    return found


def one_seed(seed: int, steps: int, width: int, share: float) -> dict[tuple[str, str, str], tuple[float, float, str]]:
    """Return (divergence, Dice, what was kept) by calibration set, allocation and adjustment."""
    dense, test = trained(seed, steps, width), Pictures(200, 5000 + seed)
    sets = {
        "alike": Pictures(96, 2000 + seed),
        "few": Pictures(16, 2000 + seed),
        "other camera": Pictures(96, 2000 + seed, other_camera=True),
    }
    smaller = cuts(dense, share)
    rows: dict[tuple[str, str, str], tuple[float, float, str]] = {("", "dense", ""): (0.0, dice(dense, test), "")}

    def note(key: tuple[str, str, str], model: nn.Module, said: str = "") -> None:
        rows[key] = (distance(model, dense, test, measure="kl"), dice(model, test), said)

    for name, (small, _) in smaller.items():
        note(("", name, "cut"), small)
    for calibration, pictures in sets.items():
        for name, model in {"dense": dense, **{name: small for name, (small, _) in smaller.items()}}.items():
            measured = copy.deepcopy(model)
            recompute_batch_norm(measured, pictures, generator=torch.Generator().manual_seed(0))
            note((calibration, name, "measured anew"), measured)
        for name, (small, kept) in smaller.items():
            for kinds in ADJUSTMENTS:
                model = copy.deepcopy(small)
                checks = adjust(model, dense, pictures, kinds, kept=kept, measure="kl").checks
                said = " ".join(
                    "k" if c.verdict == "kept" else "t" if c.verdict == "taken back" else "-" for c in checks
                )
                note((calibration, name, "+".join(kinds)), model, said)
    return rows


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the MACs")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=8)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    found = [one_seed(seed, settings.steps, settings.width, settings.keep) for seed in range(settings.seeds)]
    print(f"{settings.keep:g} of the MACs, {settings.seeds} seeds; k: kept, t: taken back, -: nothing changed")
    print("| calibration | model | adjustment | divergence | Dice | by seed |\n| --- | --- | --- | --- | --- | --- |")
    for key in found[0]:
        rows = [of_seed[key] for of_seed in found]
        cells = [
            *key,
            spread([row[0] for row in rows]),
            spread([row[1] for row in rows]),
            ", ".join(row[2] for row in rows),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
