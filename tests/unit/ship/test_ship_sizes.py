"""Lengths and image sizes that a model allows are free in its bundle, as far as they were seen to be right, and no further."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from prunus.core.errors import BundleError, PrunusError, ShapeError
from prunus.core.files.file_hash import sha256_file
from prunus.data import Scaler
from prunus.ship import Bundle, load_bundle, save_bundle
from prunus.ship.inputs import described
from ship_stand_ins import rewritten


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.out = nn.Embedding(50, 8), nn.LSTM(8, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, tokens):
        return self.out(self.lstm(self.embed(tokens))[0].mean(1))


class Transformer(nn.Module):
    """It has 40 positions, and takes the mean by the length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(50, 8), nn.Parameter(torch.randn(40, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        n = input_ids.shape[1]
        hidden = self.layer(self.embed(input_ids) + self.positions[:n])
        return self.out((hidden * attention_mask[..., None]).sum(1) / n)


class Adaptive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.out = nn.Conv2d(3, 6, 3, stride=2), nn.AdaptiveAvgPool2d(2), nn.Linear(24, 2)

    def forward(self, image):
        return self.out(self.pool(torch.relu(self.conv(image))).flatten(1))


class Camera(Adaptive):
    """It takes bytes, and divides them itself."""

    def forward(self, image):
        return super().forward(image.float() / 255)


class Flat(nn.Module):
    """Its last layer counts the places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 6, 3), nn.Linear(6 * 36, 2)

    def forward(self, image):
        return self.out(self.conv(image).flatten(1))


class Pair(nn.Module):
    """A sequence that may be of any length, and a table that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(4, 6), nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, sequence, table):
        return self.out(torch.tanh(self.left(sequence)).mean(1) - self.right(table))


class Loop(nn.Module):
    """It counts its steps in Python, so that a trace is of one length."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        hidden, total = torch.relu(self.inner(x)), 0
        for place in range(x.shape[1]):
            total = 0.5 * total + hidden[:, place]
        return self.out(total)


class Short(nn.Module):
    """Another function beyond a length of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        hidden = torch.relu(self.inner(x))
        return self.out(hidden.amax(1) if x.shape[1] > 10 else hidden.mean(1))


class Resampling(nn.Module):
    """Down, up to the size of what was before, and up by a factor."""

    def __init__(self, mode: str = "nearest") -> None:
        super().__init__()
        self.down, self.out, self.mode = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(7, 2, 1), mode

    def forward(self, image):
        hidden = F.interpolate(torch.relu(self.down(image)), scale_factor=2, mode=self.mode)
        hidden = F.interpolate(hidden, size=image.shape[-2:], mode=self.mode)
        return self.out(torch.cat([image, hidden], 1)).mean((2, 3))


class Square(nn.Module):
    """It turns its images, so that they must be squares."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, image):
        return self.out(self.conv(torch.stack([image, image.transpose(2, 3)]).mean(0)).mean((2, 3)))


class Masked(nn.Module):
    """Its mask is spread over heads and queries, so that nothing but the sizes says that its batch is that of the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(50, 8), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        h = self.embed(input_ids).unflatten(2, (2, 4)).transpose(1, 2)
        mask = attention_mask[:, None, None, :].expand(-1, 1, h.shape[2], -1) > 0
        return self.out(F.scaled_dot_product_attention(h, h, h, mask).transpose(1, 2).flatten(2).mean(1))


def ids(n: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50, (n, length), generator=torch.Generator().manual_seed(length))


def ids_and_mask(n: int, length: int) -> dict:
    return {"input_ids": ids(n, length), "attention_mask": torch.ones(n, length, dtype=torch.int64)}


def image(n: int, height: int, width: int | None = None) -> torch.Tensor:
    return torch.randn(n, 3, height, width or height, generator=torch.Generator().manual_seed(height))


def photo(n: int, height: int, width: int | None = None) -> torch.Tensor:
    return (image(n, height, width) * 60 + 128).clamp(0, 255).to(torch.uint8)


def pair(n: int, length: int) -> tuple:
    return torch.randn(n, length, 4, generator=torch.Generator().manual_seed(length)), torch.randn(n, 3)


def steps(n: int, length: int) -> torch.Tensor:
    return torch.randn(n, length, 5, generator=torch.Generator().manual_seed(length))


# What is called, the example, what else is right, and what isn't with what is said of it.
CASES = {
    "lstm": (Lstm, ids(4, 9), [ids(3, 1), ids(2, 31)], [(ids(2, 9)[0], "input 0 must have 2 dimensions")]),
    "transformer": (
        Transformer,
        ids_and_mask(4, 9),
        [ids_and_mask(3, 2), ids_and_mask(2, 40)],
        [
            (ids_and_mask(2, 41), r"input 'input_ids' must have the size 1 to 40 in dimension 1: got \(2, 41\)"),
            (ids_and_mask(2, 9) | {"input_ids": ids(2, 8)}, "'attention_mask' must have the size 8 in dimension 1, as"),
        ],
    ),
    "adaptive": (
        Adaptive,
        image(4, 16),
        [image(3, 24), image(2, 5, 31)],
        [
            (image(2, 2), r"input 0 must have the size 3 or more in dimension 2: got \(2, 3, 2, 2\)"),
            (image(2, 16)[:, :2], "input 0 must have the size 3 in dimension 1"),
        ],
    ),
    "camera": (
        Camera,
        photo(4, 16),
        [photo(3, 24), photo(2, 7, 31)],
        [(photo(2, 16).float(), "input 0 must be uint8 of shape"), (photo(2, 2), "must have the size 3 or more")],
    ),
    "resampling": (Resampling, image(4, 16), [image(3, 24), image(2, 5, 31)], [(image(2, 8)[0], "must have 4 dimen")]),
    "square": (
        Square,
        image(4, 16),
        [image(3, 24), image(2, 3)],
        [(image(2, 8, 9), r"input 0 must have the size 8 in dimension 3, as input 0 has"), (image(2, 2), "3 or more")],
    ),
    "masked": (
        Masked,
        ids_and_mask(4, 9),
        [ids_and_mask(1, 2), ids_and_mask(3, 30)],
        [(ids_and_mask(2, 9) | ids_and_mask(1, 9) | {"input_ids": ids(2, 9)}, "'attention_mask' must have the size 2 in")],
    ),
    "flat": (Flat, image(4, 8), [image(3, 8)], [(image(2, 9), "input 0 must have the size 8 in dimension 2")]),
    "pair": (
        Pair,
        pair(4, 6),
        [pair(3, 12), pair(2, 2)],
        [((pair(2, 6)[0], torch.randn(2, 4)), "input 1 must have the size 3 in dimension 1")],
    ),
    "loop": (Loop, steps(4, 8), [steps(3, 8)], [(steps(2, 9), "must have the size 8 in dimension 1")]),
    "short": (
        Short,
        steps(4, 8),
        [steps(3, 10), steps(2, 3)],
        [(steps(2, 11), r"must have the size 1 to 10 in dimension 1")],
    ),
}  # fmt: skip


def saved(model: nn.Module, example, folder, **more) -> None:
    save_bundle(
        folder,
        model.eval(),
        built_by=None,
        dense=type(model)(),
        input_shape=described(example)[0].shape,
        n_outputs=2,
        task="classification",
        example=example,
        **more,
    )


def answer(model: nn.Module, inputs) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(inputs, dict):
            return model(**inputs)
        return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def loaded(name: str, prefer: str, folder) -> tuple[nn.Module, Bundle]:
    kind, example, *_ = CASES[name]
    torch.manual_seed(0)
    model = kind()
    saved(model, example, folder)
    return model, load_bundle(folder, builder=kind if prefer == "eager" else None, prefer=prefer)


@pytest.mark.parametrize("prefer", ["eager", "graph"])
@pytest.mark.parametrize("name", CASES)
def test_sizes_that_the_model_allows_are_right_and_others_are_refused_in_one_line(name, prefer, tmp_path):
    model, bundle = loaded(name, prefer, tmp_path / "b")
    _, example, right, wrong = CASES[name]
    assert (bundle.kind, bundle.manifest.no_graph) == (prefer, None)
    for inputs in (example, *right):
        assert torch.allclose(bundle.predict(inputs), answer(model, inputs), atol=1e-5)
        assert torch.allclose(bundle.outputs(inputs, batch_size=1)[0], answer(model, inputs), atol=1e-5)
    for inputs, said in wrong:
        with pytest.raises(ShapeError, match=said) as error:
            bundle.predict(inputs)
        assert "\n" not in str(error.value)


def any_size(tree) -> None:
    for number, entry in enumerate(tree["inputs"]):
        entry["spans"] = [{"name": f"free_{number}_{place}"} for place, _ in enumerate(entry["shape"])]


@pytest.mark.parametrize("prefer", ["graph", "eager"])
@pytest.mark.parametrize("name", ["transformer", "flat", "loop", "short"])
def test_limits_changed_by_hand_are_refused_for_the_class_too(name, prefer, tmp_path):
    loaded(name, prefer, tmp_path / "b")
    kind, example, *_ = CASES[name]
    if name in ("flat", "loop"):  # all is as the example, and nothing of it is written down
        entry = {"dtype": "float32", "shape": list(described(example)[0].shape)}
        rewritten(tmp_path / "b", lambda tree: tree.update(inputs=[entry]))
    rewritten(tmp_path / "b", any_size)
    with pytest.raises(
        BundleError, match=r"the manifest says that input 0 may have the size any .* the graph holds for"
    ):
        load_bundle(tmp_path / "b", builder=kind if prefer == "eager" else None, prefer=prefer)


def test_sizes_that_are_one_can_t_be_said_to_be_two(tmp_path):
    loaded("transformer", "graph", tmp_path / "b")
    rewritten(tmp_path / "b", lambda tree: tree["inputs"][1]["spans"][0].update(name="another"))
    with pytest.raises(BundleError, match="the manifest says that input 1 may have the size 1 to 40 in dimension 1"):
        load_bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["transformer", "loop", "short"])
