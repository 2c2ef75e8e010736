"""An embedding is what the last layer with a weight matrix reads."""

import pytest
import torch
from torch import nn

from prunus.core.errors import ModelError
from prunus.score.evidence.block_cosine import BlockWatch
from prunus.score.evidence.movement import MovementRecorder
from prunus.score.examples.embeddings import embed


class Net(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.first, self.norm, self.drop, self.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), head

    def forward(self, x):
        return self.head(self.drop(self.norm(self.first(x)).relu()))


@pytest.mark.parametrize("batch_size", [1, 2, 512])
def test_the_last_layer_s_input_is_the_embedding_and_the_model_is_as_before(examples_of, batch_size):
    net = Net(nn.Linear(4, 2))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    examples = examples_of(x, torch.zeros(5, dtype=torch.long))
    expected = net.eval().norm(net.first(x)).relu().detach()
    for training in (True, False):
        net.train(training)
        found = embed(net, examples, batch_size=batch_size)
        assert (found.shape, found.dtype, found.requires_grad) == ((5, 4), torch.float32, False)
        assert torch.allclose(found, expected, atol=1e-6)
        assert net.training == net.norm.training == training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_convolution_s_input_is_averaged_over_positions_and_scales_are_no_layer(examples_of):
    net = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.ReLU())
    x = torch.randn(4, 2, 5)
    assert torch.equal(embed(net, examples_of(x, torch.zeros(4))), x.mean(dim=2))
    with pytest.raises(ModelError, match="no layer with a weight matrix"):
        embed(nn.BatchNorm1d(3), examples_of(torch.randn(4, 3), torch.zeros(4)))


def test_movement_is_minus_weight_times_gradient_as_it_stands_before_each_step():
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    recorder = MovementRecorder(net, ["weight"])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recorder.attach(optimizer)
    expected = torch.zeros(1, 3)
    optimizer.step()  # no gradient yet
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(4, 3)).square().mean().backward()
        expected -= (net.weight * net.weight.grad).detach()
        optimizer.step()
    assert torch.allclose(recorder.movement["weight"], expected)
    assert recorder.movement.keys() == {"weight"}


@pytest.mark.parametrize(("shape", "dim"), [((6, 5), 1), ((2, 3, 5), -1), ((2, 5, 3, 4), 1)])
def test_the_cosine_of_a_block_is_the_mean_over_examples_and_positions(shape, dim):
    class Turn(nn.Module):
        def forward(self, x, other=None):
            return x.roll(1, dim) + 0.5 * x, other

    net = nn.Sequential(Turn())
    watch, seen = BlockWatch(net, ["0"]), []
    for _ in range(2):
        x = torch.randn(shape)
        with watch:
            net(x)
        seen.append(torch.nn.functional.cosine_similarity(x, x.roll(1, dim) + 0.5 * x, dim=dim).flatten())
    net(torch.randn(shape))  # not watched
    (found,) = watch.results().values()
    assert float(found) == pytest.approx(float(torch.cat(seen).mean()), abs=1e-6)
    assert not net[0]._forward_hooks
    with pytest.raises(ModelError, match="no block '1'"):
        BlockWatch(net, ["1"])
