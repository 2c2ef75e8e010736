"""What enters and leaves the weights is found by memory, and its statistics equal those of everything at once."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.core.errors import DataError
from prunus.score import gather
from prunus.score.evidence.weight_hooks import _same_axis

OUTPUTS = ("active_fraction", "output_mean", "output_variance")
torch.manual_seed(0)


def measured(model, inputs, needs, examples_of, batch_size=4, **options):
    examples = examples_of(inputs, torch.zeros(len(inputs), dtype=torch.int64))
    names = [name for name, _ in model.named_parameters()]
    return gather(model, names, examples, None, needs, batch_size=batch_size, **options)


class Hand(nn.Module):
    """Weights that no layer of torch holds, in both layouts, as left and right operands."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(6, 3))
        self.columns = nn.Parameter(torch.randn(6, 5))

    def forward(self, x):
        return (self.rows @ x.t()).relu().t() @ self.columns


@pytest.mark.parametrize("batch_size", [1, 4, 11])
def test_input_norms_of_linear_layers_and_of_plain_products(examples_of, batch_size):
    model, x = Hand(), torch.randn(11, 3)
    norms = measured(model, x, ("input_norm",), examples_of, batch_size).more["input_norm"]
    hidden = (x @ model.rows.t()).relu().detach()
    torch.testing.assert_close(norms["rows"].float(), x.norm(dim=0)[None])
    torch.testing.assert_close(norms["columns"].float(), hidden.norm(dim=0)[:, None])


def test_each_of_two_inputs_of_one_size_has_norms_of_its_own(examples_of):
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(11, 4)
    norms = measured(model, x, ("input_norm",), examples_of).more["input_norm"]
    torch.testing.assert_close(norms["0.weight"].float(), x.norm(dim=0)[None])
    torch.testing.assert_close(norms["1.weight"].float(), model[0](x).detach().norm(dim=0)[None])


def test_outputs_of_a_weight_on_the_left_lie_along_the_first_dimension(examples_of):
    model, x = Hand(), torch.randn(11, 3)
    found = measured(model, x, OUTPUTS, examples_of, 4).more
    hidden = (model.rows @ x.t()).relu().detach()
    made = (hidden.t() @ model.columns).detach()
    torch.testing.assert_close(found["output_mean"]["rows"].float(), hidden.mean(1)[:, None])
    torch.testing.assert_close(found["active_fraction"]["rows"].float(), (hidden > 0).float().mean(1)[:, None])
    torch.testing.assert_close(found["output_variance"]["rows"].float(), hidden.var(1, correction=0)[:, None])
    torch.testing.assert_close(found["output_mean"]["columns"].float(), made.abs().mean(0)[None])


@pytest.mark.parametrize(
    ("layer", "shape", "norms"),
    [
        (nn.Conv2d(4, 6, 3), (5, 4, 6, 6), lambda x: x.pow(2).sum((0, 2, 3)).sqrt().view(1, 4, 1, 1)),
        (nn.Conv2d(4, 6, 3, groups=2), (5, 4, 6, 6),
         lambda x: x.pow(2).sum((0, 2, 3)).sqrt().view(2, 2).repeat_interleave(3, 0).view(6, 2, 1, 1)),
        (nn.Conv1d(4, 4, 3, groups=4), (5, 4, 9), lambda x: x.pow(2).sum((0, 2)).sqrt().view(4, 1, 1)),
        (nn.ConvTranspose2d(4, 6, 3), (5, 4, 6, 6), lambda x: x.pow(2).sum((0, 2, 3)).sqrt().view(4, 1, 1, 1)),
        (nn.Linear(4, 6), (5, 7, 4), lambda x: x.pow(2).sum((0, 1)).sqrt().view(1, 4)),
    ],
)  # fmt: skip
def test_input_norms_are_per_channel_as_the_weight_reads_them(layer, shape, norms, examples_of):
    x = torch.randn(shape)
    found = measured(nn.Sequential(layer), x, ("input_norm",), examples_of).more["input_norm"]["0.weight"]
    torch.testing.assert_close(found.float(), norms(x))


