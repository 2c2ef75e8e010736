"""A data set that is read when needed knows its length, and labels and names where it has a list of them."""

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset

from drawn_stand_ins import Made, Rows, two_inputs
from prunus.core.errors import DataError
from prunus.data.sources.apart import Takes
from prunus.data.sources.drawn import DrawnSource, known_labels, open_drawn

ONE = Takes()


def opened(data: Any, takes: Takes = ONE, **more: Any) -> DrawnSource:
    return open_drawn(data, takes, "data", **more)


def test_opening_reads_two_examples() -> None:
    data = Made(10**6)
    source = opened(data)
    assert data.n_read <= 2
    assert len(source) == len(source.ids) == 10**6
    assert source.input_shape == (3, 6, 6)


def test_several_inputs_have_no_shape_of_their_own() -> None:
    source = opened(two_inputs(), Takes(2, 2))
    inputs, targets = source.at(torch.tensor([3]))
    assert isinstance(inputs, tuple)
    assert source.input_shape == ()
    assert torch.equal(targets, two_inputs()[2][3:4])


LABELS = [row % 3 for row in range(30)]


@pytest.mark.parametrize(
    ("data", "known"),
    [
        (Made(30), False),
        (Made(30, targets=LABELS), True),
        (Made(30, targets=torch.tensor(LABELS)), True),
        (DataLoader(Made(30, targets=LABELS)), True),
        (Subset(Made(60, targets=LABELS * 2), range(0, 60, 2)), True),
        (Made(30, targets=[2 - label for label in LABELS]), False),
        (Made(30, targets=LABELS[:-1]), False),
        (Made(30, targets=["a"] * 30), False),
        (Rows(x=torch.zeros(30, 2), label=torch.tensor(LABELS)), False),
        ((torch.zeros(30, 3, 2), torch.tensor(LABELS)), True),
        ((torch.zeros(30, 3, 2), torch.rand(30)), False),
        (torch.zeros(30, 3), False),
    ],
    ids=range(12),
)
def test_labels_are_known_where_a_list_says_what_reading_says(data: Any, known: bool) -> None:
    source = opened(data)
    labels = known_labels(source)
    assert (labels is not None) == known
    if labels is not None:
        assert torch.equal(labels[:7], source.at(torch.arange(7))[1])


def test_a_column_of_labels_is_read_alone() -> None:
    class Set(Rows):
        column_names = ("x", "label")

        def __getitem__(self, row: Any) -> Any:
            return self.columns[row] if isinstance(row, str) else super().__getitem__(row)

    assert known_labels(opened(Set(x=torch.zeros(30, 2), label=torch.tensor(LABELS)))).tolist() == LABELS


def test_labels_that_nobody_knows_are_refused_where_they_are_needed() -> None:
    with pytest.raises(DataError, match="known only once an example is read"):
        _ = opened(Made()).targets


def test_the_fingerprint_tells_lengths_contents_and_labels_apart() -> None:
    prints = [opened(data).fingerprint() for data in (Made(50), Made(50), Made(51), Made(50, flips=True))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
    source = opened(Made(10**6))
    source.fingerprint()
    assert source.reader.dataset.n_read < 100


class Growing(Made):
    """Its example 9 has one dimension more."""

    def __getitem__(self, row: int) -> Any:
        image, label = super().__getitem__(row)
        return (image[None], label) if row == 9 else (image, label)


def test_another_structure_in_a_later_batch_is_named() -> None:
    source = opened(Growing())
    with pytest.raises(
        DataError, match=r"of the structure of the first, .*got a list \(float32 \[1, 1, 3, 6, 6\].*in batch 9"
    ) as caught:
        list(source.batches(iter(torch.arange(12)[:, None])))
    assert "\n" not in str(caught.value)


def test_inputs_without_a_tensor_are_refused() -> None:
    with pytest.raises(DataError, match="expected tensors in the model's inputs"):
        opened([("a", 1), ("b", 2)])
