"""Examples are read when they are asked for: anew in each epoch, the same wherever two models are compared."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from drawn_stand_ins import Made, Rows, Stream
from prunus.core.errors import DataError
from prunus.data.sources.reading import class_names_of, first_of_stream, reader_of


def read(data: Any, *rows: int, seed: int = 0) -> Any:
    return next(reader_of(data).read(iter([torch.tensor(rows)]), seed))


def test_nothing_is_read_but_what_is_asked_for() -> None:
    data = Made(10**9)
    images, labels = read(data, 5, 10**9 - 1)
    assert data.n_read == 2
    assert labels.tolist() == [2, (10**9 - 1) % 3]
    assert torch.equal(images[0], Made()[5][0])


def test_a_seed_draws_the_same_augmentation_and_another_one_another() -> None:
    data = Made(64, flips=True)
    state = torch.get_rng_state()
    first, again, other = (read(data, *range(64), seed=seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state), "what a data set draws must not disturb the training's draws"


def test_a_loader_lends_its_data_set_and_collate_fn_but_not_its_sampler() -> None:
    def pair(examples: list[Any]) -> Any:
        return {"images": torch.stack([image for image, _ in examples]), "label": [label for _, label in examples]}

    batch = read(DataLoader(Made(), batch_size=7, shuffle=True, collate_fn=pair), 3, 0)
    assert torch.equal(batch["images"][0], Made()[3][0])
    assert batch["label"].tolist() == [0, 0]


def test_workers_give_what_one_process_gives() -> None:
    pieces = [torch.tensor([4, 1]), torch.tensor([0])]
    alone = list(reader_of(DataLoader(Made())).read(iter(pieces), 0))
    several = list(reader_of(DataLoader(Made(), num_workers=2)).read(iter(pieces), 0))
    for one, other in zip(alone, several, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_arrays_stay_where_they_lie_and_whole_numbers_whole() -> None:
    ids, bytes_ = np.arange(12).reshape(6, 2), np.zeros((6, 3), np.uint8)
    batch = read({"ids": ids, "image": bytes_, "size": np.zeros(6)}, 1)
    assert [batch[key].dtype for key in ("ids", "image", "size")] == [torch.int64, torch.uint8, torch.float32]
    assert reader_of(torch.zeros(3, 2)).fixed
    assert reader_of(TensorDataset(torch.zeros(3, 2), torch.zeros(3))).fixed
    assert not reader_of(Made()).fixed


def test_a_set_of_hugging_face_s_keeps_a_transform_of_its_own() -> None:
    class Set(Rows):
        column_names = ("x",)
        format: Any = None
        asked = False

        def with_format(self, kind: str) -> "Set":
            made = Set(**self.columns)
            made.asked = kind == "torch"
            return made

    plain, own = Set(x=[1.0, 2.0]), Set(x=[1.0, 2.0])
    plain.format = {"type": None}
    own.format = {"type": "custom"}
    assert reader_of(plain).dataset.asked
    assert not reader_of(own).dataset.asked


def test_a_python_number_becomes_single_precision_as_models_have_it() -> None:
    assert read([(torch.zeros(2), 0.5)] * 3, 0, 1)[1].dtype == torch.float32


def test_a_stream_gives_its_first_examples_which_then_are_kept() -> None:
    reader = first_of_stream(DataLoader(Stream(), batch_size=4), 5, "data")
    assert len(reader) == 5
    (batch,) = reader.read(iter([torch.tensor([4, 0])]), 0)
    assert torch.equal(batch[0][0], Made()[4][0])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Made(0), "the data yield no example: got an empty Made"),
        (DataLoader(TensorDataset(torch.zeros(0, 2))), "the data yield no example: got an empty TensorDataset"),
        (Stream(), r"random access needed: got a stream \(Stream\)"),
        (DataLoader(Stream(), batch_size=2), r"random access needed: got a stream \(Stream\)"),
        (iter([torch.zeros(2)]), "random access needed: got a stream"),
        (DataLoader(Made(), batch_size=None), "got one with batch_size=None"),
        (7, "expected a map-style Dataset, a DataLoader, arrays, or a mapping of parts"),
        ((torch.zeros(3), torch.zeros(4)), "as many examples in every tensor"),
        (np.array(["a"]), "expected arrays of numbers"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        reader_of(data)
    assert "\n" not in str(caught.value)


class Broken(Made):
    def __getitem__(self, row: int) -> Any:
        if row == 3:
            raise OSError("the disk\nfell off")
        return super().__getitem__(row)


def uneven(row: int) -> Any:
    return torch.zeros(row)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Broken(), "data: reading example 3 failed: OSError: the disk fell off; correct the data set"),
        (DataLoader(Broken(), num_workers=1), "a worker of the DataLoader failed on batch 0"),
        ([torch.zeros(n) for n in range(5)], "example 2 and those after it can't be put into one batch .*collate_fn"),
        (DataLoader(Made(), collate_fn=lambda rows: rows[9]), r"\(IndexError.*\): correct the collate_fn"),
    ],
)
def test_what_fails_while_reading_says_where(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(data, 2, 3)
    assert "\n" not in str(caught.value)


def test_names_of_classes_are_the_data_set_s_own_through_subsets_and_loaders() -> None:
    class Feature:
        names = ("cat", "dog")

    assert class_names_of(DataLoader(Subset(Made(classes=["a", "b"]), [0]))) == ("a", "b")
    assert class_names_of(Made(features={"label": Feature()})) == ("cat", "dog")
    assert class_names_of(Made()) == ()
