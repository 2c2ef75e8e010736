"""Evidence at initialisation, of blocks, and of movement equals what the definitions say."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from prunus.core.errors import ModelError
from prunus.score import MovementRecorder, criteria, gather


def cross_entropy(outputs, batch):
    return functional.cross_entropy(outputs, batch.targets)


@pytest.fixture
def examples(examples_of):
    torch.manual_seed(2)
    return examples_of(torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 2)


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_the_hessian_gradient_product_is_that_of_the_whole_hessian(examples, batch_size):
    model, names = net(), ["0.weight", "2.weight"]
    shapes = [model.get_parameter(name).shape for name in names]
    flat = torch.cat([model.get_parameter(name).detach().flatten() for name in names])

    def loss(values):
        parts = dict(zip(names, values.split([s.numel() for s in shapes]), strict=True))
        states = {name: parts[name].view(shape) for name, shape in zip(names, shapes, strict=True)}
        outputs = torch.func.functional_call(model, states, (examples.inputs,))
        return functional.cross_entropy(outputs, examples.targets)

    hessian = torch.autograd.functional.hessian(loss, flat)
    leaf = flat.clone().requires_grad_(True)
    product = hessian @ torch.autograd.grad(loss(leaf), leaf)[0]
    found = gather(model, names, examples, cross_entropy, ("hessian_gradient",), batch_size=batch_size)
    mine = torch.cat([found.more["hessian_gradient"][name].flatten() for name in names])
    torch.testing.assert_close(mine, product, rtol=1e-10, atol=1e-12)


def test_grasp_is_the_slope_of_the_gradient_norm_when_a_weight_shrinks(examples):
    model = net()
    weight = model[0].weight

    def half_squared_norm():
        value = functional.cross_entropy(model(examples.inputs), examples.targets)
        return torch.autograd.grad(value, weight)[0].square().sum() / 2

    found = gather(model, ["0.weight"], examples, cross_entropy, ("weight", "hessian_gradient"))
    scores = criteria["grasp"](
        {"weight": weight.detach().reshape(-1, 1), "hessian_gradient": found.more["hessian_gradient"]["0.weight"].reshape(-1, 1)}
    )  # fmt: skip
    for i in range(weight.numel()):
        step = 1e-5
        with torch.no_grad():
            weight.view(-1)[i] *= 1 + step
        above = half_squared_norm()
        with torch.no_grad():
            weight.view(-1)[i] /= 1 + step
            weight.view(-1)[i] *= 1 - step
        below = half_squared_norm()
        with torch.no_grad():
            weight.view(-1)[i] /= 1 - step
        assert float((above - below) / (2 * step)) == pytest.approx(float(scores[i]), rel=1e-4, abs=1e-9)


def test_synaptic_flow_through_a_relu_network_is_the_sum_over_paths(examples_of):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    nothing = examples_of(torch.zeros(0, 3), torch.zeros(0))
    found = gather(model, ["0.weight", "2.weight"], nothing, None, ("weight", "flow"))
    one, two = (found.weight[name].double().abs() for name in ("0.weight", "2.weight"))
    paths = two[:, :, None] * one[None]  # (outputs, hidden, inputs)
    for name, expected in {"0.weight": paths.sum(0), "2.weight": paths.sum(2)}.items():
        given = {"weight": found.weight[name].reshape(-1, 1), "flow": found.more["flow"][name].reshape(-1, 1)}
        torch.testing.assert_close(criteria["synflow"](given), expected.flatten())


def test_synaptic_flow_is_conserved_from_layer_to_layer_and_survives_depth(examples_of):
    layers = [m for _ in range(60) for m in (nn.Linear(50, 50, bias=False), nn.ReLU())]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    names = [name for name, _ in model.named_parameters()]
    found = gather(model, names, examples_of(torch.zeros(0, 50), torch.zeros(0)), None, ("weight", "flow"))
    totals = torch.stack([(found.weight[n].abs() * found.more["flow"][n]).sum() for n in names])
    assert torch.isfinite(totals).all()
    assert totals.max() > torch.finfo(torch.float32).max, "single precision would have overflowed"
    torch.testing.assert_close(totals, totals[:1].expand_as(totals), rtol=1e-6, atol=0)


class Adds(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4)])
def test_a_block_s_cosine_is_the_mean_over_examples_and_positions(examples_of, shape):
    model, x = nn.Sequential(Adds(), Adds()), torch.randn(shape)
    found = gather(
        model, [], examples_of(x, torch.zeros(6)), None, ("block_cosine",), batch_size=4, blocks=["0", "1"]
    ).more["block_cosine"]
    with torch.no_grad():
        hidden = model[0](x)
        for path, before, after in (("0", x, hidden), ("1", hidden, model[1](hidden))):
            cosine = (before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1)
            assert float(found[path]) == pytest.approx(float(cosine.mean()), rel=1e-5)
    with pytest.raises(ModelError, match="no block '2'"):
        gather(model, [], examples_of(x, torch.zeros(6)), None, ("block_cosine",), blocks=["2"])


def test_movement_is_minus_the_sum_of_weight_times_gradient_before_each_step():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    recorder = MovementRecorder(model, ["weight"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder.attach(optimizer)
    expected = torch.zeros(2, 3)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        expected -= model.weight.detach() * model.weight.grad
        optimizer.step()
    torch.testing.assert_close(recorder.movement["weight"], expected)


class Tells(nn.Module):
    """A block that takes no tensor, or gives none: nothing passes through it."""

    def __init__(self, back):
        super().__init__()
        self.back = back

    def forward(self, given):
        return self.back


@pytest.mark.parametrize("gives", [True, False])
def test_a_block_through_which_nothing_passes_has_no_cosine(examples_of, gives):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.adds, self.tells = Adds(), Tells(torch.zeros(1) if gives else 0)

        def forward(self, x):
            return self.adds(x) + self.tells(0 if gives else x)

    found = gather(
        Net(), [], examples_of(torch.randn(6, 4), torch.zeros(6)), None, ("block_cosine",), blocks=["adds", "tells"]
    )
    assert list(found.more["block_cosine"]) == ["adds"]


def test_what_the_slope_of_the_loss_does_not_hang_on_has_no_hessian_gradient(examples_of):
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.shift, self.unread = (nn.Parameter(torch.full((1, 3), v)) for v in (2.0, 3.0, 4.0))

        def forward(self, x):
            return (x * self.weight.square() + self.shift).sum(1, keepdim=True)

    model, names = Square(), ["weight", "shift", "unread"]
    x = torch.rand(8, 3)
    found = gather(model, names, examples_of(x, torch.zeros(8)), lambda o, b: o.mean(), ("hessian_gradient",), 3)
    found = found.more["hessian_gradient"]
    mean = x.mean(0, keepdim=True)
    torch.testing.assert_close(found["weight"], 2 * mean * 2 * 2.0 * mean)  # Hessian times gradient, weight by weight
    assert not found["shift"].any()
    assert not found["unread"].any()
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(names, torch.Size([1, 3]))
