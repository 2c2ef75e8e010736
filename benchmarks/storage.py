"""How many bytes does a pruned model take on disk? Print dense, zstd over the raw file with its zeros, and prunus' bundle.

A convolutional network of about a million weights is trained on scikit-learn's digits, pruned by magnitude (LAMP, or 2:4) and
fine-tuned. Every packed file is read back and compared bit for bit.

Usage: python benchmarks/storage.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import torch
from safetensors.torch import save
from sklearn.datasets import load_digits
from torch import nn

from prunus import ModelOptimizer
from prunus.core.tensors import save_tensors
from prunus.ship.pack import pack, unpack

EPOCHS = 4


def network() -> nn.Module:
    """Return a network of 1.1 M weights for 8 x 8 images."""
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2048, 480),
        nn.ReLU(),
        nn.Linear(480, 10),
    )


def main() -> None:
    """Print one Markdown row per sparsity."""
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    data = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    model = network()
    optimizer = ModelOptimizer(model, data, train={"epochs": EPOCHS}).fit()
    dense = optimizer.model_
    print(
        f"{sum(p.numel() for p in dense.parameters()):,} parameters, trained {EPOCHS} epochs; bytes of the weight file\n"
    )
    heads = ["pruned", "weights zero", "test accuracy", "dense", "zstd 1 / 19 over zeros", "prunus", "smaller"]
    heads += ["of it, mask", "back bit for bit"]
    print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    row("nothing", dense, accuracy(optimizer))
    for label, strategy in (
        ("50 %", {"keep_fraction": 0.5}),
        ("75 %", {"keep_fraction": 0.25}),
        ("90 %", {"keep_fraction": 0.1}),
        ("95 %", {"keep_fraction": 0.05}),
        ("2:4", {"granularity": "2:4", "exclude": ["1"]}),
    ):
        given = {"granularity": "weight", "allocation": "lamp", **strategy}
        if label == "2:4":
            given.pop("allocation")
        pruner = ModelOptimizer(dense, data, strategy=given, trained=True, recovery={"epochs": 4}).prune()
        row(label, pruner.model_, accuracy(pruner))


def accuracy(optimizer: ModelOptimizer) -> float:
    """Return the accuracy on the test examples."""
    return next(m.value for m in optimizer.evaluate()["test"].metrics if m.name == "accuracy")


def row(label: str, model: nn.Module, quality: float) -> None:
    """Pack, read back, compare and print."""
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    raw = save(state)
    zstd = [len(pa.Codec("zstd", compression_level=level).compress(raw, asbytes=True)) for level in (1, 19)]
    stored, entries = pack(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        save_tensors(stored, path)
        ours = path.stat().st_size
        back = unpack(path.read_bytes(), entries, path)
    same = all(back[name].flatten().view(torch.uint8).equal(t.flatten().view(torch.uint8)) for name, t in state.items())
    weights = [p for p in model.parameters() if p.dim() > 1]
    zero = sum(int((p == 0).sum()) for p in weights) / sum(p.numel() for p in weights)
    mask = sum(entry.parts[0] for entry in entries.values() if entry.parts)
    cells = [label, f"{zero:.1%}", f"{quality:.1%}", f"{len(raw):,}", " / ".join(f"{n:,}" for n in zstd), f"{ours:,}"]
    print(
        "| " + " | ".join([*cells, f"{len(raw) / ours:.2f}x", f"{mask:,}", "yes" if same else "NO"]) + " |", flush=True
    )


if __name__ == "__main__":
    main()
