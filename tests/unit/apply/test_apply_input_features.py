"""The model without its features is the model with those features replaced, and anything else is refused."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from prunus.apply import SelectInputs, replace_features
from prunus.core.errors import ModelError, ShapeError

FEATURES = 6
KEPT = torch.tensor([1, 2, 5])


@dataclass(frozen=True)
class Member:
    tensor: str
    dim: int
    index: torch.Tensor
    is_parameter: bool = True


def each(n=FEATURES):
    return torch.arange(n)[:, None]


def linear_member(name="0.weight"):
    return Member(name, 1, each())


def norm_members(prefix):
    return [
        Member(f"{prefix}.{name}", 0, each(), name in ("weight", "bias"))
        for name in ("weight", "bias", "running_mean", "running_var")
    ]


class Branches(nn.Module):
    """Reads the input twice, once through a pointwise function and side by side."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.head = (
            nn.Linear(2 * FEATURES, 4),
            nn.Linear(FEATURES, 4, bias=False),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        both = torch.cat([x, x.square()], dim=1)
        return self.head(torch.relu(self.wide(both)) + self.narrow(input=x.tanh()))


def trained_norm():
    norm = nn.BatchNorm1d(FEATURES)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


CASES = {
    "mlp": lambda: (nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 3)), [linear_member()]),
    "no bias": lambda: (nn.Sequential(nn.Linear(FEATURES, 3, bias=False)), [linear_member()]),
    "norm and dropout before it": lambda: (
        nn.Sequential(trained_norm(), nn.Dropout(0.5), nn.GELU(), nn.Linear(FEATURES, 8), nn.BatchNorm1d(8)),
        [*norm_members("0"), linear_member("3.weight")],
    ),
    "two readers, side by side": lambda: (
        Branches(),
        [Member("wide.weight", 1, torch.arange(2 * FEATURES).view(2, FEATURES).T), linear_member("narrow.weight")],
    ),
}


@pytest.mark.parametrize("kept", [KEPT, torch.tensor([0]), torch.tensor([0, 1, 2, 3, 4])], ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_narrow_model_equals_the_filled_one_on_any_input(case, kept):
    torch.manual_seed(0)
    model, members = case()
    model.train()
    before = copy.deepcopy(model.state_dict())
    fill = torch.randn(FEATURES)
    narrow = replace_features(model, members, kept, fill)
    assert narrow.training
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    x = torch.randn(20, FEATURES) * 3
    filled = fill.repeat(20, 1)
    filled[:, kept] = x[:, kept]
    torch.testing.assert_close(narrow.eval()(x), model.eval()(filled), rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in narrow.parameters()) < sum(p.numel() for p in model.parameters()) + 8


def test_the_columns_and_the_attributes_really_go():
    model, members = CASES["norm and dropout before it"]()
    narrow = replace_features(model, members, KEPT, torch.zeros(FEATURES))
    norm, linear = narrow.inner[0], narrow.inner[3]
    assert (norm.num_features, len(norm.weight), len(norm.running_var)) == (3, 3, 3)
    assert (linear.in_features, linear.out_features, tuple(linear.weight.shape)) == (3, 8, (8, 3))
    assert torch.equal(linear.weight, model[3].weight[:, KEPT])


def test_the_narrow_model_trains_and_keeps_its_columns_in_the_state_dict():
    model, members = CASES["mlp"]()
    narrow = replace_features(model, members, KEPT, torch.zeros(FEATURES))
    narrow(torch.randn(4, FEATURES)).sum().backward()
    assert all(p.grad is not None for p in narrow.parameters())
    assert narrow.state_dict()["kept"].tolist() == KEPT.tolist()


def test_keeping_every_column_is_the_model_itself():
    model, members = CASES["mlp"]()
    assert replace_features(model, members, torch.arange(FEATURES), torch.zeros(FEATURES)) is model


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(FEATURES, 2)

    def forward(self, x):
        return self.linear(x.view(-1, FEATURES))


class ReadsTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(FEATURES, 2)

    def forward(self, x):
        return self.linear(x) + x.sum(dim=1, keepdim=True)


class Lists(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(FEATURES, 2)

    def forward(self, x):
        return [self.linear(x)]


REFUSED = {
    "conv": (nn.Sequential(nn.Conv1d(1, 2, 3)), [], "the model must begin with a linear layer"),
    "weights of a conv": (
        nn.Sequential(nn.Conv1d(FEATURES, 2, 1)),
        [linear_member()],
        "read by '0.weight' of a Conv1d, expected linear layers only",
    ),
    "only a norm": (nn.Sequential(nn.BatchNorm1d(FEATURES)), norm_members("0"), "no linear layer reads them"),
    "layer norm": (
        nn.Sequential(nn.LayerNorm(FEATURES), nn.Linear(FEATURES, 2)),
        [Member("0.weight", 0, each()), Member("0.bias", 0, each()), linear_member("1.weight")],
        "before the linear layer '1' the columns are mixed",
    ),
    "the number built in": (Fixed(), [linear_member("linear.weight")], "has their number .6. built in"),
    "read elsewhere": (ReadsTwice(), [linear_member("linear.weight")], "read somewhere else"),
    "a list": (Lists(), [linear_member("linear.weight")], "must return one tensor of outputs: got list"),
    "a layer that never runs": (
        nn.ModuleDict({"idle": nn.Linear(FEATURES, 2)}),
        [linear_member("idle.weight")],
        "did not run",
    ),
}
REFUSED["a layer that never runs"][0].forward = lambda x: x.sum(dim=1)


@pytest.mark.parametrize(("model", "members", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_can_not_be_cut_exactly_is_refused_with_the_reason(model, members, message):
    with pytest.raises(ModelError, match=message):
        replace_features(model, members, KEPT, torch.full((FEATURES,), 0.5))


@pytest.mark.parametrize("kept", [[], [2, 1], [1, 1], [-1, 2], [4, 6]])
def test_columns_must_be_an_ascending_part_of_those_there_are(kept):
    model, members = CASES["mlp"]()
    with pytest.raises(ShapeError, match="ascending: got"):
        replace_features(model, members, torch.tensor(kept, dtype=torch.int64), torch.zeros(FEATURES))


def test_a_fill_of_another_length_is_refused():
    model, members = CASES["mlp"]()
    with pytest.raises(ShapeError, match=r"one value per column of '0.weight': got 7 for 6"):
        replace_features(model, members, KEPT, torch.zeros(7))


def test_select_inputs_moves_with_its_model():
    assert SelectInputs(nn.Identity(), torch.tensor([1])).to("meta").kept.device.type == "meta"
