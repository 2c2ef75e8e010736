"""A model is called with what it takes, and any structure is taken apart and put together without loss."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prunus.core.calls import (
    answer,
    answers,
    arguments,
    call,
    described,
    joined,
    map_tensors,
    n_examples,
    select_rows,
    tensors,
)
from prunus.core.errors import DataError, ModelError


class Pair(NamedTuple):
    one: Tensor
    two: Any


class Cache:
    """Keys and values for the next call, in an object of their own."""

    def __init__(self) -> None:
        self.keys = torch.ones(2, 4)


@dataclass
class Output:
    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None


LEAVES = st.integers(0, 3).map(lambda width: ("tensor", width))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3),
        inner.map(lambda one: Pair(one, one)),
    ),
    max_leaves=5,
)


def grown(tree: Any, n: int) -> Any:
    """Put a tensor of ``n`` examples where a tree of widths has a leaf."""
    if isinstance(tree, tuple) and tree and tree[0] == "tensor":
        return torch.arange(n * (tree[1] + 1)).reshape(n, tree[1] + 1)
    if isinstance(tree, Mapping):
        return {key: grown(value, n) for key, value in tree.items()}
    parts = [grown(value, n) for value in tree]
    return Pair(*parts) if isinstance(tree, Pair) else tuple(parts)


def test_inputs_are_handed_over_as_they_are() -> None:
    def taken(*given: Any, **named: Any) -> Any:
        return given, named

    x, y = torch.zeros(1), torch.ones(1)
    assert call(taken, x) == ((x,), {})
    assert call(taken, (x, y)) == ((x, y), {})
    assert call(taken, {"a": x, "b": y}) == ((), {"a": x, "b": y})
    assert call(taken, [x, y]) == (([x, y],), {})
    assert arguments(Pair(x, y)) == ((Pair(x, y),), {}), "a named tuple is one argument"


@given(TREES, st.integers(1, 6), st.data())
def test_rows_that_are_taken_apart_and_joined_are_the_same(tree: Any, n: int, data: st.DataObject) -> None:
    whole = grown(tree, n)
    split = data.draw(st.integers(0, n))
    places = torch.arange(n)
    parts = [select_rows(whole, places[:split]), select_rows(whole, places[split:])]
    back = joined(parts)
    assert [where for where, _ in tensors(back)] == [where for where, _ in tensors(whole)]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(tensors(back), tensors(whole), strict=True))
    assert n_examples(whole) == n
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    by_mask, by_place = select_rows(whole, mask), select_rows(whole, mask.nonzero().flatten())
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(tensors(by_mask), tensors(by_place), strict=True))


@given(TREES, st.integers(1, 4))
def test_a_structure_keeps_its_types_when_its_tensors_change(tree: Any, n: int) -> None:
    whole = grown(tree, n)
    doubled = map_tensors(lambda value: value * 2, whole)
    assert type(doubled) is type(whole)
    assert all(torch.equal(a * 2, b) for (_, a), (_, b) in zip(tensors(whole), tensors(doubled), strict=True))


def test_a_list_has_one_item_for_each_example() -> None:
    images = [torch.zeros(3, 4, 4), torch.ones(3, 5, 5), torch.ones(3, 2, 2)]
    assert n_examples(images) == 3
    assert select_rows(images, torch.tensor([2])) == [images[2]]
    assert joined([images[:1], images[1:]]) == images


def test_the_answer_is_the_logits_or_the_first_numbers() -> None:
    logits = torch.ones(2, 3)
    assert answer(logits) is logits
    assert answer(Output(loss=torch.tensor(1.0), logits=logits)) is logits
    assert answer({"out": logits, "aux": torch.zeros(1)}) is logits
    assert answer((torch.zeros(2, dtype=torch.int64), logits)) is logits
    with pytest.raises(ModelError, match="expected numbers in the model's answer: got an empty tuple"):
        answer(())


def test_a_cache_is_no_answer() -> None:
    cache = (torch.ones(2), torch.ones(2))
    assert len(answers(Output(logits=torch.ones(2, 3), past_key_values=cache))) == 1
    assert len(answers({"logits": torch.ones(2, 3), "past_key_values": cache})) == 1
    assert len(answers(Output(logits=torch.ones(2, 3), past_key_values=Cache()))) == 1
    assert len(answers({"logits": torch.ones(2, 3), "cache": Cache()})) == 1
    assert answers(torch.ones(2, dtype=torch.int64)) == []


def test_batches_that_disagree_are_named() -> None:
    with pytest.raises(DataError, match=r"got x 2, y 3"):
        n_examples({"x": torch.zeros(2, 1), "y": torch.zeros(3)})
    with pytest.raises(DataError, match="the same structure in every batch"):
        joined([torch.zeros(1), {"x": torch.zeros(1)}])
    with pytest.raises(DataError, match="the same keys in every batch"):
        joined([{"x": torch.zeros(1)}, {"y": torch.zeros(1)}])
    with pytest.raises(DataError, match="as many parts in every batch"):
        joined([(torch.zeros(1),), (torch.zeros(1), torch.zeros(1))])
    with pytest.raises(DataError, match="first dimension counts examples: got an empty dict"):
        n_examples({})


def test_what_came_is_said_shortly() -> None:
    assert described(torch.zeros(2, 3)) == "float32 [2, 3]"
    assert described(None) == "None"
    assert described(5) == "a int"
    assert (
        described(Output(logits=torch.zeros(2)))
        == "a Output (loss: NoneType, logits: float32 [2], past_key_values: NoneType)"
    )
    assert described([torch.zeros(1)] * 9).endswith(", ...)")


@dataclasses.dataclass
class Answered:
    logits: torch.Tensor
    note: str = "none"


def test_answers_in_a_dataclass_are_joined_field_by_field():
    """Only the first batch of them was kept."""
    parts = [Answered(torch.tensor([float(n)])) for n in range(3)]
    assert joined(parts).logits.tolist() == [0.0, 1.0, 2.0]
