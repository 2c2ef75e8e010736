"""The class follows a cut: sizes that forward takes from attributes are found by what they do."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from torch import Tensor, nn

from graph_zoo import randomize
from prunus.apply import follow_class, shrink
from prunus.graph import AxisGraph, analyze


def half(graph: AxisGraph) -> dict[str, Tensor]:
    return {
        g.name: torch.arange(g.size) % 2 == 0 if g.size > 1 else torch.ones(1, dtype=torch.bool) for g in graph.groups
    }


class Config:
    """A bag of settings, as transformers has."""

    def __init__(self) -> None:
        self.pairs_of_things = 2


class GroupedQuery(nn.Module):
    """Grouped-query attention with rotary halves, a fused projection, and sizes under names that say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.apples, self.pears = 4, 8  # heads and head dimension
        self.config = Config()
        self.q, self.kv, self.o = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        self.scale = self.pears**-0.5

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        few = self.apples // self.config.pairs_of_things
        q = self.q(x).view(n, t, self.apples, self.pears).transpose(1, 2)
        k, v = self.kv(x).split(few * self.pears, dim=2)
        k, v = (y.view(n, t, few, self.pears).transpose(1, 2) for y in (k, v))
        q, k = (torch.cat([-y[..., self.pears // 2 :], y[..., : self.pears // 2]], dim=-1) for y in (q, k))
        k, v = (y.repeat_interleave(self.config.pairs_of_things, dim=1) for y in (k, v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.o(y.transpose(1, 2).reshape(n, t, self.apples * self.pears))


def test_attention_keeps_its_class_and_its_scale_whatever_its_sizes_are_called():
    model, x = randomize(GroupedQuery()), torch.randn(2, 5, 16)
    graph = follow_class(model, (x,), analyze(model, (x,)))
    shrunk = shrink(model, (x,), graph, half(graph))
    assert shrunk.kind == "eager"
    small = shrunk.model
    assert isinstance(small, GroupedQuery)
    assert small.apples * small.pears == small.q.out_features < 32
    assert small.scale == model.scale
    assert (model.apples, model.pears, model.config.pairs_of_things) == (4, 8, 2), "the given model was changed"
    small(torch.randn(7, 3, 16)).square().mean().backward()
    again = copy.deepcopy(small)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again.eval()(x), small.eval()(x))


class WidthOverHeads(nn.Module):
    """The head dimension isn't held anywhere: it is what the heads leave of the width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.heads = 4
        self.qkv, self.o, self.out = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(x + self.o(y.transpose(1, 2).reshape(n, t, c)))


def test_what_the_class_computes_from_other_sizes_is_left_whole_and_named():
    model, x = randomize(WidthOverHeads()), torch.randn(2, 5, 3)
    whole = analyze(model, (x,))
    graph = follow_class(model, (x,), whole)
    spared = graph.frozen[len(whole.frozen) :]
    assert spared
    assert all("forward computes this size from other ones" in f.reason for f in spared)
    shrunk = shrink(model, (x,), graph, half(graph))
    assert shrunk.kind == "eager"
    assert shrunk.model.embed.out_features == 8
    assert shrunk.model.heads == 2


def test_without_that_step_the_traced_computation_takes_everything():
    model, x = randomize(WidthOverHeads()), torch.randn(2, 5, 3)
    graph = analyze(model, (x,))
    assert shrink(model, (x,), graph, half(graph)).kind == "graph"


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_stay_themselves(layer):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.r = layer(3, 8, num_layers=2, bidirectional=True, batch_first=True)
            self.o = nn.Linear(16, 2)

        def forward(self, x):
            return self.o(self.r(x)[0])

    model, x = randomize(Net()), torch.randn(2, 4, 3)
    graph = analyze(model, (x,))
    shrunk = shrink(model, (x,), graph, half(graph))
    assert shrunk.kind == "eager"
    assert shrunk.model.r.hidden_size == 4
    assert shrunk.model.train()(torch.randn(5, 6, 3)).shape == (5, 6, 2)


def test_transformer_layers_lose_heads_and_width_and_stay_themselves():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 16)
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(16, 2)

        def forward(self, x):
            return self.out(self.body(self.embed(x)))

    model, x = randomize(Net()), torch.randn(2, 5, 3)
    graph = follow_class(model, (x,), analyze(model, (x,)))
    shrunk = shrink(model, (x,), graph, half(graph))
    assert shrunk.kind == "eager"
    attention = shrunk.model.body.layers[0].self_attn
    assert (attention.embed_dim, attention.num_heads) == (8, 2)
    assert shrunk.model.body.layers[1].linear1.out_features == 16


def test_what_only_training_runs_shrinks_along():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.aux = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, x):
            y = torch.tanh(self.a(x))
            return (self.b(y), self.aux(y)) if self.training else self.b(y)

    model, x = Net().eval(), torch.randn(2, 3)
    graph = analyze(model, (x,))
    assert {m.tensor for m in graph.group("a").members} == {"a.weight", "a.bias", "b.weight", "aux.weight"}
    main, aux = shrink(model, (x,), graph, half(graph)).model.train()(x)
    assert main.shape == aux.shape == (2, 2)


def test_tracing_leaves_nothing_in_the_model():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.cache, self.last = nn.Linear(3, 8), {}, None
            self.b = nn.Linear(8, 2)

        def forward(self, x):
            self.last = self.a(x)
            self.cache["x"] = self.last
            self.fresh = self.last
            return self.b(self.last)

    model = Net()
    analyze(model, (torch.randn(2, 3),))
    assert model.cache == {}
    assert model.last is None
    assert not hasattr(model, "fresh")
    copy.deepcopy(model)


class SoftAttention(nn.Module):
    """Attention whose scores hardly differ: what its scale is moves the output by less than a millionth."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 6)
        self.heads = 2
        self.qkv, self.o = nn.Linear(6, 24, bias=False), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(self.embed(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.o(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))


def test_an_attention_scale_that_follows_the_cut_is_seen_however_little_it_does():
    model, x = randomize(SoftAttention()), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.qkv.weight[:16] *= 1e-3
    graph = analyze(model, (x,))
    (name,) = [group.name for group in graph.groups if group.kind == "head_dim"]
    shrunk = shrink(model, (x,), graph, {name: torch.tensor([True, False, True, True])})
    assert shrunk.kind == "eager"
    assert torch.allclose(shrunk.folded["qkv.weight"][:6], torch.tensor(0.75, dtype=torch.float64).sqrt()), (
        "the queries should make good for it"
    )


def test_a_view_that_the_strides_allowed_becomes_a_reshape_where_they_do_not():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1), nn.Linear(64, 2)

        def forward(self, x):
            y = x.contiguous(memory_format=torch.channels_last)
            y = torch.cat([torch.tanh(self.a(y)), self.b(y)], dim=1)
            return self.c(y.permute(0, 2, 3, 1).flatten(1))

    model, x = randomize(Net()), torch.randn(2, 3, 4, 4)
    graph = analyze(model, (x,))
    keep = {group.name: torch.tensor([True, False]) for group in graph.groups}
    computed = shrink(model, (x,), graph, keep, prefer="graph").model
    assert torch.allclose(computed(x), shrink(model, (x,), graph, keep).model(x), atol=1e-6)


class OneStubbornBlock(nn.Module):
    """Many blocks, in one of which forward has written the size down."""

    def __init__(self, blocks: int = 30, stubborn: int = 13) -> None:
        super().__init__()
        self.ups = nn.ModuleList([nn.Linear(4, 6) for _ in range(blocks)])
        self.downs = nn.ModuleList([nn.Linear(6, 4) for _ in range(blocks)])
        self.stubborn = stubborn

    def forward(self, x: Tensor) -> Tensor:
        for at, (up, down) in enumerate(zip(self.ups, self.downs, strict=True)):
            y = torch.tanh(up(x))
            x = x + down(y.reshape(-1, 6) if at == self.stubborn else y)
        return x


def test_one_group_that_the_class_cannot_follow_costs_no_other():
    model, x = randomize(OneStubbornBlock()), torch.randn(2, 4)
    whole = analyze(model, (x,))
    graph = follow_class(model, (x,), whole)
    assert {group.name for group in whole.groups} - {group.name for group in graph.groups} == {"ups.13"}
    assert shrink(model, (x,), graph, half(graph)).kind == "eager"


def test_a_class_that_could_lose_little_gives_way_to_the_traced_computation():
    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 200), nn.Linear(200, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.c(torch.tanh(self.b(torch.tanh(self.a(x).reshape(-1, 200)))))

    model, x = randomize(Written()), torch.randn(2, 4)
    graph = analyze(model, (x,))
    assert follow_class(model, (x,), graph).groups == graph.groups


class BroughtBack(nn.Sequential):
    """Has ``from_pretrained``, and keeps what builds it in a mapping, as diffusers' models do."""

    config = types.MappingProxyType({"width": 8})

    @classmethod
    def from_pretrained(cls, folder: str) -> BroughtBack:
        raise NotImplementedError


def test_a_model_that_from_pretrained_would_build_at_its_old_sizes_is_told_so():
    model, x = randomize(BroughtBack(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))), torch.randn(2, 3)
    graph = analyze(model, (x,))
    (note,) = shrink(model, (x,), graph, half(graph)).notes
    assert "from_pretrained" in note
    assert shrink(model, (x,), graph, {}).notes == ()


class Checked(nn.Module):
    """Looks whether its input is as wide as it was built for, as diffusers' samplers do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.channels = how, 8
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.how == "asserts":
            assert x.shape[1] == self.channels
        elif self.how == "refuses":
            if x.size(1) != self.channels:
                raise ValueError("another number of channels")
        else:
            assert self.channels == x.size()[-3]
        return self.third(self.second(x.relu()))


@pytest.mark.parametrize("how", ["asserts", "refuses", "asserts the other way round"])
@pytest.mark.parametrize("side", [10, 12])  # at the first of them, the image is as high as the channels are many
def test_a_size_that_is_only_checked_follows(how, side):
    model, x = randomize(Checked(how)), torch.randn(2, 3, side, side)
    graph = follow_class(model, (x,), analyze(model, (x,)))
    assert {group.name for group in graph.groups} == {"first", "second"}
    shrunk = shrink(model, (x,), graph, half(graph))
    assert shrunk.kind == "eager"
    assert (shrunk.model.channels, model.channels) == (4, 8)
