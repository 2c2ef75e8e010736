"""Models that take a list with a tensor for each example, as torchvision's detectors do, are bundled and called as they are."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import prunus
from prunus.core.errors import BundleError, ModelError, ShapeError
from prunus.ship import export_file, load_bundle, save_bundle
from prunus.ship.inputs import described
from prunus.tasks import Detection
from ship_stand_ins import rewritten


class Finder(nn.Module):
    """A box for each image, of any size, and as many more as its mean says."""

    def __init__(self, width: int = 8, smallest: int = 1) -> None:
        super().__init__()
        self.a, self.b, self.smallest = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 5, 1), smallest

    def forward(self, images: list[Tensor], targets: list | None = None) -> list[dict[str, Tensor]]:
        found = []
        for image in images:
            assert min(image.shape[1:]) >= self.smallest
            seen = self.b(torch.relu(self.a(image[None]))).mean(dim=(2, 3))[0]
            n = 1 + int(image.shape[1] > 10)
            start = seen[:2].sigmoid() * 4
            boxes = torch.cat([start, start + 2 + seen[2:4].exp()])[None].repeat(n, 1)
            found.append(
                {"boxes": boxes, "scores": seen[4:].sigmoid().repeat(n), "labels": torch.ones(n, dtype=torch.int64)}
            )
        return found


def images(*sizes):
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=draw) for size in sizes]


IMAGES = images((8, 12), (12, 8), (9, 9))


def saved(folder, model=None, example=IMAGES, **options):
    torch.manual_seed(0)
    model = Finder() if model is None else model
    given = {"built_by": None, "dense": type(model)(), "input_shape": (3, 8, 8), "n_outputs": 5, **options}
    save_bundle(folder, model, **given, task=Detection(("thing",), shown_from=0.1), example=example)
    return model.eval()


def test_lists_are_described_by_one_example_of_them():
    (entry,) = described(IMAGES)
    assert (entry.listed, entry.shape, entry.dtype, entry.name) == (True, (3, 8, 12), "float32", None)
    by_name = described({"images": IMAGES, "ids": torch.zeros(3, 5, dtype=torch.int64)})
    assert [(entry.name, entry.listed) for entry in by_name] == [("images", True), ("ids", False)]


@pytest.mark.parametrize(
    ("example", "got"),
    [
        ([torch.zeros(3, 4, 4), torch.zeros(4, 4)], "got list"),
        ([torch.zeros(2), "b"], "got list"),
        ([], "got list"),
        (({"a": 1},), "got dict"),
        ((torch.zeros(3, 2), [torch.zeros(2)] * 2), "the example's input 1 .* got list"),
    ],
)
def test_what_is_no_list_of_examples_is_one_line(example, got):
    with pytest.raises(BundleError, match=got):
        described(example)


def test_a_detector_comes_back_and_answers_as_it_did(tmp_path):
    model = saved(tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", builder=Finder)
    assert "one number of them" in bundle.manifest.no_graph
    assert bundle.manifest.n_output_tensors == 3
    many = images((8, 12), (20, 8), (9, 9), (16, 16), (30, 40))
    expected = model(many)
    for size in (1, 2, 256):
        found = bundle.answer(many, batch_size=size)
        assert [len(one["boxes"]) for one in found] == [1, 2, 1, 2, 2]
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(bundle.outputs(many)[:3], tuple(expected[0].values()))
    assert bundle.postprocess(found) == Detection(("thing",), shown_from=0.1).decode(expected)


def test_the_sizes_that_a_detector_takes_are_its_own_business_where_it_takes_several(tmp_path):
    saved(tmp_path / "b", Finder(smallest=8))
    bundle = load_bundle(tmp_path / "b", builder=lambda: Finder(smallest=8))
    assert bundle.manifest.takes[0].spans == ()
    with pytest.raises(ShapeError, match=r"input '0\[1\]' must have the size 12 in dimension 3: got \(1, 3, 8, 8\)"):
        bundle.answer(images((8, 12), (8, 8)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            torch.zeros(2, 3, 8, 8),
            r"input 0 must be a list with one tensor for each example: got torch.float32 \(2, 3, 8, 8\)",
        ),
        ([torch.zeros(3, 8, 8).long()], "input 0 must be float32 of shape"),
        ([torch.zeros(1, 8, 8)], r"input '0\[0\]' must have the size 3 in dimension 1: got \(1, 1, 8, 8\)"),
        ([torch.zeros(3, 8)], r"input '0\[0\]' must have 4 dimensions"),
        ([], "at least one example is needed"),
    ],
)
def test_other_inputs_are_refused_in_one_line(given, words, tmp_path):
    saved(tmp_path / "b")
    with pytest.raises(ShapeError, match=words):
        load_bundle(tmp_path / "b", builder=Finder).answer(given)


def test_a_file_for_another_runtime_and_a_scaler_are_refused(tmp_path):
    saved(tmp_path / "b")
    with pytest.raises(
        ModelError, match="the model takes a list with a tensor for each example, and a file takes tensors"
    ):
        export_file(load_bundle(tmp_path / "b", builder=Finder), "onnx", tmp_path / "b.onnx")
    with pytest.raises(BundleError, match="only one input of fractional numbers is scaled"):
        saved(tmp_path / "c", scaler=prunus.data.Scaler(torch.zeros(3, 1, 1), torch.full((3, 1, 1), 2.0)))


def test_a_manifest_that_says_list_of_a_tensor_is_refused_when_called(tmp_path):
    torch.manual_seed(0)
    given = {"built_by": None, "dense": nn.Linear(4, 2), "input_shape": (4,), "n_outputs": 2, "task": "regression"}
    save_bundle(tmp_path / "b", nn.Linear(4, 2), **given)
    entry = {"dtype": "float32", "shape": [4], "listed": True}
    rewritten(tmp_path / "b", lambda tree: tree.update(inputs=[entry]))
    with pytest.raises(ModelError, match="takes input as a tensor"):
        load_bundle(tmp_path / "b").answer([torch.zeros(4), torch.zeros(4)])


def test_a_run_on_lists_saves_and_measures(tmp_path):
    things = [{"boxes": torch.tensor([[1.0, 1.0, 6.0, 6.0]]), "labels": torch.tensor([1])} for _ in range(40)]
    data = torch.utils.data.DataLoader(
        list(zip(images(*[(8, 8 + n % 3) for n in range(40)]), things, strict=True)),
        batch_size=4,
        collate_fn=lambda rows: ([x for x, _ in rows], [y for _, y in rows]),
    )
    torch.manual_seed(0)
    optimizer = prunus.ModelOptimizer(
        Finder(),
        data,
        task=Detection(("none", "thing")),
        trained=True,
        strategy={"criterion": "magnitude_l2", "keep_fraction": 0.5},
        loss=lambda outputs, batch: sum(one["scores"].sum() for one in outputs),
        evaluation={"bootstrap": 100},
        seeds=[0],
        listener=lambda event: None,
    )
    optimizer.prune()
    assert optimizer.model_.a.out_channels == 4
    optimizer.save(tmp_path / "b")
    bundle = load_bundle(tmp_path / "b", builder=Finder)
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["inputs"][0]["listed"]
    torch.testing.assert_close(bundle.answer(IMAGES), optimizer.model_.eval()(IMAGES))
    assert bundle.postprocess(bundle.answer(IMAGES)) == optimizer.postprocess(optimizer.predict_outputs(IMAGES))
