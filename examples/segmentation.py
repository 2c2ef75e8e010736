"""A U-Net from end to end: trained on images that are rendered, pruned to half of its MACs, held to a contract on mIoU, exported.

    python examples/segmentation.py unet

Shapes lie on pieces of photographs and on each other, so the class of every pixel is known exactly. What is promised is the mean
intersection over union of all classes, on images that nothing was chosen by. The folder gets the model as ONNX, compared with the
model that it was made of, and a page that shows the masks of both models beside the true ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional

from prunus import ModelOptimizer, load_bundle
from prunus.report import RunRecord, png_data_uri, render_html, with_pictures
from prunus.ship.deploy import export_file
from prunus.tasks import Segmentation

CLASSES = ("background", "circle", "square", "triangle")
COLOURS = torch.tensor([[0.0, 0, 0], [1, 0.2, 0.2], [0.2, 1, 0.2], [0.2, 0.6, 1]])
SIZE = 32


def render(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return images ``(n, 3, 32, 32)`` with one to three shapes each, and the class of every pixel, ``(n, 32, 32)``."""
    random = np.random.default_rng(seed)
    photographs = load_sample_images().images
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    images, masks = [], []
    for _ in range(n):
        photograph = photographs[random.integers(len(photographs))]
        top, left = (random.integers(side - SIZE) for side in photograph.shape[:2])
        image = photograph[top : top + SIZE, left : left + SIZE].astype(np.float32) / 255
        mask = np.zeros((SIZE, SIZE), np.int64)
        for _ in range(random.integers(1, 4)):
            half = random.uniform(5, 9)
            cx, cy = random.uniform(half, SIZE - half, 2)
            label = int(random.integers(1, len(CLASSES)))
            inside = {
                1: np.hypot(x - cx, y - cy) < half,
                2: np.maximum(abs(x - cx), abs(y - cy)) < half,
                3: (y < cy + half) & (abs(x - cx) < (y - cy + half) / 2),
            }[label]
            shade = random.uniform(0, 1, 3) * 0.9 + random.normal(0, 0.05, (SIZE, SIZE, 1))
            image = np.where(inside[..., None], 0.25 * image + 0.75 * shade, image)
            mask = np.where(inside, label, mask)  # the later shape hides the earlier one
        images.append(torch.tensor(np.clip(image, 0, 1), dtype=torch.float32).permute(2, 0, 1))
        masks.append(torch.from_numpy(mask))
    return torch.stack(images), torch.stack(masks)


def block(before: int, after: int) -> nn.Sequential:
    """Return two convolutions with their norms."""
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Down and up again; on the way up every resolution sees what it was on the way down."""

    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(block(before, after) for before, after in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(
            block(fine + coarse, fine) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.head = nn.Conv2d(width, len(CLASSES), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return a score of each class for each pixel, ``(n, classes, height, width)``."""
        seen: list[Tensor] = []
        features = images
        for level, down in enumerate(self.down):
            features = down(functional.max_pool2d(features, 2) if level else features)
            seen.append(features)
        for up, before in zip(self.up, reversed(seen[:-1]), strict=True):
            features = up(torch.cat([before, functional.interpolate(features, scale_factor=2.0)], dim=1))
        return self.head(features)


def train(model: nn.Module, images: Tensor, masks: Tensor, epochs: int, rate: float, seed: int) -> None:
    """Train as you always do: nothing in here knows of pruning."""
    order = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(images) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(32):
            optimizer.zero_grad()
            functional.cross_entropy(model(images[rows]), masks[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def drawn(image: Tensor, mask: Tensor) -> str:
    """Return an image whose pixels are tinted by their class."""
    tint = COLOURS[mask].permute(2, 0, 1)
    seen = torch.where(mask > 0, 0.4 * image + 0.6 * tint, image)
    return f'<img src="{png_data_uri(seen.numpy(), side=4 * SIZE)}" alt="">'


def main(folder: Path, *, n: int = 800, epochs: int = 12, recovery: int = 3, max_drop: float = 0.03) -> RunRecord:
    """Train, prune, hold to the contract, export and draw."""
    torch.manual_seed(0)
    training, test = render(n, seed=0), render(200, seed=1)
    model = UNet()
    train(model, *training, epochs=epochs, rate=5e-3, seed=0)

    optimizer = ModelOptimizer(
        model,
        {  # calibration images guide the search: of its own training images the dense model knows too much
            "train": training,
            "validation": render(200, seed=2),
            "calibration": render(100, seed=3),
            "test": test,
        },
        task=Segmentation(class_names=CLASSES),
        trained=True,
        strategy={"criterion": "taylor", "allocation": "cost"},
        target={"macs": 0.5},
        contract={"metric": "miou", "max_drop": max_drop},
        recovery={"epochs": recovery, "learning_rate": 5e-3, "batch_size": 32},
        evaluation={"bootstrap": 500, "latency": {"runtime": "torch", "repeats": 10, "warm_up": 2}},
        seeds=[0],
    )
    record = optimizer.run()
    optimizer.save(folder / "bundle")
    export_file(load_bundle(folder / "bundle", builder=UNet), "onnx", folder / "unet.onnx")

    images = test[0][:4]
    with torch.no_grad():
        masks = {
            "true": test[1][:4],
            "dense": model(images).argmax(dim=1),
            "pruned": optimizer.model_.eval()(images).argmax(dim=1),
        }
    figures = [(drawn(image, mask[row]), name) for row, image in enumerate(images) for name, mask in masks.items()]
    (folder / "report.html").write_text(with_pictures(render_html(record), "What both find", figures))
    return record


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "unet")
    for row in main(out).comparison:
        print(f"{row.metric}: {row.dense:.3f} dense, {row.pruned:.3f} pruned, {row.verdict}")
