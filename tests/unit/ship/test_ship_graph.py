"""A bundle's graph computes what the model computes, with no code of the model's author, at any batch size."""

# ruff: noqa: F811, F401 - fixtures are imported by name
from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch import nn

from prunus import models
from prunus.apply import shrink
from prunus.apply.repair import SelectInputs
from prunus.apply.traced.regraph import PrunedGraph
from prunus.core.errors import BundleError
from prunus.core.recipes.recipe import Model
from prunus.evaluate import measure_cost
from prunus.graph import analyze
from prunus.ship import bundle_sha256, load_bundle, read_manifest, save_bundle
from ship_stand_ins import build, made, options, pruned


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


class Encoder(nn.Module):
    """Positions outside the state dict, and a mask with -inf at which the attention looks."""

    positions: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.register_buffer("positions", torch.randn(5, 16), persistent=False)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dropout=0.3)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        mask = torch.full((5, 5), -math.inf).triu(1)
        return self.head(self.body(self.embed(x) + self.positions, mask=mask).mean(1))


class Stubborn(nn.Module):
    """Holds a size that nothing can change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(128, 3)

    def forward(self, x):
        return self.head(self.conv(x).view(-1, 128))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.two(self.one(x).relu()))


class Dropping(nn.Module):
    """Training would drop, and a constant tensor lies in no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Dropout(0.9), nn.Linear(9, 3))
        self.scale = torch.arange(6.0)

    def forward(self, x):
        return self.layers(x * self.scale + torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))


class Fickle(nn.Module):
    """Other inputs run other operations."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 1e9 else -self.layer(x)


class Repeating(nn.Module):
    """Repeats what it knows once for every example."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 2, 6))
        self.layer = nn.Linear(18, 3)

    def forward(self, x):
        return self.layer(torch.cat([self.token.repeat(len(x), 1, 1), x.unsqueeze(1)], dim=1).flatten(1))


def ship(model, folder, shape, **more):
    options = {"built_by": None, "dense": model, "input_shape": shape, "n_outputs": 3, "task": "classification"}
    return save_bundle(folder, model, **options | more)


def half(model, shape):
    inputs = (torch.randn(2, *shape),)
    graph = analyze(model, inputs)
    return shrink(model, inputs, graph, {g.name: torch.arange(g.size) % 2 == 0 for g in graph.groups})


