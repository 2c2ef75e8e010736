from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from prunus.core.errors import RecipeError
from prunus.core.recipes.recipe import Distil, Train
from prunus.recover import default_loss, distillation_loss, match_features, train
from prunus.recover.feature_distillation import feature_distance
from prunus.tasks import Classification
from recover_stand_ins import make_examples


class Block(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def network(width: int = 8, inner: int = 16, blocks: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = [("stem", nn.Linear(4, width)), ("body", nn.Sequential(*(Block(width, inner) for _ in range(blocks))))]
    return nn.Sequential(OrderedDict([*parts, ("head", nn.Linear(width, 3))]))


def distances(match, inputs):
    with torch.no_grad(), match.attached():
        match.student.eval()(inputs)
        match.teacher.eval()(inputs)
        return float(match.distance())


@pytest.mark.parametrize("width", [8, 5])
def test_distilling_features_pulls_them_together_where_outputs_alone_don_t(width):
    examples, after = make_examples(n=128), []
    for weight in (0.0, 5.0):
        teacher, student = network(), network(width=width, seed=1)
        match = match_features(student, teacher, examples.inputs[:4])
        before = distances(match, examples.inputs)
        config = Distil(features=weight, weight=1.0)
        loss = distillation_loss(teacher, config, default_loss(Classification()), features=match)
        with match.attached():
            train(student, examples, Train(epochs=30, learning_rate=0.01), seed=0, stage="fit", loss=loss)
        after.append(distances(match, examples.inputs) / before)
    assert after[1] < 0.5
    assert after[1] < 0.7 * after[0]


def test_the_blocks_are_found_by_themselves_and_layers_where_there_are_none():
    inputs = torch.randn(4, 4)
    names = [name for name, _ in match_features(network(width=5), network(), inputs).pairs]
    assert names == ["body.0", "body.1", "body.2"]
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    assert match_features(copy.deepcopy(plain), plain, inputs).pairs == (("0", "0"), ("2", "2"))


def test_of_a_stack_that_lost_blocks_the_last_one_alone_is_compared():
    match = match_features(network(blocks=2), network(blocks=4), torch.randn(4, 4))
    assert match.pairs == (("body.1", "body.3"),)


def test_names_choose_and_a_name_that_fits_nothing_is_refused():
    inputs = torch.randn(4, 4)
    assert match_features(network(), network(), inputs, ["stem", "body.1.up"]).pairs == (
        ("stem", "stem"),
        ("body.1.up", "body.1.up"),
    )
    with pytest.raises(RecipeError, match=r"recovery\.distil\.modules: 'boddy' fits no module.*did you mean 'body'"):
        match_features(network(), network(), inputs, ["boddy"])


def test_a_model_whose_modules_don_t_run_has_nothing_to_compare():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            x = nn.functional.linear(x, self.stem.weight, self.stem.bias)
            return nn.functional.linear(x, self.head.weight, self.head.bias)

    assert match_features(Functional(), Functional(), torch.randn(4, 4)) is None
    assert match_features(nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(4, 4)) is None


def test_matching_and_attaching_leave_no_hook_and_no_mode_behind():
    student, teacher = network().train(), network().train()
    student.body[1].eval()
    match = match_features(student, teacher, torch.randn(4, 4))
    with match.attached():
        assert sum(len(module._forward_hooks) for module in student.modules()) == 3
    assert not any(module._forward_hooks for model in (student, teacher) for module in model.modules())
    assert student.training
    assert not student.body[1].training
    assert teacher.body[1].training


def test_the_distance_is_zero_for_what_is_alike_and_blind_to_width_scale_and_rotation():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(12, 6, 2, generator=draw)
    assert feature_distance(x, x) == 0
    assert float(feature_distance(x * 1.5, x)) == pytest.approx(0.25, rel=1e-5)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=draw))[0][:12]
    wider = 3 * x.flatten(1) @ rotation
    assert float(feature_distance(wider, x)) == pytest.approx(0, abs=1e-5)
    assert float(feature_distance(torch.randn(12, 20, generator=draw), x)) > 0.3


def test_similarity_is_the_published_formula_up_to_its_factor():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 3, generator=draw), torch.randn(5, 7, generator=draw)
    total = 0.0
    for i in range(5):
        rows = []
        for features in (a, b):
            row = [float(features[i] @ features[j]) for j in range(5)]
            length = sum(value**2 for value in row) ** 0.5
            rows.append([value / length for value in row])
        total += sum((p - q) ** 2 for p, q in zip(*rows, strict=True))
    assert float(feature_distance(a, b)) == pytest.approx(total / 5, rel=1e-5)