def test_the_graph_itself_refuses_what_it_doesn_t_hold_for(name, tmp_path):
    """Whatever a manifest says: without it, the graph's own limits decide."""
    model, bundle = loaded(name, "graph", tmp_path / "b")
    _, example, right, wrong = CASES[name]
    for inputs in (example, *right):
        assert torch.allclose(answer(bundle.model, inputs), answer(model, inputs), atol=1e-5)
    for inputs, said in wrong:
        with pytest.raises(PrunusError, match=said.split(": got")[0]):
            answer(bundle.model, inputs)


def test_a_shape_changed_by_hand_is_refused_when_it_is_loaded(tmp_path):
    loaded("loop", "graph", tmp_path / "b")
    rewritten(tmp_path / "b", lambda tree: tree.update(input_shape=[9, 5]))
    with pytest.raises(BundleError, match=r"graph.json: input 0 must have the size 8 in dimension 1: got \(2, 9, 5\)"):
        load_bundle(tmp_path / "b", prefer="graph")


def test_a_graph_that_says_nothing_of_sizes_holds_for_those_of_the_manifest(tmp_path):
    loaded("lstm", "graph", tmp_path / "b")
    path = tmp_path / "b" / "graph.json"
    tree = json.loads(path.read_text())
    tree = {"format": 1, "nodes": tree["nodes"]}
    for row in tree["nodes"]:
        row[2:4] = [None, []] if row[1] == "input" else row[2:4]
    path.write_text(json.dumps(tree))
    entry = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    rewritten(tmp_path / "b", lambda tree: tree["files"].update({"graph.json": entry}))
    with pytest.raises(BundleError, match="the manifest says that input 0 may have the size any in dimension 1"):
        load_bundle(tmp_path / "b", prefer="graph")
    rewritten(tmp_path / "b", lambda tree: tree["inputs"][0].pop("spans"))
    bundle = load_bundle(tmp_path / "b", prefer="graph")
    assert bundle.predict(ids(3, 9)).shape == (3, 2)
    with pytest.raises(ShapeError, match="must have the size 9 in dimension 1"):
        bundle.predict(ids(3, 10))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda entry: entry["spans"][0].update(least=10), "must be one of its span"),
        (lambda entry: entry["spans"][0].update(least=-1), "greater than or equal to 1"),
        (lambda entry: entry["spans"][0].update(name="A b"), "match pattern"),
        (lambda entry: entry["spans"].append(None), "an entry for each of"),
        (lambda entry: entry["spans"][0].update(step=2), "not permitted"),
    ],
)
def test_spans_that_are_none_are_refused(change, said, tmp_path):
    loaded("lstm", "graph", tmp_path / "b")
    rewritten(tmp_path / "b", lambda tree: change(tree["inputs"][0]))
    with pytest.raises(BundleError, match=said):
        load_bundle(tmp_path / "b")