MODELS = {
    "recurrent": (Recurrent, (3, 4)),
    "encoder": (Encoder, (5, 6)),
    "tied": (Tied, (6,)),
    "dropping": (Dropping, (6,)),
    "repeating": (Repeating, (6,)),
    "mlp": (lambda: models.build(Model(builder="mlp"), input_shape=(6,), n_outputs=3, seed=0), (6,)),
    "cnn": (
        lambda: models.build(Model(builder="cnn", args={"width": 8}), input_shape=(1, 8, 8), n_outputs=3, seed=0),
        (1, 8, 8),
    ),
    "resnet": (
        lambda: models.build(Model(builder="resnet", args={"width": 4}), input_shape=(3, 8, 8), n_outputs=3, seed=0),
        (3, 8, 8),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_of_a_model_gives_its_outputs_without_its_builder(name, tmp_path):
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = make().train()
    ship(model, tmp_path / "b", shape)
    assert model.training, "saving changed the model's mode"
    bundle = load_bundle(tmp_path / "b")
    assert (bundle.kind, type(bundle.model)) == ("graph", PrunedGraph)
    assert read_manifest(tmp_path / "b").no_graph is None
    model.eval()
    for size in (1, 2, 7):
        x = torch.randn(size, *shape)
        assert torch.allclose(bundle.predict(x), model(x).detach(), rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in bundle.model.parameters()) == sum(p.numel() for p in model.parameters())
    assert measure_cost(bundle.model, (x,)).macs == measure_cost(model, (x,)).macs
    eager = load_bundle(tmp_path / "b", builder=make)
    assert (eager.kind, type(eager.model)) == ("eager", type(model))
    assert load_bundle(tmp_path / "b", builder=make, prefer="graph").kind == "graph"


def test_what_no_state_dict_holds_lies_beside_it_and_only_the_graph_takes_it(tmp_path):
    model = Encoder()
    ship(model, tmp_path / "b", (5, 6))
    extra = {name for name in read_manifest(tmp_path / "b").tensors if name.startswith("graph/")}
    assert extra == {"graph/positions"}
    bundle = load_bundle(tmp_path / "b")
    assert torch.equal(bundle.model.positions, model.positions)
    assert "positions" not in load_bundle(tmp_path / "b", builder=Encoder).model.state_dict()


def test_a_model_that_lost_its_class_ships_as_a_graph_and_needs_no_builder(tmp_path):
    torch.manual_seed(0)
    shrunk = half(Stubborn(), (1, 4, 4))
    assert shrunk.kind == "graph"
    options = {"input_shape": (1, 4, 4), "n_outputs": 3, "task": "classification"}
    sha256 = save_bundle(tmp_path / "b", shrunk.model, built_by=Model(builder="gone:function"), **options)
    manifest = read_manifest(tmp_path / "b")
    assert manifest.edits is None
    for choice in ({}, {"trust_code": True}, {"builder": Stubborn}):
        bundle = load_bundle(tmp_path / "b", **choice)
        assert (bundle.kind, bundle.note) == ("graph", "")
    assert list(bundle.model.state_dict()) == list(shrunk.model.state_dict())
    shrunk.model.eval()
    for size in (1, 2, 7):
        x = torch.randn(size, 1, 4, 4)
        assert torch.equal(bundle.predict(x), shrunk.model(x).detach())
    # What was loaded can be pruned and shipped again.
    again = half(bundle.model, (1, 4, 4)).model.eval()
    assert save_bundle(tmp_path / "c", bundle.model, built_by=Model(builder="gone:function"), **options) == sha256
    save_bundle(tmp_path / "d", again, built_by=None, **options)
    assert torch.equal(load_bundle(tmp_path / "d").predict(x), again(x).detach())


def test_a_pruned_model_of_its_class_gives_one_answer_as_class_and_as_graph(tmp_path):
    torch.manual_seed(0)
    model = Encoder()
    shrunk = half(model, (5, 6))
    ship(shrunk.model, tmp_path / "b", (5, 6), dense=model)
    x = torch.randn(4, 5, 6)
    expected = shrunk.model.eval()(x).detach()
    assert torch.allclose(load_bundle(tmp_path / "b").predict(x), expected, atol=1e-6)
    if shrunk.kind == "eager":

        def original() -> nn.Module:  # positions are drawn, so this one must draw the same
            torch.manual_seed(0)
            return Encoder()

        assert load_bundle(tmp_path / "b", builder=original).kind == "eager"


def test_scaler_names_and_selected_inputs_come_through_the_graph(build, options, tmp_path):
    inner = nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))
    model = SelectInputs(inner, torch.tensor([1, 4]))
    save_bundle(tmp_path / "b", model, **options)
    bundle = load_bundle(tmp_path / "b", prefer="graph")
    inputs = torch.randn(4, 6)
    scaled = (inputs - torch.arange(6.0)) / 2
    assert torch.equal(bundle.predict(inputs), model.eval()(scaled).detach())
    assert set(bundle.postprocess(bundle.predict(inputs)).labels) <= {"a", "b", "c"}


@pytest.mark.parametrize("name", ["encoder", "dropping", "recurrent"])
def test_the_same_model_gives_the_same_graph_bytes(name, tmp_path):
    make, shape = MODELS[name]
    model = make()
    assert ship(model, tmp_path / "a", shape) == ship(model, tmp_path / "b", shape) == bundle_sha256(tmp_path / "a")
    assert (tmp_path / "a" / "graph.json").read_bytes() == (tmp_path / "b" / "graph.json").read_bytes()


def test_a_graph_is_plain_json_with_a_node_on_each_line(made):
    text = (made.folder / "graph.json").read_text()
    nodes = json.loads(text)["nodes"]
    assert len(nodes) == text.count("\n") - 2
    assert [kind for _, kind, *_ in nodes].count("input") == 1
    assert {target.split(".")[0] for _, kind, target, *_ in nodes if kind == "call"} <= {"aten", "operator"}


def test_a_model_that_no_trace_stands_for_ships_without_a_graph_and_says_why(tmp_path):
    ship(Fickle(), tmp_path / "b", (6,))
    manifest = read_manifest(tmp_path / "b")
    assert "graph.json" not in manifest.files
    assert "other inputs may run other operations" in manifest.no_graph
    assert load_bundle(tmp_path / "b", builder=Fickle).kind == "eager"
    for prefer in ("eager", "graph"):
        with pytest.raises(BundleError, match=r"no graph goes along with this bundle \(other inputs may run"):
            load_bundle(tmp_path / "b", prefer=prefer)


class Picking(nn.Module):
    """Has a size that a value of its own decides."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("mask", torch.tensor([True] * 5 + [False]))

    def forward(self, x):
        return self.layer(nn.functional.pad(x[:, self.mask.nonzero()[:, 0]], (0, 1)))


class Bag(nn.Module):
    """Has an operation that trusts values."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(5, 3)

    def forward(self, x):
        return self.bag((x * 0).long() + 1)


