"""How many examples are read and go through a model at once follows what they take, and no answer depends on it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from prunus.core.batch import Batch
from prunus.data import Batches, DrawnSource, Examples, Takes, open_drawn, prepare_arrays
from prunus.evaluate import feed, measure_quality, observe
from prunus.evaluate.feed import Feed, read_size
from prunus.evaluate.predict import predict_outputs
from prunus.tasks import Classification, Segmentation


class Seen(nn.Module):
    """Remembers how many examples it got at once."""

    def __init__(self, inner: nn.Module, least: int = 1) -> None:
        super().__init__()
        self.inner, self.least, self.sizes = inner, least, []

    def forward(self, x):
        assert len(x) >= self.least
        self.sizes.append(len(x))
        return self.inner(x)


class Images(Dataset):
    def __init__(self, n: int, side: int) -> None:
        self.n, self.side = n, side

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row):
        return torch.full((3, self.side, self.side), float(row)), row % 2


def painter(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.ReLU(), nn.Conv2d(width, 2, 1))


def batch_of(inputs, targets=None):
    return Batch(torch.arange(len(inputs)), inputs, targets)


def test_small_examples_are_read_and_go_through_the_model_512_at_once():
    data = prepare_arrays(torch.randn(2000, 8), torch.arange(2000) % 2).train
    model = Seen(nn.Linear(8, 2))
    assert read_size(data) == 512
    outputs = predict_outputs(model, data)
    assert model.sizes == [1, 512, 512, len(data) - 1024]  # one to see what it takes
    assert torch.equal(outputs, predict_outputs(model, data, batch_size=512))  # bit for bit


def test_large_images_are_read_few_at_once():
    source = open_drawn(Images(200, 512), Takes(), "images")
    examples = Examples(source, torch.arange(200), task=Classification(("a", "b")))
    assert read_size(examples) == 2**26 // (3 * 512 * 512 * 4) == 21


def test_what_a_model_makes_of_an_example_bounds_how_many_go_through():
    """A 64 x 64 image is small; 256 maps of it are not: 512 of them would be 2 GB."""
    images = torch.randn(40, 3, 64, 64)
    model = Seen(painter(256))
    (first, *rest) = list(Feed(model).parts(batch_of(images)))
    assert len(first.index) == 2**28 // (3 * 256 * 64 * 64 * 4) == 21
    assert [len(part.index) for part in rest] == [19]
    assert rest[0].index.tolist() == list(range(21, 40))


def test_answers_of_a_large_vocabulary_count_too():
    head = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 50_000))
    parts = list(Feed(head).parts(batch_of(torch.randint(10, (40, 16)))))
    assert len(parts[0].index) == 2**28 // (3 * 16 * 50_000 * 4) == 27


def test_no_observation_and_no_metric_depends_on_it(monkeypatch):
    images, masks = torch.randn(30, 3, 16, 16), torch.randint(2, (30, 16, 16))
    task, model = Segmentation(("a", "b")), Seen(painter(32))
    data = Batches([(images, masks)])
    whole = observe(model, data, task)
    monkeypatch.setattr(feed, "_LIVE_BYTES", 3 * 32 * 16 * 16 * 4 * 4)
    model.sizes.clear()
    parted = observe(model, data, task)
    assert model.sizes == [1, 4, 4, 4, 4, 4, 4, 4, 2]
    for name, column in whole.items():
        assert (parted[name] == column).all() if column.dtype.kind in "ib" else parted[name] == pytest.approx(column)
    values = [measure_quality(one, task, bootstrap=100).value("miou") for one in (whole, parted)]
    assert values[0] == values[1]


def test_what_is_read_together_depends_on_the_data_alone():
    source = open_drawn(Images(60, 512), Takes(), "images")
    assert isinstance(source, DrawnSource)
    assert source.example_bytes == 3 * 512 * 512 * 4
    examples = Examples(source, torch.arange(60), task=Classification(("a", "b")))
    read = []
    original = source.reader.read
    object.__setattr__(source.reader, "read", lambda pieces, seed: original(_noted(pieces, read), seed))
    sizes = []
    for width in (2, 16):
        read.clear()
        predict_outputs(nn.Sequential(painter(width), nn.Flatten(2)), examples)
        sizes.append(list(read))
    assert sizes[0] == sizes[1] == [21, 21, 18]


def _noted(pieces, read):
    for rows in pieces:
        read.append(len(rows))
        yield rows


def test_a_model_that_takes_no_example_alone_gets_the_whole_batch():
    model = Seen(nn.Linear(4, 2), least=2)
    (part,) = Feed(model).parts(batch_of(torch.zeros(9, 4)))
    assert len(part.index) == 9


def test_what_has_no_row_for_each_example_stays_whole():
    nodes = {"x": torch.zeros(9, 4), "edges": torch.zeros(2, 30)}
    (part,) = Feed(nn.Identity()).parts(Batch(torch.arange(9), nodes, None))
    assert part.inputs is nodes


def test_lists_and_mappings_are_taken_apart(monkeypatch):
    monkeypatch.setattr(feed, "_LIVE_BYTES", 3 * 4 * 4 * 2)

    class Both(nn.Module):
        def forward(self, images, ids):
            return torch.stack([image + n for image, n in zip(images, ids, strict=True)])

    inputs = {"images": list(torch.arange(20.0).view(5, 4)), "ids": torch.arange(5)}
    parts = list(Feed(Both()).parts(Batch(torch.arange(5), inputs, list("abcde"))))
    assert [len(part.inputs["images"]) for part in parts] == [2, 2, 1]
    assert [part.targets for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