@pytest.mark.parametrize("bad", [["1"], [[1, None]], [[1, 2, 3]], [[None, 1, "a"]], [1.0], [True], [-1], [1] * 20])
def test_sizes_of_a_graph_that_are_none_are_refused(bad, tmp_path):
    loaded("loop", "graph", tmp_path / "b")
    path = tmp_path / "b" / "graph.json"
    tree = json.loads(path.read_text())
    for row in tree["nodes"]:
        row[3] = [*row[3], *bad] if row[1] == "input" else row[3]
    path.write_text(json.dumps(tree))
    entry = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    rewritten(tmp_path / "b", lambda tree: tree["files"].update({"graph.json": entry}))
    with pytest.raises(BundleError, match=r"graph.json: node .*: (a size is a number|an input has at most 17)"):
        load_bundle(tmp_path / "b", prefer="graph")


def test_columns_and_what_is_scaled_by_place_stay_as_many_as_they_are(tmp_path):
    class Mean(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean(1), x.amax(1)], 1)

    x = torch.randn(4, 6)
    saved(Mean(), x, tmp_path / "free")
    assert load_bundle(tmp_path / "free").predict(torch.randn(2, 9)).shape == (2, 2)
    saved(Mean(), x, tmp_path / "named", feature_names=tuple("abcdef"))
    saved(Mean(), x, tmp_path / "scaled", scaler=Scaler(torch.arange(6.0), torch.ones(6)))
    for name in ("named", "scaled"):
        with pytest.raises(ShapeError, match="input 0 must have the size 6 in dimension 1"):
            load_bundle(tmp_path / name).predict(torch.randn(2, 9))
        free = {"dtype": "float32", "shape": [6], "spans": [{"name": "size_1"}]}
        rewritten(tmp_path / name, lambda tree, free=free: tree.update(inputs=[free]))
        with pytest.raises(
            BundleError, match="input 0 may have the size any in dimension 1, and the graph holds for 6"
        ):
            load_bundle(tmp_path / name)