@pytest.mark.parametrize(
    ("make", "words"), [(Picking, "aten.nonzero"), (Bag, "node '.*': 'aten._embedding_bag.default' is no operation")]
)
def test_a_model_whose_graph_nobody_could_load_ships_without_one_and_says_which_operation_it_is(make, words, tmp_path):
    ship(make(), tmp_path / "b", (6,))
    assert re.search(words, read_manifest(tmp_path / "b").no_graph)
    assert load_bundle(tmp_path / "b", builder=make).kind == "eager"


def test_a_model_that_lost_its_class_and_has_no_graph_that_loads_is_not_saved(tmp_path):
    model = Bag()
    inputs = (torch.randn(2, 6),)
    graph = analyze(model, inputs)
    lost = shrink(model, inputs, graph, {}, prefer="graph").model
    assert isinstance(lost, PrunedGraph)
    options = {"input_shape": (6,), "n_outputs": 3, "task": "classification"}
    with pytest.raises(
        BundleError, match=r"node '.*': 'aten\._embedding_bag\.default' is no operation that a graph may name"
    ):
        save_bundle(tmp_path / "b", lost, built_by=Model(builder="gone:function"), **options)
    assert not (tmp_path / "b").exists()


class Counting(nn.Module):
    """Has the batch's size written into its trace: the list is longer for other batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x) * len([0 for _ in range(x.shape[0])])


def test_a_trace_that_only_fits_the_batch_it_was_made_on_is_left_out(tmp_path):
    ship(Counting(), tmp_path / "b", (6,))
    said = read_manifest(tmp_path / "b").no_graph
    assert said.startswith("its trace fails on inputs of shape [1, 6]: ShapeError: input 0 must have the size 2 in dim")


def test_a_tensor_of_the_model_that_is_called_like_the_graphs_own_leaves_the_graph_out(tmp_path):
    model = nn.Sequential(nn.Linear(6, 3))
    model.add_module("graph/more", nn.Linear(3, 3))
    ship(model, tmp_path / "a", (6,))
    assert "'graph/more.weight'" in read_manifest(tmp_path / "a").no_graph
    loaded = load_bundle(tmp_path / "a", builder=lambda: model).model
    assert torch.equal(loaded.state_dict()["graph/more.weight"], model.state_dict()["graph/more.weight"])


def test_attention_in_a_graph_names_no_kind_of_device(tmp_path):
    ship(Encoder(), tmp_path / "b", (5, 6))
    text = (tmp_path / "b" / "graph.json").read_text()
    assert "aten.scaled_dot_product_attention.default" in text
    assert "_for_cpu" not in text
    assert "cuda" not in text


class Averaging(nn.Module):
    """The hidden width is written into forward, so that the cut gives a traced computation; lengths are in its arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x):
        hidden = torch.relu(self.a(x)).reshape(x.shape[0], x.shape[1], 16)[:, : x.shape[1] // 2]
        return self.o(hidden.sum(1) / x.shape[1]) * x.shape[1] ** -0.5


def test_sizes_follow_the_inputs_in_the_file_too(tmp_path):
    model, x = Averaging().eval(), torch.randn(2, 8, 5)
    small = shrink(model, (x,), analyze(model, (x,)), {"a": torch.arange(16) % 2 == 0}).model
    assert isinstance(small, PrunedGraph)
    save_bundle(tmp_path / "b", small, built_by=None, task="regression", input_shape=(8, 5), n_outputs=3)
    loaded = load_bundle(tmp_path / "b", prefer="graph").model
    for n in (8, 12, 5):
        longer = torch.randn(3, n, 5)
        assert torch.allclose(loaded(longer), small(longer), atol=1e-6)


def test_a_computation_that_holds_for_the_values_of_its_example_is_not_shipped(tmp_path):
    class Reading(Averaging):
        def forward(self, x):
            return self.o(torch.relu(self.a(x)).reshape(x.shape[0], x.shape[1], 16).mean(1) / float(x.abs().mean()))

    model, x = Reading().eval(), torch.randn(2, 8, 5)
    small = shrink(model, (x,), analyze(model, (x,)), {"a": torch.arange(16) % 2 == 0}).model
    with pytest.raises(BundleError, match=r"holds for inputs of the shape .* the numbers that the model read"):
        save_bundle(tmp_path / "b", small, built_by=None, task="regression", input_shape=(8, 5), n_outputs=3)
