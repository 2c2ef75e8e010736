"""How parameters move: the oracle is the textbook's optimizer, without a fused kernel."""

import pytest
import torch
from torch import nn

from prunus.core.recipes.recipe import Train
from prunus.recover import train
from prunus.recover.training.optimizers import make_optimizer
from recover_stand_ins import make_examples

SGD = Train(optimizer="sgd", momentum=0.9, learning_rate=0.1, weight_decay=0.01)


class Rare(nn.Module):
    """A model with a layer that only some examples reach."""

    def __init__(self) -> None:
        super().__init__()
        self.often, self.rare = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, inputs):
        few = inputs[:, :1] > 1.6
        return self.often(inputs) + self.rare(inputs) * few if bool(few.any()) else self.often(inputs)


def test_a_gradient_that_comes_late_begins_its_momentum_then():
    fused, plain = ([nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3, 2))] for _ in range(2))
    optimizer = make_optimizer(fused, SGD)
    oracle = torch.optim.SGD(plain, lr=0.1, momentum=0.9, weight_decay=0.01, fused=False, foreach=False)
    draw = torch.Generator().manual_seed(0)
    for late in (False, False, True, True, False):
        for one, other in zip(fused, plain, strict=True):
            one.grad = torch.randn(one.shape, generator=draw)
            other.grad = one.grad.clone()
        if not late:
            fused[0].grad = plain[0].grad = None
        optimizer.step()
        oracle.step()
        for one, other in zip(fused, plain, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_layer_that_no_example_of_the_first_batch_reaches_is_trained_from_when_one_does(optimizer):
    torch.manual_seed(0)
    model, examples = Rare(), make_examples(60)
    before = model.rare.weight.detach().clone()
    n_rare = int((examples.inputs[:, 0] > 1.6).sum())
    assert 0 < n_rare < 10
    config = Train(optimizer=optimizer, momentum=0.9, epochs=2, batch_size=4)
    train(model, examples, config, seed=0, stage="train")
    assert not torch.equal(model.rare.weight, before)
