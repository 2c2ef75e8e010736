"""Bundles of the real built-in models: they load without any code but prunus."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from prunus import models
from prunus.core.files.sealed import sealed_tree
from prunus.core.recipes.recipe import Model
from prunus.ship import load_bundle, save_bundle

SHAPES = {"mlp": (6,), "cnn": (1, 8, 8), "resnet": (3, 8, 8)}


@pytest.mark.parametrize("name", list(models.builders))
def test_every_built_in_model_ships_and_comes_back(name, tmp_path):
    shape = SHAPES[name]
    config = Model(builder=name)
    model = models.build(config, input_shape=shape, n_outputs=4, seed=3).eval()
    save_bundle(tmp_path / "b", model, built_by=config, input_shape=shape, n_outputs=4, task="classification")
    inputs = torch.randn(5, *shape)
    assert torch.equal(load_bundle(tmp_path / "b").predict(inputs), model(inputs).detach())


SCRIPT = """
import json, resource, sys
from pathlib import Path
from prunus.core.errors import BundleError
from prunus.ship import load_bundle
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_bundle(Path(sys.argv[1]))
    error = "none"
except BundleError as found:
    error = str(found)
print(json.dumps([error, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024]))
"""


def test_a_manifest_that_asks_for_a_huge_built_in_model_costs_no_memory(tmp_path):
    config = Model(builder="mlp", args={"depth": 1, "width": 16})
    model = models.build(config, input_shape=(6,), n_outputs=4, seed=3)
    save_bundle(tmp_path / "b", model, built_by=config, input_shape=(6,), n_outputs=4, task="classification")
    path = tmp_path / "b" / "manifest.json"
    tree = json.loads(path.read_text())
    tree["model"]["args"] = {"depth": 1, "width": 10**8}
    path.write_text(json.dumps(sealed_tree(tree)))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "b")], capture_output=True, text=True, check=True
    )
    error, grown_mib = json.loads(done.stdout)
    assert "doesn't fit the weights" in error
    assert grown_mib < 200  # the model would take 4.4 GB
