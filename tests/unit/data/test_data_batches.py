"""Whatever holds examples is gone through as examples: with targets or without, drawn or as they come."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from prunus.core.errors import DataError
from prunus.data import Batches, collect

X = torch.arange(40.0).reshape(20, 2)
Y = torch.arange(20)
LIKE = X[:1]


class Rows(Dataset[Any]):
    """A map-style set of mappings, as Hugging Face has them."""

    def __init__(self, **columns: Any) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: values[row] for name, values in self.columns.items()}


class Formatted(Rows):
    """A set that gives lists of numbers until it is asked for tensors, like one of Hugging Face's."""

    column_names = ("input_ids", "label")
    asked = False

    def with_format(self, kind: str) -> "Formatted":
        made = Formatted(**self.columns)
        made.asked = kind == "torch"
        return made

    def __getitem__(self, row: int) -> dict[str, Any]:
        found = super().__getitem__(row)
        return found if self.asked else {name: value.tolist() for name, value in found.items()}


class Stream(IterableDataset[Any]):
    """Examples one after the other."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(X, Y, strict=True)


def together(examples: Batches, batch_size: int = 7) -> tuple[Tensor, Tensor | None]:
    batches = list(examples.batches(batch_size))
    assert all(len(batch.index) <= batch_size for batch in batches)
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(len(examples)))
    inputs = torch.cat([batch.inputs for batch in batches])
    return inputs, None if batches[0].targets is None else torch.cat([batch.targets for batch in batches])


@pytest.mark.parametrize(
    "data",
    [
        DataLoader(TensorDataset(X, Y), batch_size=6),
        TensorDataset(X, Y),
        (X, Y),
        (X.double().numpy(), Y.numpy()),
        (X, Y.tolist()),
        {"features": X, "label": Y},
        [(x, y) for x, y in zip(X, Y, strict=True)],
        Rows(features=X, label=Y),
        Rows(features=X, label=Y, name=[f"row {n}" for n in range(20)]),
        Stream(),
        [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)],
    ],
    ids=lambda data: type(data).__name__,
)
def test_inputs_and_targets_are_found_wherever_they_lie(data: Any) -> None:
    inputs, targets = together(collect(data, LIKE))
    assert torch.equal(inputs, X)
    assert targets is not None
    assert torch.equal(targets, Y)


@pytest.mark.parametrize("data", [X, X.numpy(), DataLoader(X, batch_size=3), list(X), Rows(features=X), iter([X])])
def test_inputs_alone_have_no_targets(data: Any) -> None:
    inputs, targets = together(collect(data, LIKE))
    assert torch.equal(inputs, X)
    assert targets is None


def test_integers_stay_integers_and_bytes_bytes() -> None:
    ids = torch.randint(0, 9, (20, 5))
    assert together(collect((ids, Y), ids[:1]))[0].dtype == torch.int64
    images = torch.randint(0, 255, (20, 3, 4, 4), dtype=torch.uint8)
    assert together(collect(images, images[:1]))[0].dtype == torch.uint8
    assert together(collect(np.zeros((20, 2)), LIKE))[0].dtype == torch.float32, "as models have it"


def test_a_mapping_of_keywords_takes_its_keys_and_leaves_the_rest_as_targets() -> None:
    ids = torch.randint(0, 9, (20, 5))
    like = {"input_ids": ids[:1]}
    batch = next(collect({"input_ids": ids, "labels": Y, "text": ["t"] * 20}, like).batches(20))
    assert set(batch.inputs) == {"input_ids"}
    assert torch.equal(batch.targets, Y)
    batch = next(collect({"input_ids": ids, "start": Y, "end": Y}, like).batches(20))
    assert set(batch.targets) == {"start", "end"}
    batch = next(collect(Formatted(input_ids=ids, label=Y), like, n=20).batches(20))
    assert batch.inputs["input_ids"].shape == (20, 5)


def test_several_positional_inputs_are_a_tuple() -> None:
    other = torch.rand(20, 4)
    like = (X[:1], other[:1])
    for data in ((X, other, Y), ((X, other), Y), DataLoader(TensorDataset(X, other, Y), batch_size=5)):
        batch = next(collect(data, like).batches(5))
        assert isinstance(batch.inputs, tuple)
        assert torch.equal(batch.inputs[1], other[:5])
        assert torch.equal(batch.targets, Y[:5])
    batch = next(collect((X, other), like).batches(5))
    assert batch.targets is None, "as many parts as the model takes leave no targets"


def test_rows_are_drawn_by_the_seed_from_what_can_be_indexed() -> None:
    first, again, other = (together(collect((X, Y), LIKE, n=8, seed=seed))[1] for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert len(first) == 8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    loader = together(collect(DataLoader(TensorDataset(X, Y), batch_size=6), LIKE, n=8))[1]
    assert loader is not None
    assert loader.tolist() == list(range(8)), "a stream gives what comes first"


def test_no_more_is_read_than_is_needed() -> None:
    def endless() -> Iterator[Tensor]:
        while True:
            yield X[:4]

    assert len(collect(endless(), LIKE, n=10)) == 10


def test_a_shuffle_has_every_example_once_with_its_target() -> None:
    examples = collect(DataLoader(TensorDataset(X, Y), batch_size=6), LIKE)
    batches = list(examples.batches(4, torch.Generator().manual_seed(0)))
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(20))
    assert index.tolist() != list(range(20))
    assert all(torch.equal(batch.targets, Y[batch.index]) for batch in batches)
    assert all(torch.equal(batch.inputs, X[batch.index]) for batch in batches)


def test_batches_may_have_other_lengths() -> None:
    loader = [torch.zeros(4, 5, dtype=torch.int64), torch.zeros(4, 9, dtype=torch.int64)]
    examples = collect(iter(loader), loader[0])
    assert [batch.inputs.shape[1] for batch in examples.batches(8)] == [5, 9]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (iter([]), "the data yield no example"),
        (DataLoader(TensorDataset(X[:0], Y[:0])), "the data yield no example: got an empty DataLoader"),
        (
            X[:, :, None],
            r"what the model takes, float32 \[1, 2\], alone or with targets after it: got float32 \[20, 2, 1\]",
        ),
        (torch.zeros(20, 2, dtype=torch.int64), r"got int64 \[20, 2\]"),
        (np.array(["a", "b"]), "expected arrays of numbers: got dtype <U1"),
        (7, "expected a DataLoader, a Dataset, arrays"),
        ((X, Y[:5]), "as many examples in every tensor of a batch"),
        (iter([(X, Y), X]), "expected targets in every batch or in none"),
        ([torch.zeros(2), torch.zeros(3)], "can't be put into one batch"),
        (
            DataLoader(TensorDataset(X, Y), collate_fn=lambda rows: 1 / 0),
            "the DataLoader failed on batch 0: ZeroDivisionError",
        ),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        collect(data, LIKE)
    assert "\n" not in str(caught.value)


def test_missing_keywords_are_named() -> None:
    with pytest.raises(DataError, match="got a dict \\(ids: int64"):
        collect({"ids": torch.zeros(3, 2, dtype=torch.int64)}, {"input_ids": torch.zeros(1, 2, dtype=torch.int64)})


def test_an_input_that_is_not_a_number_is_named_and_masks_may_be_infinite() -> None:
    spoilt = X.clone()
    spoilt[13, 1] = float("nan")
    with pytest.raises(
        DataError, match="expected numbers in the inputs: got NaN in example 13 of those that are drawn"
    ):
        collect(DataLoader(TensorDataset(spoilt, Y), batch_size=6), LIKE)
    mask = X.clone()
    mask[0] = -torch.inf
    assert len(collect(mask, LIKE)) == 20
