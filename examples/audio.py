"""A tagger of sounds from end to end: convolutions and an LSTM, pruned to half of their MACs, held to a contract on F1, exported.

    python examples/audio.py tagger

Tones, chirps and bursts of noise are rendered into background noise, so it is known to the sample when each begins and ends. The
model says of every 16 ms what is heard. What is promised is F1 of these frames, the mean over the three sounds (Dice is its name
where frames are pixels), on clips that nothing was chosen by. The LSTM's units go like any others, and least squares sets right
what is left before it is trained.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus import ModelOptimizer, load_bundle
from prunus.report import RunRecord, write_html
from prunus.ship.deploy import export_file
from prunus.tasks import Segmentation

SOUNDS = ("silence", "tone", "chirp", "noise")
RATE, HOP, BANDS, FRAMES = 4000, 64, 32, 62


def render(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return spectrograms of clips of one second, ``(n, 32, 62)``, and what is heard in each frame, ``(n, 62)``."""
    random = np.random.default_rng(seed)
    time = np.arange(HOP * FRAMES) / RATE
    clips, tags = [], []
    for _ in range(n):
        clip, heard = random.normal(0, 0.05, len(time)), np.zeros(len(time), np.int64)
        start = random.uniform(0, 0.25)
        for _ in range(random.integers(1, 4)):  # one after the other
            end = start + random.uniform(0.12, 0.35)
            inside, since = (time >= start) & (time < end), time - start
            label = int(random.integers(1, len(SOUNDS)))
            low, high = random.uniform(200, 1800, 2)
            slope = {1: 0.0, 2: (high - low) / (end - start), 3: 0.0}[label]
            wave = np.sin(2 * np.pi * (low * since + slope * since**2 / 2))
            if label == 3:
                wave = random.normal(0, 0.7, len(time))
            clip = clip + random.uniform(0.06, 0.3) * inside * wave
            heard = np.where(inside, label, heard)
            start = end + random.uniform(0.03, 0.2)
        clips.append(clip)
        tags.append(heard[HOP // 2 :: HOP])  # what is heard in the middle of a frame
    waves = torch.tensor(np.stack(clips), dtype=torch.float32)
    window = torch.hann_window(4 * HOP)
    power = torch.stft(waves, 4 * HOP, HOP, window=window, return_complex=True).abs()[:, 1 : 4 * BANDS + 1, :FRAMES]
    return functional.avg_pool1d(power.transpose(1, 2), 4).transpose(1, 2).log1p(), torch.tensor(np.stack(tags))


class Tagger(nn.Module):
    """Convolutions over time and frequency, an LSTM over time in both directions, and a score of each sound for each frame."""

    def __init__(self, width: int = 12, state: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d((2, 1))]
        self.body = nn.Sequential(*layers)
        self.project = nn.Linear(2 * width * BANDS // 8, 2 * state)
        self.memory = nn.LSTM(2 * state, state, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * state, len(SOUNDS))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Return a score of each sound for each frame, ``(n, sounds, frames)``."""
        features = self.body(spectrogram[:, None]).flatten(1, 2).transpose(1, 2)
        states, _ = self.memory(torch.relu(self.project(features)))
        return self.head(states).transpose(1, 2)


def train(model: nn.Module, clips: Tensor, tags: Tensor, epochs: int, rate: float, seed: int) -> None:
    """Train as you always do: nothing in here knows of pruning."""
    order = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(clips) // 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(clips), generator=order).split(32):
            optimizer.zero_grad()
            functional.cross_entropy(model(clips[rows]), tags[rows]).backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main(folder: Path, *, n: int = 800, epochs: int = 6, recovery: int = 3, max_drop: float = 0.03) -> RunRecord:
    """Train, prune, set right, hold to the contract and export."""
    torch.manual_seed(0)
    training = render(n, seed=0)
    model = Tagger()
    train(model, *training, epochs=epochs, rate=1e-2, seed=0)

    optimizer = ModelOptimizer(
        model,
        {"train": training, "validation": render(200, seed=2), "test": render(200, seed=1)},
        task=Segmentation(class_names=SOUNDS),  # a class for each frame of a clip, as for each pixel of an image
        trained=True,
        strategy={"criterion": "taylor", "allocation": "cost"},
        target={"macs": 0.5},
        contract={"metric": "dice_foreground", "max_drop": max_drop},
        metrics=["dice_foreground", "pixel_accuracy"],
        recovery={"adjust": ["least_squares"], "epochs": recovery, "learning_rate": 5e-3, "batch_size": 32},
        evaluation={"bootstrap": 500, "latency": {"runtime": "torch", "repeats": 10, "warm_up": 2}},
        seeds=[0],
    )
    record = optimizer.run()
    optimizer.save(folder / "bundle")
    export_file(load_bundle(folder / "bundle", builder=Tagger), "onnx", folder / "tagger.onnx")
    write_html(record, folder / "report.html")
    return record


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "tagger")
    result = main(out)
    for row in result.comparison:
        print(f"{row.metric}: {row.dense:.3f} dense, {row.pruned:.3f} pruned, {row.verdict}")
