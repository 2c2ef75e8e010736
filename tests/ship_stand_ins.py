from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from prunus import models
from prunus.core.files.sealed import sealed_tree
from prunus.core.recipes import recipe
from prunus.data import Scaler
from prunus.ship import save_bundle


def network(width: int = 32) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def stand_in_build(config, *, input_shape, n_outputs, seed):
    assert (tuple(input_shape), n_outputs) == ((6,), 3)
    if ":" in config.builder:
        return getattr(sys.modules[config.builder.split(":")[0]], config.builder.split(":")[1])(**config.args)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return network(**config.args)


def rewritten(folder: Path, change) -> None:
    """Change the manifest as one who wants to fool the reader would: with a hash that fits."""
    tree = json.loads((folder / "manifest.json").read_text())
    change(tree)
    (folder / "manifest.json").write_text(json.dumps(sealed_tree(tree)))


@dataclass
class Made:
    """A bundle on disk, and what it was made of."""

    folder: Path
    model: nn.Module
    sha256: str
    inputs: torch.Tensor

    def manifest(self) -> dict:
        return json.loads((self.folder / "manifest.json").read_text())

    def rewrite(self, change) -> None:
        """Change the manifest: see :func:`rewritten`."""
        rewritten(self.folder, change)


@pytest.fixture
def build(monkeypatch):
    """A small built-in model with a known seed, in place of the real ones."""
    monkeypatch.setattr(models, "build", stand_in_build, raising=False)
    return stand_in_build


@pytest.fixture
def pruned():
    """A model smaller than the dense one, with statistics of its own, in training mode."""
    torch.manual_seed(0)
    model = network(width=5)
    model(torch.randn(50, 6) * 3)
    return model


@pytest.fixture
def options():
    return {
        "built_by": recipe.Model(builder="mlp", args={"width": 32}),
        "input_shape": (6,),
        "n_outputs": 3,
        "task": "classification",
        "class_names": ("a", "b", "c"),
        "feature_names": tuple("uvwxyz"),
        "scaler": Scaler(torch.arange(6.0), torch.full((6,), 2.0)),
        "facts": {"seed": 0},
    }


@pytest.fixture
def made(build, pruned, options, tmp_path):
    sha256 = save_bundle(tmp_path / "bundle", pruned, **options)
    return Made(tmp_path / "bundle", pruned, sha256, torch.randn(9, 6))
