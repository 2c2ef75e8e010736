from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.recover import distance
from recover_stand_ins import TensorExamples


class Answers(nn.Module):
    def __init__(self, weight: float, shift: float, wrap=lambda y: y) -> None:
        super().__init__()
        self.weight, self.shift, self.wrap = weight, shift, wrap

    def forward(self, x):
        return self.wrap(self.weight * x + self.shift)


def examples(*shape: int) -> TensorExamples:
    inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return TensorExamples(inputs, torch.zeros(len(inputs), dtype=torch.long))


def test_the_relative_distance_is_that_of_all_outputs_together_however_they_are_nested():
    cases = (
        lambda y: y,
        lambda y: {"logits": y, "n": torch.ones(1, dtype=torch.long)},
        lambda y: (y[:, :1], [y[:, 1:]]),
    )
    for wrap in cases:
        far = distance(Answers(1.5, 0, wrap), Answers(1, 0, wrap), examples(9, 4), batch_size=4)
        assert far == pytest.approx(0.5)
    assert distance(Answers(0, 0), Answers(1, 0), examples(9, 4)) == 1.0
    assert math.isnan(distance(Answers(math.nan, 0), Answers(1, 0), examples(9, 4)))


def test_the_divergence_of_answers_is_the_textbooks_and_does_not_see_scores_that_move_together():
    data = examples(9, 4, 2)
    old, new = (torch.distributions.Categorical(logits=w * data.inputs.movedim(1, -1)) for w in (1.0, 0.4))
    wanted = float(torch.distributions.kl_divergence(old, new).mean())
    assert distance(Answers(0.4, 7), Answers(1, 0), data, measure="kl", batch_size=4) == pytest.approx(wanted, abs=1e-6)
    assert distance(Answers(1, 7), Answers(1, 0), data, measure="kl") == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_a_single_score_answers_between_two_classes(shape):
    data = examples(*shape)
    old, new = (torch.distributions.Bernoulli(logits=w * data.inputs) for w in (1.0, 0.4))
    wanted = float(torch.distributions.kl_divergence(old, new).mean())
    assert distance(Answers(0.4, 0), Answers(1, 0), data, measure="kl") == pytest.approx(wanted, abs=1e-6)


def test_a_hidden_state_that_follows_the_cut_is_not_compared():
    narrow = Answers(1.5, 0.0, lambda y: {"logits": y, "hidden": y[:, :2]})
    wide = Answers(1.0, 0.0, lambda y: {"logits": y, "hidden": y})
    alone = Answers(1.5, 0.0), Answers(1.0, 0.0)
    assert distance(narrow, wide, examples(9, 4)) == distance(*alone, examples(9, 4))
    with pytest.raises(ModelError, match="can't be compared with the dense one's"):
        distance(Answers(1.0, 0.0, lambda y: y[:, :2]), Answers(1.0, 0.0), examples(9, 4))
    with pytest.raises(ModelError, match="can't be compared"):
        distance(Answers(1.0, 0.0, lambda y: (y, y)), Answers(1.0, 0.0), examples(9, 4))