def test_attention_s_packed_and_output_projections_are_seen(examples_of):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.memory = nn.Parameter(torch.randn(1, 3, 8))

        def forward(self, x):
            x = x + self.attention(x, x, x, need_weights=False)[0]
            keys = self.memory.expand(len(x), -1, -1)
            return self.attention(x, keys, keys, need_weights=False)[0]

    x = torch.randn(5, 4, 8)
    norms = measured(Attention(), x, ("input_norm",), examples_of).more["input_norm"]
    assert norms["attention.in_proj_weight"].shape == (1, 8)
    assert norms["attention.out_proj.weight"].shape == (1, 8)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1), bias=False), (6, 3, 6, 6)),
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), (6, 4, 5, 5)),
        (nn.Conv1d(3, 4, 2, bias=False), (6, 3, 7)),
        (nn.Conv3d(2, 3, 2, bias=False), (6, 2, 3, 4, 3)),
        (nn.Linear(4, 6, bias=False), (6, 9, 4)),
    ],
)
def test_grams_are_those_of_the_patches(layer, shape, examples_of):
    """The mean squared output is the quadratic form of the gram: no unfolding of ours is needed to know it."""
    x = torch.randn(shape, dtype=torch.float64)
    model = nn.Sequential(layer).double()
    found = measured(model, x, ("inverse_gram",), examples_of, damping=0.01)
    gram = found.input_gram["0.weight"].reshape(-1, *found.input_gram["0.weight"].shape[-2:])
    rows = layer.weight.detach().reshape(len(gram), -1, gram.shape[-1])
    axis = 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1
    outputs = layer(x).detach().movedim(axis, 0).flatten(1)
    quadratic = torch.einsum("gri,gij,grj->gr", rows, gram, rows).flatten()
    torch.testing.assert_close(quadratic, outputs.square().mean(dim=1))
    damped = gram + 0.01 * gram.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1) * torch.eye(gram.shape[-1])
    inverse = torch.linalg.inv(damped).diagonal(dim1=1, dim2=2)
    expected = inverse.repeat_interleave(layer.weight.shape[0] // len(gram), 0).reshape(-1, *layer.weight.shape[1:])
    inverse_gram = found.more["inverse_gram"]["0.weight"].expand_as(layer.weight)
    torch.testing.assert_close(inverse_gram, expected.expand_as(layer.weight))


def test_a_gram_that_can_not_be_inverted_says_what_is_needed(examples_of):
    model = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(
        DataError, match=r"at least 4 rows of inputs at '0.weight'.*got 3; raise data.split.calibration"
    ):
        measured(model, torch.randn(3, 4), ("inverse_gram",), examples_of, damping=0.0)
    with pytest.raises(DataError, match="depend on each other"):
        measured(model, torch.ones(9, 4), ("inverse_gram",), examples_of, damping=0.0)
    dead = torch.cat([torch.randn(9, 3), torch.zeros(9, 1)], dim=1)
    inverse = measured(model, dead, ("inverse_gram",), examples_of, damping=0.0).more["inverse_gram"]["0.weight"]
    assert torch.isinf(inverse[0, 3])
    assert torch.isfinite(inverse[0, :3]).all()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(2, 4, 1)
        self.act = nn.ReLU(inplace=True)
        self.up = nn.Linear(4, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x):
        a, b = self.norm(self.one(x)), self.two(x)
        self.joined = self.act(a + b)
        self.hidden = functional.gelu(self.up(self.joined.permute(0, 2, 3, 1)))
        self.last = self.out(self.hidden)
        return self.last.mean((1, 2))


@pytest.mark.parametrize("batch_size", [1, 3, 10])
@pytest.mark.parametrize("gradients", [False, True])
def test_outputs_are_read_behind_the_nonlinearity_that_follows_else_at_the_layer(examples_of, batch_size, gradients):
    model, x = Residual().eval(), torch.randn(10, 2, 4, 4)
    examples = examples_of(x, torch.zeros(10, dtype=torch.int64))
    needs = (*OUTPUTS, "gradient") if gradients else OUTPUTS
    names = ["one.weight", "two.weight", "up.weight", "out.weight"]
    found = gather(model, names, examples, lambda o, b: o.square().mean(), needs, batch_size=batch_size)
    with torch.no_grad():
        model(x)
    joined = model.joined.movedim(1, 0).flatten(1)
    expected = {
        "one.weight": joined,
        "two.weight": joined,
        "up.weight": model.hidden.flatten(0, -2).t(),
        "out.weight": model.last.flatten(0, -2).t(),
    }
    for name, values in expected.items():
        shape = (len(values),) + (1,) * (model.get_parameter(name).dim() - 1)
        formulas = {
            "active_fraction": (values > 0).double().mean(1),
            "output_mean": values.abs().double().mean(1),
            "output_variance": values.double().var(1, correction=0),
        }
        for need, value in formulas.items():
            assert found.more[need][name].shape == shape
            torch.testing.assert_close(found.more[need][name].flatten(), value, rtol=1e-5, atol=1e-7)


def test_an_output_that_is_overwritten_by_an_addition_is_read_as_the_layer_made_it(examples_of):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            y = self.layer(x)
            y += 100
            return y

    model, x = InPlace(), torch.randn(6, 3)
    found = measured(model, x, ("output_mean",), examples_of).more["output_mean"]["layer.weight"]
    torch.testing.assert_close(found.float().flatten(), model.layer(x).abs().mean(0).detach())


def test_variance_of_one_example_is_refused(examples_of):
    with pytest.raises(DataError, match="output variance needs at least 2 calibration examples: got 1"):
        measured(nn.Sequential(nn.Linear(3, 2)), torch.randn(1, 3), ("output_variance",), examples_of)


def test_a_far_mean_does_not_drown_the_variance(examples_of):
    model = nn.Sequential(nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.fill_(1e4)
    x = torch.randn(300, 1)
    found = measured(model, x, ("output_variance",), examples_of, batch_size=7).more["output_variance"]["0.weight"]
    exact = model(x).detach().double().var(0, correction=0)
    torch.testing.assert_close(found.flatten(), exact, rtol=1e-3, atol=0)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0][:, -1]


def test_fused_kernels_of_recurrent_layers_and_attention_hide_nothing(examples_of):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    norms = measured(layer, torch.randn(5, 4, 8), ("input_norm",), examples_of).more["input_norm"]
    assert {"self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"} == set(norms)
    x = torch.randn(5, 4, 3)
    norms = measured(Recurrent(), x, ("input_norm",), examples_of).more["input_norm"]
    torch.testing.assert_close(norms["cell.weight_ih_l0"].float().flatten(), x.norm(dim=(0, 1)))
    assert norms["cell.weight_hh_l0"].shape == (1, 4)


class Packed(nn.Module):
    """One weight of which two products read different rows."""

    def __init__(self):
        super().__init__()
        self.packed = nn.Parameter(torch.randn(6, 3))

    def forward(self, x):
        return functional.linear(x, self.packed[:2]).sum(1) + functional.linear(3 * x, self.packed[2:]).sum(1)


def test_every_row_of_a_packed_weight_has_the_mean_of_what_it_makes(examples_of):
    model, x = Packed(), torch.randn(11, 3)
    found = measured(model, x, ("output_mean",), examples_of).more["output_mean"]["packed"].flatten().float()
    made = (x @ model.packed.detach().t()).abs().mean(dim=0)
    torch.testing.assert_close(found, made * torch.tensor([1.0, 1, 3, 3, 3, 3]))


def test_an_output_that_is_spread_over_another_dimension_is_read_as_the_layer_made_it(examples_of):
    class Spread(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            return (self.layer(x) + torch.ones(2, 1, 4)).relu().sum(dim=0)

    model, x = Spread(), torch.randn(4, 3)
    found = measured(model, x, ("output_mean",), examples_of).more["output_mean"]["layer.weight"].flatten().float()
    torch.testing.assert_close(found, model.layer(x).detach().abs().mean(dim=0))


def test_rows_that_are_read_in_steps_are_not_taken_for_those_that_lie_together(examples_of):
    class Steps(Packed):
        def forward(self, x):
            return functional.linear(x, self.packed[::2])

    assert "packed" not in measured(Steps(), torch.randn(11, 3), ("output_mean",), examples_of).more["output_mean"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_dimension_is_found_again_in_a_view_by_its_size_and_its_stride(order):
    now = torch.zeros(3, 3, 2)
    for axis in range(3):
        assert _same_axis(now.permute(order), now, axis) == order.index(axis)
        assert _same_axis(now[:2], now, axis) is None


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.ConvTranspose2d(2, 3, 2, bias=False), (4, 2, 5, 5)),
        (nn.ConvTranspose1d(3, 2, 2, stride=2, bias=False), (4, 3, 5)),
    ],
)
def test_outputs_of_a_transposed_convolution_are_its_second_dimension(layer, shape, examples_of):
    x = torch.randn(shape)
    found = measured(nn.Sequential(layer), x, ("output_mean",), examples_of).more["output_mean"]["0.weight"]
    assert found.shape == (1, layer.out_channels, *[1] * (len(shape) - 2))
    torch.testing.assert_close(found.float().flatten(), layer(x).detach().abs().movedim(1, 0).flatten(1).mean(1))