def test_what_the_model_itself_refuses_within_its_sizes_is_one_line(tmp_path):
    class Halved(nn.Module):
        def forward(self, x):
            return x.unflatten(1, (2, -1)).mean(2)

    saved(Halved(), torch.randn(4, 8), tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", builder=Halved)
    assert bundle.predict(torch.randn(2, 12)).shape == (2, 2)
    with pytest.raises(ShapeError, match=r"input 0 has the size 9 in dimension 1 .*the model fails on it: [^\n]+$"):
        bundle.predict(torch.randn(2, 9))


def test_a_graph_that_is_saved_again_keeps_its_limits(tmp_path):
    model, bundle = loaded("short", "graph", tmp_path / "b")
    saved_again = tmp_path / "again"
    save_bundle(
        saved_again, bundle.model, built_by=None, input_shape=(8, 5), n_outputs=2, task="classification", example=steps(4, 8)
    )  # fmt: skip
    again = load_bundle(saved_again)
    assert torch.allclose(again.predict(steps(2, 10)), answer(model, steps(2, 10)), atol=1e-5)
    with pytest.raises(ShapeError, match="1 to 10 in dimension 1"):
        again.predict(steps(2, 11))


@pytest.mark.parametrize("mode", ["bilinear", "nearest-exact", "bicubic", "area"])
def test_images_that_are_resampled_keep_their_size_in_every_mode(mode, tmp_path):
    torch.manual_seed(0)
    model = Resampling(mode)
    saved(model, image(4, 16), tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", prefer="graph")
    for inputs in (image(2, 16), *([] if mode == "area" else [image(3, 24), image(2, 5, 31)])):
        assert torch.allclose(bundle.predict(inputs), answer(model, inputs), atol=1e-5)


class Patches(nn.Module):
    """It takes images of any size, and attends from every patch to every other one."""

    largest = 0

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, image):
        if not torch.compiler.is_exporting():
            Patches.largest = max(Patches.largest, *image.shape[2:])
        assert max(image.shape[2:]) <= 4096, "the test's own memory"
        return self.head(self.layers(self.patch(image).flatten(2).transpose(1, 2)).mean(1))


def test_looking_for_the_largest_size_runs_nothing_that_was_not_counted(tmp_path):
    torch.manual_seed(0)
    net = Patches().eval()
    save_bundle(
        tmp_path / "bundle", net, built_by=None, dense=net, input_shape=(3, 32, 32), n_outputs=5, task="classification"
    )
    assert 64 <= Patches.largest <= 1024, "attention in plain sight takes 34 GB at 16,384"
    loaded = load_bundle(tmp_path / "bundle", prefer="graph")
    wide = torch.randn(2, 3, 40, 96)
    torch.testing.assert_close(loaded.model(wide), net(wide), rtol=1e-4, atol=1e-5)
