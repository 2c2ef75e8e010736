"""One example certifies alone only where examples never meet and it shows every unit at many places."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from prunus.graph import AxisGraph, Group, analyze, certify
from prunus.graph.one_example import one_example_tells
from prunus.graph.tracing.states import canonical_states


class Pixels(nn.Module):
    """Two convolutions and a head; ``between`` stands after the first."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, 4)
        self.between = between or nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.between(self.a(x)))).mean(dim=(2, 3)))


class Meeting(nn.Module):
    """Lets the examples of a batch meet."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        ways = {
            "mean": lambda: x - x.mean(dim=0),
            "softmax": lambda: x.softmax(dim=0),
            "flip": lambda: x.flip(0),
            "roll": lambda: x.roll(1, dims=0),
            "cumsum": lambda: x.cumsum(0),
            "attention": lambda: ((flat @ flat.T).softmax(-1) @ flat).view_as(x),
            "first": lambda: x + x[:1],
            "index": lambda: x[torch.tensor([1, 0])],
            "halves": lambda: torch.cat([x[1:], x[:1]]),
            "write": lambda: self.write(x),
        }
        return ways[self.how]()

    @staticmethod
    def write(x: Tensor) -> Tensor:
        held = torch.zeros_like(x)
        held[:1] = x[1:]
        return x + held


class Tokens(nn.Module):
    """Attention within each example, on windows, with a mask that forward builds."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.qkv, self.out = nn.Embedding(20, 16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.table(x)
        n, t, c = tokens.shape
        q, k, v = self.qkv(tokens).view(n * 2, t // 2, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mask = tokens.new_zeros(t // 2, t // 2)
        mask[:1] = 1.0
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(n, t, c))


def test_images_and_tokens_are_shown_by_one_example():
    assert one_example_tells(analyze(Pixels().eval(), (torch.randn(2, 3, 12, 12),))) == [(1, 4)]
    tokens = (torch.randint(20, (3, 64)),)
    assert one_example_tells(analyze(Tokens().eval(), tokens)) == [(1, 64, 16)]


WAYS = ["mean", "softmax", "flip", "roll", "cumsum", "attention", "first", "index", "halves", "write"]


@pytest.mark.parametrize("how", WAYS)
def test_where_examples_meet_all_are_asked(how):
    assert not one_example_tells(analyze(Pixels(Meeting(how)).eval(), (torch.randn(2, 3, 12, 12),)))


@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (2, 3, 5, 40)])
def test_where_one_example_has_few_places_all_are_asked(shape):
    few = one_example_tells(analyze(Pixels().eval(), (torch.randn(shape),)))
    assert bool(few) == (shape[-1] == 40)


def test_a_squeezed_batch_is_no_example():
    """Alone an example has another number of dimensions, and another meaning."""

    class Squeezed(Pixels):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(self.b(self.between(self.a(x)))).squeeze()
            return self.head(y.flatten(-2).mean(-1))

    x = (torch.randn(2, 3, 12, 12),)
    graph = analyze(Squeezed().eval(), x)
    assert certify(Squeezed().eval(), x, graph).groups == graph.groups


def _forgetful(graph: AxisGraph, name: str, tensor: str) -> AxisGraph:
    def less(group: Group) -> Group:
        kept = tuple(member for member in group.members if member.tensor != tensor)
        return replace(group, members=kept) if group.name == name else group

    return replace(graph, groups=tuple(map(less, graph.groups)))


@pytest.mark.parametrize(
    ("group", "tensor"), [("a", "a.bias"), ("a", "b.weight"), ("b", "head.weight"), ("b", "b.bias")]
)
def test_one_example_catches_a_forgotten_member_and_what_is_right_passes(group, tensor):
    model, x = Pixels().eval(), (torch.randn(2, 3, 12, 12),)
    graph = analyze(model, x)
    assert certify(model, x, graph).groups == graph.groups
    assert group in {frozen.name for frozen in certify(model, x, _forgetful(graph, group, tensor)).frozen}


@pytest.mark.parametrize("units", [6, 40])
def test_the_weights_of_the_model_are_read_and_never_written_while_it_is_certified(units):
    """Few units change places where they are, in copies; so do those of a dimension that mostly stays."""

    class Wide(Pixels):
        def __init__(self) -> None:
            super().__init__()
            self.b = nn.Conv2d(8 + 3, units, 3)
            self.head = nn.Linear(units, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat([x, torch.nn.functional.pad(torch.relu(self.a(x)), (1, 1, 1, 1))], dim=1)
            return self.head(torch.relu(self.b(x)).mean(dim=(2, 3)))

    model, x = Wide().eval(), (torch.randn(2, 3, 12, 12),)
    states = canonical_states(model)
    before = {name: (value.clone(), value._version) for name, value in states.items()}
    graph = analyze(model, x)
    assert certify(model, x, graph).groups == graph.groups
    assert all(torch.equal(value, before[name][0]) for name, value in states.items())
    assert all(value._version == before[name][1] for name, value in states.items())


def test_parameters_that_a_forward_writes_into_are_copied():
    class Counts(Pixels):
        def forward(self, x: Tensor) -> Tensor:
            self.head.bias.data.add_(1.0)
            return super().forward(x)

    model, x = Counts().eval(), (torch.randn(2, 3, 12, 12),)
    graph = analyze(model, x)
    before = model.head.bias.detach().clone()
    certify(model, x, graph)
    assert torch.equal(model.head.bias, before)
