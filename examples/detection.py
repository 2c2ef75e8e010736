"""A detector from end to end: trained on images that are rendered, pruned to half of its MACs, held to a contract on mAP, exported.

    python examples/detection.py detector

Shapes lie on pieces of photographs, so their boxes are known exactly. The detector says for each cell of a grid which shape is
centred there, and where its sides are. What is promised is COCO's mAP, on images that nothing was chosen by. The folder gets the
model as ONNX and a page that shows what both models find.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from prunus import ModelOptimizer, load_bundle
from prunus.report import RunRecord, png_data_uri, render_html, with_pictures
from prunus.ship.deploy import export_file
from prunus.tasks import Detection

SHAPES = ("circle", "square", "triangle")
COLOURS = {"circle": "red", "square": "lime", "triangle": "cyan"}
SIZE, STRIDE = 64, 8


def render(n: int, seed: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Return images ``(n, 3, 64, 64)`` with one to three shapes each, and their boxes (x1, y1, x2, y2) and classes."""
    random = np.random.default_rng(seed)
    photographs = load_sample_images().images
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    images, targets = [], []
    for _ in range(n):
        photograph = photographs[random.integers(len(photographs))]
        top, left = (random.integers(side - SIZE) for side in photograph.shape[:2])
        image = photograph[top : top + SIZE, left : left + SIZE].astype(np.float32) / 255
        boxes: list[list[float]] = []
        labels = []
        for _ in range(random.integers(1, 4)):
            half = random.uniform(6, 14)
            cx, cy = random.uniform(half, SIZE - half, 2)
            box = [cx - half, cy - half, cx + half, cy + half]
            if any(min(box[2], b[2]) > max(box[0], b[0]) and min(box[3], b[3]) > max(box[1], b[1]) for b in boxes):
                continue  # shapes don't hide each other
            label = int(random.integers(len(SHAPES)))
            inside = {
                0: np.hypot(x - cx, y - cy) < half,
                1: np.maximum(abs(x - cx), abs(y - cy)) < half,
                2: (y < cy + half) & (abs(x - cx) < (y - cy + half) / 2),
            }[label]
            shade = random.uniform(0, 1, 3) * 0.9 + random.normal(0, 0.05, (SIZE, SIZE, 1))
            image = np.where(inside[..., None], 0.25 * image + 0.75 * shade, image)
            boxes.append(box)
            labels.append(label)
        images.append(torch.tensor(np.clip(image, 0, 1), dtype=torch.float32).permute(2, 0, 1))
        targets.append({"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)})
    return torch.stack(images), targets


class Detector(nn.Module):
    """Convolutions down to a grid of 8 x 8 cells, and two heads: which shape, and how far to each side of the box."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 4 * width, 4 * width)
        layers: list[nn.Module] = []
        for depth, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2 if depth < 3 else 1, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.kinds = nn.Conv2d(4 * width, len(SHAPES), 1)
        self.sides = nn.Conv2d(4 * width, 4, 1)
        nn.init.constant_(self.kinds.bias, -3.0)  # most cells hold nothing

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return ``logits`` (n, cells, classes) and ``pred_boxes`` (n, cells, 4): centre and sides, as parts of the image."""
        features = self.body(images)
        height, width = features.shape[2:]
        y = (torch.arange(height, device=images.device) + 0.5) / height
        x = (torch.arange(width, device=images.device) + 0.5) / width
        left, top, right, bottom = functional.softplus(self.sides(features)).div(4).unbind(1)
        low_x, low_y, high_x, high_y = x - left, y[:, None] - top, x + right, y[:, None] + bottom
        boxes = torch.stack([(low_x + high_x) / 2, (low_y + high_y) / 2, high_x - low_x, high_y - low_y], dim=1)
        return {"logits": self.kinds(features).flatten(2).mT, "pred_boxes": boxes.flatten(2).mT}


def corners(boxes: Tensor) -> Tensor:
    """Return centres and sides as x1, y1, x2, y2."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)


def detection_loss(outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
    """Return focal loss over the cells, plus 1 - GIoU of the cells in the middle of an object."""
    logits, boxes = outputs["logits"], outputs["pred_boxes"]
    cells = SIZE // STRIDE
    place = (torch.arange(cells) + 0.5) / cells
    centre = torch.stack([place.repeat(cells), place.repeat_interleave(cells)], dim=1)
    wanted, here, there = torch.zeros_like(logits), [], []
    for row, target in enumerate(targets):
        for box, label in zip(target["boxes"] / SIZE, target["labels"], strict=True):
            middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 4
            inside = ((centre - middle).abs() <= half.clamp(min=0.5 / cells)).all(dim=1)
            wanted[row, inside, label] = 1
            here.append(boxes[row, inside])
            there.append(box.expand(int(inside.sum()), 4))
    probability = logits.sigmoid()
    hard = (wanted - probability).abs().square()
    focal = (hard * functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()
    found, real = corners(torch.cat(here)), torch.cat(there)
    inter = (torch.minimum(found[:, 2:], real[:, 2:]) - torch.maximum(found[:, :2], real[:, :2])).clamp(min=0).prod(1)
    union = (found[:, 2:] - found[:, :2]).prod(1) + (real[:, 2:] - real[:, :2]).prod(1) - inter
    around = (torch.maximum(found[:, 2:], real[:, 2:]) - torch.minimum(found[:, :2], real[:, :2])).prod(1)
    giou = inter / union - (around - union) / around
    return focal / max(len(real), 1) + 2 * (1 - giou).mean()


def train(
    model: nn.Module, images: Tensor, targets: list[dict[str, Tensor]], epochs: int, rate: float, seed: int
) -> None:
    """Train as you always do: nothing in here knows of pruning."""
    order = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(images) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(32):
            optimizer.zero_grad()
            detection_loss(model(images[rows]), [targets[row] for row in rows.tolist()]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def as_loader(images: Tensor, targets: list[dict[str, Tensor]]) -> DataLoader:
    """Return a loader as a detector's training has it: targets stay a list, since images hold different numbers of boxes."""
    return DataLoader(
        list(zip(images, targets, strict=True)),
        batch_size=32,
        collate_fn=lambda pairs: (torch.stack([image for image, _ in pairs]), [target for _, target in pairs]),
    )


def drawn(image: Tensor, found: list[dict]) -> str:
    """Return an image with boxes as SVG: the colours are classes, and what the model is less sure of is fainter."""
    marks = "".join(
        f'<rect x="{x1 * SIZE:.1f}" y="{y1 * SIZE:.1f}" width="{(x2 - x1) * SIZE:.1f}" height="{(y2 - y1) * SIZE:.1f}" '
        f'fill="none" stroke="{COLOURS[one["class"]]}" opacity="{one["score"]:.2f}"/>'
        for one in found
        for x1, y1, x2, y2 in [one["box"]]
    )
    picture = f'<image href="{png_data_uri(image.numpy())}" width="{SIZE}" height="{SIZE}"/>'
    return f'<svg viewBox="0 0 {SIZE} {SIZE}">{picture}{marks}</svg>'


def main(folder: Path) -> RunRecord:
    """Train, prune, hold to the contract, export and draw."""
    torch.manual_seed(0)
    training, test = render(1200, seed=0), render(200, seed=1)
    model = Detector()
    train(model, *training, epochs=6, rate=4e-3, seed=0)

    task = Detection(class_names=SHAPES, nms=0.5)
    optimizer = ModelOptimizer(
        model,
        {"train": as_loader(*training), "validation": as_loader(*render(150, seed=2)), "test": as_loader(*test)},
        task=task,
        trained=True,
        loss=lambda outputs, batch: detection_loss(outputs, batch.targets),
        strategy={"criterion": "taylor", "allocation": "cost"},
        target={"macs": 0.5},
        contract={"metric": "map", "max_drop": 0.03},
        recovery={"epochs": 3, "learning_rate": 4e-3, "batch_size": 32},
        evaluation={"bootstrap": 500, "latency": {"runtime": "torch", "repeats": 10, "warm_up": 2}},
        seeds=[0],
    )
    record = optimizer.run()
    optimizer.save(folder / "bundle")
    export_file(load_bundle(folder / "bundle", builder=Detector), "onnx", folder / "detector.onnx")

    images = test[0][:6]
    with torch.no_grad():
        both = {"dense": model(images), "pruned": optimizer.model_.eval()(images)}
    figures = [
        (drawn(image, task.decode(outputs).labels[row]), name)
        for row, image in enumerate(images)
        for name, outputs in both.items()
    ]
    (folder / "report.html").write_text(with_pictures(render_html(record), "What both find", figures))
    return record


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "detector")
    for row in main(out).comparison:
        print(f"{row.metric}: {row.dense:.3f} dense, {row.pruned:.3f} pruned, {row.verdict}")
