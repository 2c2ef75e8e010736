"""Is a target that no cut reaches refused before anything is trained, whatever its cost is counted in?"""

import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe_file import make_recipe
from prunus.pipeline import run
from prunus.pipeline.stages import model_stage
from recipe_samples import IRIS


@pytest.fixture(autouse=True)
def _nothing_is_trained(monkeypatch):
    monkeypatch.setattr(model_stage, "train", lambda *a, **k: pytest.fail("trained"))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


@pytest.mark.parametrize("kind", ["params", "macs", "bytes", "latency"])
def test_the_facade_refuses_it_when_it_is_made(kind, work_clock):
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    latency = {"batch_size": 8, "repeats": 5, "warm_up": 1, "runtime": "torch"}
    with pytest.raises(RecipeError, match=r"0\.001 of the .* is below the floor"):
        ModelOptimizer(
            network(),
            (x, (x[:, 0] > 0).long()),
            strategy={"criterion": "magnitude_l2", "min_units": 4},
            target={kind: 0.001},
            evaluation={"latency": latency},
        )


@pytest.mark.parametrize("kind", ["params", "latency"])
def test_a_run_refuses_it_before_its_first_training(kind, tmp_path, work_clock):
    tree = {**IRIS, "strategy": {"criterion": "magnitude_l2"}, "target": {kind: 0.001}, "output": str(tmp_path / "out")}
    with pytest.raises(RecipeError, match=r"0\.001 of the .* is below the floor"):
        run(make_recipe(tree))
