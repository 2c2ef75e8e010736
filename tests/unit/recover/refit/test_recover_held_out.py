from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.recover import Answers, distance
from recover_stand_ins import TensorExamples


class Answering(nn.Module):
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
        far = distance(Answering(1.5, 0, wrap), Answering(1, 0, wrap), examples(9, 4), batch_size=4)
        assert far == pytest.approx(0.5)
    assert distance(Answering(0, 0), Answering(1, 0), examples(9, 4)) == 1.0
    assert math.isnan(distance(Answering(math.nan, 0), Answering(1, 0), examples(9, 4)))


def test_the_divergence_of_answers_is_the_textbooks_and_does_not_see_scores_that_move_together():
    data = examples(9, 4, 2)
    old, new = (torch.distributions.Categorical(logits=w * data.inputs.movedim(1, -1)) for w in (1.0, 0.4))
    wanted = float(torch.distributions.kl_divergence(old, new).mean())
    assert distance(Answering(0.4, 7), Answering(1, 0), data, measure="kl", batch_size=4) == pytest.approx(
        wanted, abs=1e-6
    )
    assert distance(Answering(1, 7), Answering(1, 0), data, measure="kl") == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_a_single_score_answers_between_two_classes(shape):
    data = examples(*shape)
    old, new = (torch.distributions.Bernoulli(logits=w * data.inputs) for w in (1.0, 0.4))
    wanted = float(torch.distributions.kl_divergence(old, new).mean())
    assert distance(Answering(0.4, 0), Answering(1, 0), data, measure="kl") == pytest.approx(wanted, abs=1e-6)


def test_a_hidden_state_that_follows_the_cut_is_not_compared():
    narrow = Answering(1.5, 0.0, lambda y: {"logits": y, "hidden": y[:, :2]})
    wide = Answering(1.0, 0.0, lambda y: {"logits": y, "hidden": y})
    alone = Answering(1.5, 0.0), Answering(1.0, 0.0)
    assert distance(narrow, wide, examples(9, 4)) == distance(*alone, examples(9, 4))
    with pytest.raises(ModelError, match="can't be compared with the dense one's"):
        distance(Answering(1.0, 0.0, lambda y: y[:, :2]), Answering(1.0, 0.0), examples(9, 4))
    with pytest.raises(ModelError, match="can't be compared"):
        distance(Answering(1.0, 0.0, lambda y: (y, y)), Answering(1.0, 0.0), examples(9, 4))


def test_the_dense_model_answers_once_however_many_are_compared_with_it_as_far_as_memory_reaches():
    data, asked = examples(9, 4), []

    def noted(y):
        asked.append(len(y))
        return {"logits": y[:, :3], "n": y[:, 3:]}

    wide = Answering(1.0, 0.0, noted)
    wrap = {"logits": slice(0, 3), "n": slice(3, 4)}
    narrow = [Answering(w, 0.0, lambda y: {key: y[:, part] for key, part in wrap.items()}) for w in (1.5, 0.7, 0.2)]
    plain = [distance(one, wide, data, batch_size=4) for one in narrow]
    assert asked == [4, 4, 1] * 3
    for memory_bytes, again in ((1 << 20, []), (4 * 4 * 4 + 2 * 1024, [4, 1] * 2), (0, [4, 4, 1] * 2)):
        asked.clear()
        dense = Answers(wide, memory_bytes=memory_bytes)
        assert [distance(one, dense, data, batch_size=4) for one in narrow] == plain
        assert asked == [4, 4, 1, *again]
