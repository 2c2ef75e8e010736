"""MACs against formulas worked out by hand."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.evaluate import measure_cost


class Attend(nn.Module):
    def forward(self, inputs):
        return functional.scaled_dot_product_attention(inputs, inputs, inputs)


class Dot(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, inputs):
        return inputs @ self.weight


class Other(nn.Module):
    """A function of the inputs and of one held tensor."""

    def __init__(self, function, *shape):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(*shape))

    def forward(self, inputs):
        return self.function(inputs, self.weight)


CASES = {
    "a vector and a product": (Other(lambda x, w: torch.addmv(x[:, 0], x, w), 8), (2, 8), 8),
    "two vectors": (Other(lambda x, w: torch.dot(x[0], w) + x, 8), (1, 8), 8),
    "wide values": (
        Other(
            lambda x, w: functional.scaled_dot_product_attention(x, x[..., :5, :], w.expand(len(x), 4, 5, 3)), 4, 5, 3
        ),
        (2, 4, 7, 8),
        4 * 7 * 5 * (8 + 3),
    ),
    "linear": (nn.Linear(8, 5), (3, 8), 8 * 5),
    "linear per step": (nn.Linear(8, 5), (3, 7, 8), 7 * 8 * 5),
    "conv": (nn.Conv2d(4, 8, 3, padding=1), (2, 4, 6, 6), 36 * 8 * 4 * 9),
    "strided conv": (nn.Conv2d(4, 8, 3, padding=1, stride=2), (2, 4, 6, 6), 9 * 8 * 4 * 9),
    "grouped conv": (nn.Conv2d(4, 8, 3, padding=1, groups=2), (2, 4, 6, 6), 36 * 8 * 2 * 9),
    "depthwise conv": (nn.Conv2d(4, 4, 3, padding=1, groups=4), (2, 4, 6, 6), 36 * 4 * 9),
    "conv over time": (nn.Conv1d(4, 8, 3), (2, 4, 9), 7 * 8 * 4 * 3),
    "transposed conv": (nn.ConvTranspose2d(4, 8, 3), (2, 4, 6, 6), 36 * 4 * 8 * 9),
    "attention": (Attend(), (2, 4, 7, 8), 2 * 4 * 7 * 7 * 8),
    "encoder layer": (
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        (2, 7, 16),
        4 * 7 * 16 * 16 + 2 * 7 * 7 * 16 + 2 * 7 * 16 * 32,
    ),
    "lstm": (nn.LSTM(8, 5, batch_first=True), (2, 7, 8), 7 * 4 * 5 * (8 + 5)),
    "two-way lstm of two layers": (
        nn.LSTM(8, 5, num_layers=2, bidirectional=True, batch_first=True),
        (2, 7, 8),
        2 * 7 * 4 * 5 * (8 + 5) + 2 * 7 * 4 * 5 * (10 + 5),
    ),
    "gru": (nn.GRU(8, 5, batch_first=True), (2, 7, 8), 7 * 3 * 5 * (8 + 5)),
    "vector": (Dot(), (2, 8), 8),
    "no product at all": (nn.Sequential(nn.BatchNorm1d(8), nn.ReLU()), (2, 8), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_macs_are_those_of_the_formula(name):
    model, shape, expected = CASES[name]
    assert measure_cost(model, (torch.randn(shape),)).macs == expected


def test_bilinear_takes_two_inputs():
    assert measure_cost(nn.Bilinear(3, 4, 5), (torch.randn(2, 3), torch.randn(2, 4))).macs == 5 * 3 * 4


def test_parameters_are_counted_once_though_they_are_shared_and_zeros_are_told_apart():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[0] = 0
    cost = measure_cost(model, (torch.randn(1, 4),))
    assert (cost.parameters, cost.nonzero_parameters) == (16, 12)


def test_buffers_take_memory_and_every_type_its_own_size():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    # 20 + 8 parameters, 8 statistics and one count of 8 bytes
    assert measure_cost(model, (torch.randn(2, 4),)).memory_bytes == 4 * 28 + 4 * 8 + 8
    assert measure_cost(nn.Linear(4, 4, dtype=torch.float64), (torch.randn(2, 4).double(),)).memory_bytes == 8 * 20


def test_the_model_is_as_it_was_even_after_an_error():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[2].eval()
    before = [module.training for module in model.modules()], model[1].running_mean.clone()
    measure_cost(model, (torch.randn(2, 4),))
    with pytest.raises(RuntimeError):
        measure_cost(model, (torch.randn(2, 9),))
    assert [module.training for module in model.modules()] == before[0]
    assert torch.equal(model[1].running_mean, before[1])
    assert torch.backends.mha.get_fastpath_enabled()


def test_it_goes_through_json():
    facts = measure_cost(nn.Linear(2, 2), (torch.randn(1, 2),)).to_dict()
    assert json.loads(json.dumps(facts)) == facts


def test_the_batch_is_the_first_tensor_s_and_one_where_there_is_none():
    class Counted(nn.Linear):
        def forward(self, n, inputs):
            return super().forward(inputs)

    assert measure_cost(Counted(8, 5), (3, torch.randn(2, 8))).macs == 40
    assert measure_cost(Counted(8, 5), (torch.tensor(3), torch.randn(4, 8))).macs == 40
    assert measure_cost(Other(lambda n, w: w @ w, 8, 8), (3,)).macs == 512


def test_a_trained_tensor_that_is_handed_to_a_part_is_no_trouble():
    class Handing(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.project = nn.Parameter(torch.randn(6, 4)), nn.Linear(4, 3)

        def forward(self, x):
            return x @ self.project(self.table).T

    model = Handing()
    model.project.bias.requires_grad_(False)
    assert measure_cost(model, (torch.randn(1, 3),)).macs == 6 * 4 * 3 + 3 * 6
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, True, False]
