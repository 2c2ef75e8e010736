"""Are distances those of the papers, class by class, and do examples of any task have a place?"""

import numpy as np
import pytest
import torch
from torch import nn

from prunus import ModelOptimizer
from prunus.core.errors import RecipeError
from prunus.score import embed, example_criteria


def test_distances_are_to_the_mean_of_the_own_class():
    draw = torch.Generator().manual_seed(0)
    rows, label = torch.randn(50, 4, generator=draw), torch.arange(50) % 3
    found = example_criteria["prototype"]({"embedding": rows, "label": label})
    means = np.stack([rows[label == k].numpy().mean(axis=0) for k in range(3)])
    distance = np.linalg.norm(rows.numpy() - means[label.numpy()], axis=1)
    np.testing.assert_allclose(found.numpy(), distance, rtol=1e-5)
    moderate = example_criteria["moderate"]({"embedding": rows, "label": label}).numpy()
    for k in range(3):
        own = label.numpy() == k
        middle = np.sort(distance[own])[(own.sum() - 1) // 2]
        np.testing.assert_allclose(moderate[own], -np.abs(distance[own] - middle), rtol=1e-4, atol=1e-5)


def test_density_is_the_mean_distance_to_ten_others():
    rows = torch.randn(1500, 5, generator=torch.Generator().manual_seed(1))
    found = example_criteria["density"]({"embedding": rows})
    apart = torch.cdist(rows.double(), rows.double()).sort(dim=1).values[:, 1:11].mean(dim=1)
    np.testing.assert_allclose(found.numpy(), apart.numpy(), rtol=1e-4)


@pytest.mark.parametrize("last", ["convolution", "linear"])
def test_an_example_of_many_positions_has_one_place(examples_of, last):
    inputs = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(2))
    examples = examples_of(inputs, torch.arange(6) % 2)
    if last == "convolution":
        model = nn.Conv2d(2, 3, 1)
        expected = inputs.mean(dim=(2, 3))
    else:
        model = nn.Linear(5, 3)
        expected = inputs.mean(dim=(1, 2))
    torch.testing.assert_close(embed(model, examples), expected)


def several_labels(criterion):
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(120, 6, generator=draw)
    torch.manual_seed(0)
    return ModelOptimizer(
        nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)),
        list(zip(inputs, (inputs[:, :3] > 0).float(), strict=True)),
        task="multilabel",
        strategy="magnitude_l2",
        train={"epochs": 1},
        recovery={"epochs": 1},
        seeds=[0],
        examples={"epochs": 1, "remove": [{"criterion": criterion, "keep_fraction": 0.75}]},
    )


def test_examples_of_any_task_have_a_place_and_only_classes_have_a_centre():
    optimizer = several_labels("density")
    optimizer.prune(keep_fraction=0.5)
    (decision,) = optimizer.plan_.steps[0].decisions
    assert decision.n_kept == round(0.75 * len(decision.unit))
    with pytest.raises(
        RecipeError, match="prototype reads label, which the task multilabel doesn't give of its examples"
    ):
        several_labels("prototype")


def test_what_stays_of_k_centre_covers_better_than_chance():
    draw = torch.Generator().manual_seed(4)
    rows = torch.randn(400, 3, generator=draw)
    worth = example_criteria["k_centre"]({"embedding": rows})
    assert sorted(worth.tolist()) == list(range(1, 401))

    def radius(kept):
        return float(torch.cdist(rows, rows[kept]).amin(dim=1).max())

    chance = [radius(torch.randperm(400, generator=draw)[:40]) for _ in range(20)]
    assert radius(worth.topk(40).indices) < min(chance)