def test_one_example_alone_is_its_own_mean(examples_of):
    model, x = nn.Sequential(nn.Linear(3, 5)), torch.randn(1, 3)
    found = measured(model, x, ("output_mean", "active_fraction"), examples_of).more
    made = model(x).detach()[0]
    torch.testing.assert_close(found["output_mean"]["0.weight"].float().flatten(), made.abs())
    torch.testing.assert_close(found["active_fraction"]["0.weight"].float().flatten(), (made > 0).float())


def test_a_model_under_watch_computes_what_it_computes_without(examples_of):
    """Operations keep their keywords, those that are followed and those that are not."""

    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            y = torch.add(self.layer(x), x, alpha=2).softmax(1, dtype=torch.float64)
            self.made = y * torch.arange(3, dtype=torch.float64) + torch.full((3,), 2, dtype=torch.float64)
            return self.made

    model, x = Keywords(), torch.randn(4, 3)
    expected = model(x).detach()
    measured(model, x, ("output_mean",), examples_of)
    assert torch.equal(model.made.detach(), expected)


@pytest.mark.parametrize("recurrent", [True, False])
def test_recurrent_layers_run_in_kernels_that_hide_nothing_and_all_is_as_before(recurrent, examples_of):
    flags = (
        lambda: torch.backends.cudnn.enabled,
        torch._C._get_mkldnn_enabled,
        torch.backends.mha.get_fastpath_enabled,
    )
    seen = []

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRU(3, 4, batch_first=True) if recurrent else nn.Linear(3, 4)

        def forward(self, x):
            seen.append([flag() for flag in flags])
            made = self.cell(x)
            return made[0] if recurrent else made

    before = [flag() for flag in flags]
    assert all(before), "else this shows nothing"
    measured(Looks(), torch.randn(4, 2, 3), ("input_norm",), examples_of)
    assert seen == [[not recurrent, not recurrent, False]]
    assert [flag() for flag in flags] == before
